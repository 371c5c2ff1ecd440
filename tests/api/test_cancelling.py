"""What was told to be cancelled stays so, whatever is lost, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from redis import Redis

from api.deletion import delete_job
from customedit.jobs.journal import Journal
from customedit.jobs.records import JobRecord
from customedit.jobs.recovery import recover
from customedit.jobs.store import Jobs
from customedit.storage import object_keys
from customedit.storage.store import Storage, StorageError

from .conftest import Running, claimed, customize, edit, finish_edit, upload

Again = Callable[[], None]


@pytest.fixture
def again(api: Running, storage: Storage, redis_client: Redis) -> Again:
    """Redis loses everything and is rebuilt."""

    def make() -> None:
        redis_client.delete(*redis_client.scan_iter(f"{api.settings.namespace}:*", count=1000))
        assert recover(redis_client, storage, api.settings).unreadable == []

    return make


def names(storage: Storage, job: str) -> set[str]:
    folder = object_keys.job("anna", job)
    return {stored.key.removeprefix(folder) for stored in storage.list(folder)}


def state(jobs: Jobs, job: str) -> JobRecord:
    record = jobs.peek(job)
    assert record is not None
    return record


def test_cancelled_stays_so_when_redis_loses_everything(
    api: Running, anna: httpx.Client, jobs: Jobs, storage: Storage, again: Again
) -> None:
    queued, running, training = edit(anna)["id"], edit(anna)["id"], customize(anna)
    claimed(jobs, running)
    claimed(jobs, training["id"])
    for job in (queued, running, training["id"]):
        assert anna.post(f"/v1/jobs/{job}/cancel").status_code == 200
    again()
    for job in (queued, running, training["id"]):
        assert (state(jobs, job).state, state(jobs, job).cancel_requested) == ("cancelled", True)
    concept = api.container.concepts.get("anna", training["concept"])
    assert concept is not None and concept.state == "failed"
    assert jobs.open_jobs("anna") == 0
    while api.container.journal.settle(jobs, api.container.concepts):
        pass
    assert names(storage, running) == {"request.json", "final.json"}
    again()
    assert state(jobs, running).state == "cancelled"


def test_a_result_that_is_there_wins(
    anna: httpx.Client, jobs: Jobs, storage: Storage, again: Again
) -> None:
    job = edit(anna)["id"]
    claim = claimed(jobs, job)
    anna.post(f"/v1/jobs/{job}/cancel")
    storage.put(claim.key("result.json"), b'{"kind": "edit", "outputs": []}')
    assert jobs.commit(claim, {"kind": "edit", "outputs": []})
    again()
    assert state(jobs, job).state == "succeeded"


def test_a_cancellation_that_comes_too_late_leaves_nothing(
    api: Running, anna: httpx.Client, jobs: Jobs, storage: Storage, monkeypatch: Any
) -> None:
    job = edit(anna)["id"]
    cancel = Journal.cancel

    def written(*given: Any) -> None:
        cancel(*given)
        finish_edit(jobs, storage, job)  # before Redis hears of the wish

    monkeypatch.setattr(Journal, "cancel", written)
    assert anna.post(f"/v1/jobs/{job}/cancel").json()["state"] == "succeeded"
    assert "cancel.json" not in names(storage, job)
    monkeypatch.undo()
    assert anna.post(f"/v1/jobs/{job}/cancel").json()["state"] == "succeeded"
    assert "cancel.json" not in names(storage, job)


def test_of_a_job_that_is_deleted_meanwhile_nothing_is_left(
    api: Running, anna: httpx.Client, jobs: Jobs, storage: Storage, monkeypatch: Any
) -> None:
    job = edit(anna)["id"]
    cancel = Journal.cancel

    def written(*given: Any) -> None:
        finish_edit(jobs, storage, job)
        delete_job(api.container, "anna", job)
        cancel(*given)

    monkeypatch.setattr(Journal, "cancel", written)
    assert anna.post(f"/v1/jobs/{job}/cancel").status_code == 404
    assert names(storage, job) == set()


@pytest.mark.parametrize("lost", ["before the wish", "before Redis hears of it", "after both"])
def test_a_recovery_at_any_moment(
    lost: str, anna: httpx.Client, jobs: Jobs, again: Again, monkeypatch: Any
) -> None:
    job = edit(anna)["id"]
    claimed(jobs, job)
    write, tell = Journal.cancel, Jobs.cancel

    def written(*given: Any) -> None:
        if lost == "before the wish":
            again()
        write(*given)

    def told(*given: Any) -> JobRecord | None:
        if lost == "before Redis hears of it":
            again()
        found = tell(*given)
        if lost == "after both":
            again()
        return found

    monkeypatch.setattr(Journal, "cancel", written)
    monkeypatch.setattr(Jobs, "cancel", told)
    assert anna.post(f"/v1/jobs/{job}/cancel").status_code == 200
    monkeypatch.undo()
    again()
    assert state(jobs, job).state == "cancelled"


def test_a_redis_that_lost_its_last_second_hears_of_it_again(
    api: Running, anna: httpx.Client, jobs: Jobs, storage: Storage, redis_client: Redis
) -> None:
    job = edit(anna)["id"]
    claim = claimed(jobs, job)
    anna.post(f"/v1/jobs/{job}/cancel")
    redis_client.hdel(f"{api.settings.namespace}:job:{job}", "cancel_requested")
    assert jobs.renew(claim) == "held"
    recover(redis_client, storage, api.settings)
    assert jobs.renew(claim) == "cancel"


def a_batch(client: httpx.Client, count: int) -> dict[str, Any]:
    images = [upload(client, f"#{k:06x}") for k in range(count)]
    body = {"images": images, "source_prompt": "a cup", "target_prompt": "a red cup"}
    answer = client.post("/v1/batches", json=body)
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def test_of_a_batch_only_the_first_waits_for_an_s3_that_hangs(
    api: Running, anna: httpx.Client, jobs: Jobs, storage: Storage,
    monkeypatch: pytest.MonkeyPatch, again: Again,
) -> None:  # fmt: skip
    made = a_batch(anna, 10)
    claimed(jobs, made["jobs"][3]["id"])
    waits: list[str] = []

    def hangs(key: str, *_: object, **__: object) -> None:
        waits.append(key)
        raise StorageError("no answer", transient=True)

    with monkeypatch.context() as patch:
        for call in ("put", "delete", "delete_prefix"):
            patch.setattr(api.container.storage, call, hangs)
        told = anna.post(f"/v1/batches/{made['id']}/cancel").json()
        assert len(waits) == 1
        assert told["counts"]["cancelled"] == 9 and told["counts"]["running"] == 1
        assert state(jobs, made["jobs"][3]["id"]).cancel_requested
    assert names(storage, made["jobs"][0]["id"]) == {"request.json"}
    while api.container.journal.settle(jobs, api.container.concepts):
        pass  # as the reconciler does it
    assert names(storage, made["jobs"][9]["id"]) == {"request.json", "final.json"}
    again()
    states = [state(jobs, job["id"]).state for job in made["jobs"]]
    assert states.count("cancelled") == 9 and states[3] == "queued"


def test_so_it_is_when_a_batch_is_deleted(
    api: Running, anna: httpx.Client, jobs: Jobs, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = a_batch(anna, 3)
    assert anna.post(f"/v1/batches/{made['id']}/cancel").status_code == 200
    waits: list[str] = []

    def hangs(key: str, *_: object, **__: object) -> None:
        waits.append(key)
        raise StorageError("no answer", transient=True)

    with monkeypatch.context() as patch:
        patch.setattr(api.container.storage, "delete", hangs)
        assert anna.delete(f"/v1/batches/{made['id']}").status_code == 204
    assert len(waits) == 1 and len(jobs.folders_to_delete()) == 3
    while api.container.journal.settle(jobs, api.container.concepts):
        pass
    assert not list(storage.list("tenants/anna/jobs/"))


def test_a_job_is_cancelled_while_s3_is_away(
    api: Running, anna: httpx.Client, jobs: Jobs, storage: Storage,
    monkeypatch: pytest.MonkeyPatch, again: Again,
) -> None:  # fmt: skip
    job = edit(anna)["id"]

    def away(*_: object, **__: object) -> None:
        raise StorageError("away", transient=True)

    with monkeypatch.context() as patch:
        for call in ("put", "delete"):
            patch.setattr(api.container.storage, call, away)
        assert anna.post(f"/v1/jobs/{job}/cancel").json()["state"] == "cancelled"
    assert names(storage, job) == {"request.json"}
    while api.container.journal.settle(jobs, api.container.concepts):
        pass  # as the reconciler does it
    again()
    assert state(jobs, job).state == "cancelled"
