"""Redis is wiped, and everything is there again."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis

from customedit.config.settings import Settings
from customedit.jobs.claims import Claim
from customedit.jobs.journal import RESULT, Journal
from customedit.jobs.records import (
    ConceptOutcome,
    ConceptRecord,
    ImageRecord,
    JobError,
    JobRecord,
)
from customedit.jobs.recovery import Recovered, recover
from customedit.jobs.store import Jobs
from customedit.jobs.webhooks import Secrets
from customedit.schemas import ids
from customedit.storage import object_keys
from customedit.storage.store import Storage
from customedit.tenants.access import ApiKeys
from customedit.tenants.catalogue import Catalogue

Make = Callable[..., JobRecord]
Training = Callable[..., tuple[JobRecord, ConceptRecord]]


@pytest.fixture
def wipe(client: Redis, settings: Settings) -> Callable[[], None]:
    def make() -> None:
        for name in list(client.scan_iter(f"{settings.namespace}:*", count=1000)):
            client.delete(name)

    return make


@pytest.fixture
def submit(jobs: Jobs, journal: Journal) -> Callable[..., JobRecord]:
    """As the front end does it: journal, then record."""

    def make(record: JobRecord, concept: ConceptRecord | None = None) -> JobRecord:
        journal.request(record, concept)
        return jobs.submit(record, concept=concept).record

    return make


def claimed(jobs: Jobs, record: JobRecord) -> Claim:
    claim = jobs.claim(record.id, "w")
    assert claim is not None
    return claim


def outcome(concept: str) -> ConceptOutcome:
    return ConceptOutcome(
        concept=concept, weights_key="k", bytes=7, token="<look>", noun="cup", attribute="plaid",
        base="mini", recipe={"seed": 1, "none": []},
    )  # fmt: skip


def test_everything_comes_back(
    client: Redis, settings: Settings, storage: Storage, jobs: Jobs, catalogue: Catalogue,
    journal: Journal, wipe: Callable[[], None], submit: Callable[..., JobRecord], job: Make,
    training: Training, picture: Callable[..., ImageRecord],
) -> None:  # fmt: skip
    keys, secrets = ApiKeys(client, settings, journal), Secrets(client, settings, journal)
    _, text = keys.create("acme")
    revoked, gone = keys.create("acme")
    keys.revoke(revoked.id)
    secret = secrets.make("acme")
    image = picture(b"1", at=5.0)
    journal.image(image)
    catalogue.images.put(image)

    queued = submit(job(request={"image": image.id}, webhook="https://example.com/"))
    running = submit(job())
    claimed(jobs, running)
    storage.put(object_keys.attempt("acme", running.id, 1, "half.png"), b"")
    failed = submit(job())
    jobs.fail(claimed(jobs, failed), JobError(type="t", title="t"))
    trained, concept = training()
    submit(trained, concept)
    told = outcome(concept.id)
    jobs.commit(
        claimed(jobs, trained), told.model_dump(), concept=concept.ready(told, at=time.time())
    )
    in_training, raw = training()
    submit(in_training, raw)
    assert journal.settle(jobs, catalogue.concepts) == 2
    assert jobs.unjournaled() == []

    before = {name: jobs.peek(name) for name in (failed.id, trained.id)}
    concepts = {c.id: c for c in catalogue.concepts.list("acme").items}
    wipe()
    assert jobs.list("acme").items == []
    done = recover(client, storage, settings)
    assert done == Recovered(keys=2, secrets=1, images=1, concepts=2, queued=3, finished=2)

    assert {name: jobs.peek(name) for name in before} == before
    assert {c.id: c for c in catalogue.concepts.list("acme").items} == concepts
    assert catalogue.images.get("acme", image.id) == image
    assert keys.verify(text) is not None and keys.verify(gone) is None
    kept = secrets.get("acme")
    assert kept is not None and kept.text == secret.text
    assert {r.id for r in jobs.list("acme", state="queued").items} == {
        queued.id, running.id, in_training.id,
    }  # fmt: skip
    assert {name for name, _ in jobs.overdue()} == {queued.id, running.id, in_training.id}
    assert not catalogue.concepts.delete("acme", ids.new("con"))
    again = claimed(jobs, running)
    assert again.attempt == 2  # its outputs do not fall among the former's
    assert jobs.commit(again, {}) and jobs.cancel("acme", queued.id) is not None
    assert catalogue.images.delete("acme", image.id)

    assert recover(client, storage, settings) == Recovered()  # not even what is not yet swept


def test_a_result_without_final_json_has_succeeded(
    client: Redis, settings: Settings, storage: Storage, jobs: Jobs, catalogue: Catalogue,
    wipe: Callable[[], None], submit: Callable[..., JobRecord], training: Training,
) -> None:  # fmt: skip
    asked, concept = training()
    submit(asked.model_copy(update={"webhook": "https://example.com/"}), concept)
    claim = claimed(jobs, asked)
    jobs.hand_back(claim)
    claim = claimed(jobs, asked)
    told = outcome(concept.id).model_dump(mode="json")
    storage.put(claim.key(RESULT), json.dumps(told).encode())
    wipe()  # and the worker died before its commit
    assert recover(client, storage, settings) == Recovered(concepts=1, finished=1)
    record = jobs.peek(asked.id)
    assert record is not None
    assert (record.state, record.attempt, record.result) == ("succeeded", 2, told)
    assert record.finished_at == pytest.approx(jobs.now(), abs=60)
    kept = catalogue.concepts.get("acme", concept.id)
    assert kept is not None and (kept.state, kept.weights_key, kept.bytes) == ("ready", "k", 7)
    assert jobs.unjournaled() == [asked.id]  # its final.json is written after all
    assert client.zcard(f"{settings.namespace}:outbox") == 1  # and its owner told


def test_what_was_deleted_stays_deleted(
    client: Redis, settings: Settings, storage: Storage, jobs: Jobs, catalogue: Catalogue,
    journal: Journal, wipe: Callable[[], None], submit: Callable[..., JobRecord], job: Make,
    training: Training,
) -> None:  # fmt: skip
    made = submit(job())
    jobs.cancel("acme", made.id)
    trained, concept = training()
    submit(trained, concept)
    told = outcome(concept.id)
    jobs.commit(
        claimed(jobs, trained), told.model_dump(), concept=concept.ready(told, at=time.time())
    )
    journal.settle(jobs, catalogue.concepts)
    jobs.delete("acme", made.id)
    catalogue.concepts.delete("acme", concept.id)
    # not yet swept: the bucket still has them
    assert recover(client, storage, settings) == Recovered()
    assert journal.settle(jobs, catalogue.concepts) == 2
    wipe()
    assert recover(client, storage, settings) == Recovered(finished=1)
    assert jobs.peek(made.id) is None and jobs.peek(trained.id) is not None
    assert list(storage.list(f"tenants/acme/jobs/{made.id}/")) == []
    assert list(storage.list(f"tenants/acme/concepts/{concept.id}/")) == []


def test_what_never_was_submitted_or_cannot_be_read_stops_nothing(
    client: Redis, settings: Settings, storage: Storage, jobs: Jobs, journal: Journal,
    submit: Callable[..., JobRecord], wipe: Callable[[], None], job: Make, training: Training,
    picture: Callable[..., ImageRecord],
) -> None:  # fmt: skip
    _, orphan = training()
    journal.concept(orphan)  # its front end died before the request was written
    storage.put(object_keys.attempt("acme", ids.new("job"), 1, "a.png"), b"")
    broken = object_keys.image("acme", ids.of_image(b"2"), "1", "image.json")
    storage.put(broken, b"{")
    elsewhere = picture(b"3")
    journal.image(elsewhere)
    (stray,) = storage.list(elsewhere.folder)
    far = elsewhere.model_copy(update={"key": "tenants/acme/images/all"})
    storage.put(stray.key, far.model_dump_json().encode())
    odd = ids.new("job")
    storage.put(object_keys.job("acme", odd, "request.json"), b'{"id": 1}')
    fine = submit(job())
    wipe()
    done = recover(client, storage, settings)
    assert (done.queued, done.concepts, done.images) == (1, 0, 0)
    assert sorted(done.unreadable) == sorted([broken, odd, stray.key])
    assert jobs.peek(fine.id) is not None


def test_recovery_while_others_write_loses_and_doubles_nothing(
    client: Redis, settings: Settings, storage: Storage, jobs: Jobs, journal: Journal,
    catalogue: Catalogue, wipe: Callable[[], None], submit: Callable[..., JobRecord], job: Make,
) -> None:  # fmt: skip
    lost = [submit(job()).id for _ in range(20)]
    wipe()
    halt = threading.Event()
    fresh: list[str] = []
    commits: list[str] = []
    deleted: list[str] = []

    def front_end() -> None:
        while not halt.is_set():
            fresh.append(submit(job(tenant="busy", webhook="https://example.com/")).id)

    def worker() -> None:
        while not halt.is_set():
            for record in jobs.list("busy", state="queued", limit=5).items:
                claim = jobs.claim(record.id, "w")
                if claim is not None and jobs.commit(claim, {"token": claim.token}):
                    commits.append(claim.id)
                    if len(commits) % 3 == 0 and jobs.delete("busy", claim.id):
                        deleted.append(claim.id)
            journal.settle(jobs, catalogue.concepts)

    threads = [threading.Thread(target=does) for does in (front_end, worker)]
    for thread in threads:
        thread.start()
    done = [recover(client, storage, settings) for _ in range(4)]
    halt.set()
    for thread in threads:
        thread.join()
    while journal.settle(jobs, catalogue.concepts):
        pass
    assert {r.id for r in jobs.list("acme", limit=100).items} == set(lost)
    assert sum(d.queued for d in done) >= len(lost) and not any(d.unreadable for d in done)
    kept = {r.id for r in jobs.list("busy", limit=10_000).items}
    assert kept == set(fresh) - set(deleted)
    assert len(commits) == len(set(commits)) > 0


def test_what_is_deleted_stays_so_for_a_recovery_that_read_it_before(
    client: Redis, settings: Settings, storage: Storage, jobs: Jobs, journal: Journal,
    catalogue: Catalogue, submit: Callable[..., JobRecord], job: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    made = submit(job())
    claim = jobs.claim(made.id, "w")
    assert claim is not None and jobs.commit(claim, {})
    restore, put_back = Jobs.restore, []

    def late(self: Jobs, *given: Any, **more: Any) -> Any:
        """The job is deleted and swept after the journal was read."""
        assert jobs.delete(made.tenant, made.id)
        while journal.settle(jobs, catalogue.concepts):
            pass
        put_back.append(restore(self, *given, **more))
        return put_back[-1]

    monkeypatch.setattr(Jobs, "restore", late)
    recover(client, storage, settings)
    assert put_back == [False] and jobs.get(made.tenant, made.id) is None


def test_jobs_that_stand_in_no_queue_are_put_into_theirs(
    client: Redis, settings: Settings, storage: Storage, jobs: Jobs,
    submit: Callable[..., JobRecord], job: Make,
) -> None:  # fmt: skip
    """As of a version with other queues: waiting, left by a dead worker, and at work."""
    waiting, left, held = (submit(job()) for _ in range(3))
    claimed(jobs, left)
    claim = claimed(jobs, held)
    space = settings.namespace
    client.hset(f"{space}:job:{left.id}", "lease_until", "1.0")
    for name in ("claimable:edit:acme", "turns:edit", "leases:edit", "wakeups"):
        client.delete(f"{space}:{name}")
    assert jobs.claim_next(["edit"], "w") is None
    recover(client, storage, settings)
    taken = [jobs.claim_next(["edit"], "w") for _ in range(3)]
    assert [c and c.id for c in taken] == [waiting.id, left.id, None]
    assert jobs.renew(claim) == "held"
    assert set(client.zrange(f"{space}:wakeups", 0, -1)) == {waiting.id, left.id, held.id}
