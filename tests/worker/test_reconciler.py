"""What the reconciler does beside notifying: webhooks, the journal, old jobs."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import generate_latest
from standardwebhooks.webhooks import Webhook

from customedit import mini
from customedit.diffusion.facts import BaseFacts
from customedit.jobs import notifications
from customedit.jobs.bases import Bases
from customedit.jobs.journal import Journal
from customedit.jobs.records import JobRecord
from customedit.jobs.webhooks import Secrets
from customedit.mini.text import load_tokenizer
from customedit.schemas import ids
from customedit.storage import object_keys
from customedit.tenants.catalogue import Concepts
from worker.metrics import Metrics
from worker.reconciler import MOST_NOTIFICATIONS, Reconciler

from .bench import Bench, Workers, until

Heard = list[tuple[dict[str, str], bytes]]


@pytest.fixture
def receiver() -> Iterator[tuple[str, Heard]]:
    heard: Heard = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            heard.append(({k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(204)
            self.end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/hook", heard
        server.shutdown()


def test_the_end_of_a_job_is_told_to_its_webhook(
    bench: Bench, workers: Workers, receiver: tuple[str, Heard]
) -> None:
    url, heard = receiver
    secret = Secrets(bench.jobs.client, bench.settings).make(bench.tenant)
    workers.start(webhook_allow_private=True).ready()
    job_id = bench.edit(steps=1, webhook=url)
    bench.succeeded(job_id)
    until(lambda: heard, "the webhook came")
    headers, body = heard[0]
    Webhook(secret.text).verify(body, headers)  # raises unless it is signed
    told = json.loads(body)
    assert told["type"] == "job.succeeded" and told["data"]["id"] == job_id


def test_old_jobs_go_with_their_files(bench: Bench, workers: Workers) -> None:
    workers.start(keep_jobs_days=1 / 86_400).ready()  # one second
    job_id = bench.edit(steps=1)
    until(lambda: bench.jobs.get(bench.tenant, job_id) is None, "the job gone")
    until(lambda: not bench.names(job_id), "its files gone")
    assert list(bench.storage.list(object_keys.images(bench.tenant)))  # the source is its owner's


def test_a_worker_publishes_the_facts_of_its_base(bench: Bench, workers: Workers) -> None:
    workers.start().ready()

    def known() -> list[BaseFacts]:
        return Bases(bench.jobs.client, bench.settings, bench.storage).current()

    (facts,) = until(known, "the facts of the base")
    expected = BaseFacts.of([load_tokenizer(mini.path() / "tokenizer")], facts.fingerprint)
    assert facts.tokenizers == expected.tokenizers and facts.name == "mini"
    concept = bench.succeeded(bench.customize(steps=1, class_images=0))["concept"]
    record = Concepts(bench.jobs.client, bench.settings).get(bench.tenant, concept)
    assert record is not None and record.columns == {record.token: 1}
    assert record.base == facts.concept_fingerprints[0]


def test_what_the_front_end_ended_is_journaled_too(bench: Bench, workers: Workers) -> None:
    job_id = bench.edit(steps=1)
    bench.jobs.cancel(bench.tenant, job_id)
    workers.start().ready()
    final = object_keys.job(bench.tenant, job_id, "final.json")
    until(lambda: bench.storage.exists(final), "final.json there")
    assert json.loads(bench.storage.get(final))["state"] == "cancelled"


def test_files_that_were_sent_and_never_completed_go(bench: Bench, workers: Workers) -> None:
    kept, left = ids.new("upl"), ids.new("upl")
    for upload_id in (kept, left):
        bench.storage.put(object_keys.upload(bench.tenant, upload_id), b"half", "image/png")
        bench.jobs.expect_upload(bench.tenant, upload_id)
    waiting = f"{bench.settings.namespace}:uploads"
    bench.jobs.client.zadd(waiting, {f"{bench.tenant}/{left}": 1.0})  # long ago
    workers.start().ready()
    until(lambda: not bench.storage.exists(object_keys.upload(bench.tenant, left)), "the file gone")
    until(lambda: bench.jobs.client.zcard(waiting) == 1, "and forgotten")
    assert bench.storage.exists(object_keys.upload(bench.tenant, kept))


def test_what_cannot_be_cleaned_up_keeps_nothing_else_waiting(
    bench: Bench, workers: Workers
) -> None:
    marks = f"{bench.settings.namespace}:cleanup"
    odd, fine, ended = (bench.edit(steps=1) for _ in range(3))
    for job_id in (odd, fine):
        claim = bench.jobs.claim(job_id, "w")
        assert claim is not None
        bench.storage.put(claim.key("half.png"), b"")
        bench.jobs.commit(claim, {"outputs": []}) if job_id == odd else bench.jobs.cancelled(claim)
    bench.jobs.cancel(bench.tenant, ended)
    for score, job_id in enumerate((odd, fine), 1):
        bench.redis.zadd(marks, {f"{bench.tenant}/{job_id}": score})
    worker = workers.start().ready()
    until(lambda: not any("half" in name for name in bench.names(fine)), "the other one cleaned up")
    until(lambda: "final.json" in bench.names(ended), "and the journal written")
    assert bench.redis.zrange(marks, 0, -1) == [f"{bench.tenant}/{odd}"]
    assert f"{odd} cannot be cleaned up" in worker.said()


def test_a_round_cleans_up_and_journals_all_that_is_due(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many ended since the last one; those that still run are looked at once."""
    monkeypatch.setattr("worker.reconciler.BATCH", 2)
    runtime: Any = SimpleNamespace(
        settings=bench.settings.model_copy(update={"reconcile_seconds": 30.0}), redis=bench.redis,
        jobs=bench.jobs, storage=bench.storage, metrics=Metrics(), journal=Journal(bench.storage),
        concept_records=Concepts(bench.redis, bench.settings),
    )  # fmt: skip
    reconciler = Reconciler(runtime, "w")
    made = [bench.edit(steps=1) for _ in range(7)]
    for job_id in made:
        claim = bench.jobs.claim(job_id, "w")
        assert claim is not None
        bench.storage.put(claim.key("half.png"), b"")
        assert job_id == made[-1] or bench.jobs.cancelled(claim)
    due = dict.fromkeys((f"{bench.tenant}/{job_id}" for job_id in made), 1.0)
    marks = f"{bench.settings.namespace}:cleanup"
    bench.redis.zadd(marks, due)  # long ago
    reconciler.clean_up_all()
    assert bench.redis.zrange(marks, 0, -1) == [f"{bench.tenant}/{made[-1]}"]
    half = [any("half" in name for name in bench.names(job_id)) for job_id in made]
    assert half == [False] * 6 + [True]
    reconciler.settle_all()
    assert bench.jobs.unjournaled() == []


def test_a_round_ends_once_another_worker_reconciles(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lock has run out, for instance while a store was slow."""
    monkeypatch.setattr("worker.reconciler.BATCH", 2)
    runtime: Any = SimpleNamespace(
        settings=bench.settings.model_copy(update={"reconcile_seconds": 30.0}), redis=bench.redis,
        jobs=bench.jobs, storage=bench.storage, metrics=Metrics(), journal=Journal(bench.storage),
        concept_records=Concepts(bench.redis, bench.settings),
    )  # fmt: skip
    reconciler = Reconciler(runtime, "w")
    for _ in range(5):
        bench.jobs.cancel(bench.tenant, bench.edit(steps=1))
    assert bench.jobs.lock("reconciler", "another", 60.0)
    reconciler.settle_all()
    assert len(bench.jobs.unjournaled()) == 3


def test_notifications_that_no_worker_receives_do_not_pile_up(bench: Bench) -> None:
    """Of a kind that no worker takes at present, while another's worker reconciles."""
    runtime: Any = SimpleNamespace(
        settings=bench.settings, redis=bench.redis, jobs=bench.jobs, storage=bench.storage,
        metrics=Metrics(), journal=None, concept_records=None, measure_device=None, scratch=None,
    )  # fmt: skip
    reconciler = Reconciler(runtime, "w")
    made = [bench.edit(steps=1) for _ in range(3)]
    queue = notifications.queue(bench.settings, "edit")
    bench.redis.delete(queue)  # the first ones are lost

    def rounds(count: int) -> int:
        for _ in range(count):
            due = dict.fromkeys(made, 1.0)
            bench.redis.zadd(f"{bench.settings.namespace}:wakeups", due)  # long ago
            notified = reconciler.notify_overdue()
        return notified

    assert rounds(1) == 3
    assert rounds(60) == 0
    assert bench.redis.llen(queue) == 3
    bench.redis.delete(queue)
    assert rounds(1) == 3  # somebody listens again


def test_many_overdue_jobs_are_few_notifications_in_one_call(
    bench: Bench, job: Callable[..., JobRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime: Any = SimpleNamespace(
        settings=bench.settings, redis=bench.redis, jobs=bench.jobs, storage=bench.storage,
        metrics=Metrics(), journal=None, concept_records=None, measure_device=None, scratch=None,
    )  # fmt: skip
    reconciler = Reconciler(runtime, "w")
    names = [f"tenant-{k % 2}" for k in range(MOST_NOTIFICATIONS + 5)]  # one may have 100 jobs
    made = [bench.jobs.submit(job(tenant=name)).record.id for name in names]
    lost = bench.jobs.submit(job(kind="import")).record.id
    assert bench.jobs.claim(lost, "gone") is not None
    wakeups = f"{bench.settings.namespace}:wakeups"
    bench.redis.hset(f"{bench.settings.namespace}:job:{lost}", "lease_until", "1.0")
    bench.redis.zadd(wakeups, {name: 1.0 + k for k, name in enumerate([*made, lost])})
    calls, parts, push, run = list[int](), list[int](), bench.redis.lpush, bench.jobs._run

    def counted(name: str, *texts: str) -> Any:
        calls.append(len(texts))
        return push(name, *texts)

    def scripts(name: str, /, **given: Any) -> Any:
        if name == "overdue":
            parts.append(given["limit"])
        return run(name, **given)

    monkeypatch.setattr(bench.redis, "lpush", counted)
    monkeypatch.setattr(bench.jobs, "_run", scripts)
    assert reconciler.notify_overdue() == MOST_NOTIFICATIONS + 1
    assert sorted(calls) == [1, MOST_NOTIFICATIONS]
    assert max(parts) <= 10  # no claim waits for longer than these take
    message: Any = bench.redis.lindex(notifications.queue(bench.settings, "edit"), -1)
    assert made[0] in json.loads(message)["headers"]["argsrepr"]  # those due first
    assert bench.redis.llen(notifications.queue(bench.settings, "import")) == 1  # its lease is over
    claim = bench.jobs.claim_next(["import"], "w")
    assert claim is not None and claim.id == lost


def test_operators_see_the_stores_and_the_disk(
    bench: Bench, workers: Workers, receiver: tuple[str, Heard]
) -> None:
    worker = workers.start(reconcile_seconds=0.2).ready()
    until(lambda: 'redis_memory_bytes{what="used"}' in worker.get("/metrics")[1], "measured")
    text = worker.get("/metrics")[1]
    series = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
    assert float(series['customedit_redis_memory_bytes{what="used"}']) > 1e5
    assert series['customedit_redis_memory_bytes{what="most"}'] == "+Inf"  # no limit is set
    free = float(series['customedit_scratch_bytes{what="free"}'])
    assert 0 < free <= float(series['customedit_scratch_bytes{what="total"}'])
    assert series["customedit_storage_writable"] == "1.0"
    assert series['customedit_store_errors_total{store="s3"}'] == "0.0"
    # without a secret of its tenant no webhook can be sent
    bench.jobs.cancel(bench.tenant, bench.edit(webhook=receiver[0]))
    until(lambda: worker.metric("customedit_webhooks_waiting") == 1, "the backlog")
    until(lambda: worker.metric("customedit_webhooks_oldest_seconds") > 0, "its age")


def test_a_bucket_that_takes_no_writes_is_told_of(bench: Bench) -> None:
    metrics = Metrics()
    runtime: Any = SimpleNamespace(
        settings=bench.settings, redis=bench.redis, jobs=bench.jobs,
        storage=SimpleNamespace(writable=lambda: False), metrics=metrics, journal=None,
        concept_records=None, measure_device=None, scratch=None,
    )  # fmt: skip
    reconciler = Reconciler(runtime, "w")
    reconciler._probe_storage()
    assert b"customedit_storage_writable 0.0" in generate_latest(metrics.registry)
