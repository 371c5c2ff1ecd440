"""Workers that are stopped, killed, overtaken: no job is lost and none ends twice."""

from __future__ import annotations

import functools
import json
import signal
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from safetensors import safe_open
from safetensors.torch import load, save

from customedit.jobs import notifications
from customedit.jobs.records import ConceptOutcome
from customedit.jobs.recovery import recover
from customedit.storage import object_keys

from .bench import Bench, Workers, until
from .proxy import Proxy

LONG: dict[str, Any] = {
    "references": 1, "steps": 16, "batch": 1, "crops": 1, "class_images": 2, "class_steps": 2,
    "checkpoint_every": 3,
}  # fmt: skip


def weights(bench: Bench, job_id: str) -> dict[str, bytes]:
    outcome = ConceptOutcome.model_validate(bench.succeeded(job_id))
    tensors = load(bench.storage.get(outcome.weights_key))
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


@pytest.fixture(scope="module")
def ends() -> dict[str, bytes]:
    """The weights that ``LONG`` ends in if nothing disturbs it; see ``undisturbed``."""
    return {}


@pytest.fixture
def undisturbed(bench: Bench, ends: dict[str, bytes]) -> Callable[[], dict[str, bytes]]:
    """Gives those weights, which the first test that asks has a worker train."""

    def trained() -> dict[str, bytes]:
        if not ends:
            ends.update(weights(bench, bench.customize(**LONG)))
        return ends

    return trained


def checkpoint_there(bench: Bench, job_id: str) -> None:
    key = object_keys.checkpoint(bench.tenant, job_id, "training.safetensors")
    until(lambda: bench.storage.exists(key), "a checkpoint in S3")


@pytest.mark.parametrize(
    "number",
    [signal.SIGKILL, signal.SIGTERM, pytest.param(signal.SIGQUIT, marks=pytest.mark.slow)],
)
def test_a_training_that_is_cut_short_ends_in_the_same_weights(
    number: int, bench: Bench, workers: Workers, undisturbed: Callable[[], dict[str, bytes]]
) -> None:
    first = workers.start(drain_seconds=0.5).ready()
    wanted = undisturbed()
    job_id = bench.customize(**LONG)
    bench.running(job_id, "train", 8)
    checkpoint_there(bench, job_id)
    first.kill(number)
    second = workers.start().ready()
    assert weights(bench, job_id) == wanted
    record = bench.get(job_id)
    assert record.attempt == 2
    assert record.handed_back == (0 if number == signal.SIGKILL else 1)
    assert bench.states(job_id).count("succeeded") == 1
    trained = [
        e.data["step"]
        for e in bench.jobs.events(bench.tenant, job_id)
        if e.kind == "progress" and e.data["phase"] == "train" and e.data["step"]
    ]
    again = [b for a, b in pairwise(trained) if b < a]
    assert all(b > 3 for b in again)  # went on from a checkpoint, not from the start
    first.gone()
    assert second.alive


def test_a_checkpoint_of_another_version_is_dropped_and_the_training_starts_anew(
    bench: Bench,
    workers: Workers,
    undisturbed: Callable[[], dict[str, bytes]],
    tmp_path: Path,
) -> None:
    first = workers.start().ready()
    wanted = undisturbed()
    job_id = bench.customize(**LONG)
    bench.running(job_id, "train", 8)
    checkpoint_there(bench, job_id)
    first.kill()
    first.gone()
    key = object_keys.checkpoint(bench.tenant, job_id, "training.safetensors")
    path = tmp_path / "older.safetensors"
    path.write_bytes(bench.storage.get(key))
    with safe_open(path, framework="pt") as file:
        note = json.loads(file.metadata()["training"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    del note["about"]["settings"]["weigh_cells"]  # a setting that the older version did not have
    body = save(tensors, {"training": json.dumps(note)})
    bench.storage.put(key, body, "application/octet-stream")
    second = workers.start().ready()
    assert weights(bench, job_id) == wanted
    assert bench.get(job_id).attempt == 2
    assert "starts anew" in second.said()


def test_drain_lets_short_jobs_end(bench: Bench, workers: Workers) -> None:
    worker = workers.start(drain_seconds=60).ready()
    job_id = bench.edit(steps=20)
    bench.running(job_id, "edit", 1)
    worker.kill(signal.SIGTERM)
    until(lambda: worker.get("/readyz")[0] != 200, "no longer ready")
    late = bench.edit()
    record = bench.finished(job_id)
    assert (record.state, record.attempt, record.handed_back) == ("succeeded", 1, 0)
    worker.gone()
    assert bench.get(late).state == "queued"
    workers.start().ready()
    bench.succeeded(late)


def test_cancel_stops_a_running_job_and_leaves_nothing(bench: Bench, workers: Workers) -> None:
    worker = workers.start().ready()
    job_id = bench.customize(steps=2000, crops=1, class_images=0, checkpoint_every=1)
    before = bench.running(job_id, "train", 4)
    checkpoint_there(bench, job_id)
    assert before.progress is not None
    at = bench.get(job_id).progress
    bench.jobs.cancel(bench.tenant, job_id)
    record = bench.finished(job_id)
    assert record.state == "cancelled" and record.progress is not None and at is not None
    assert record.progress.step - at.step <= 4  # news come every quarter of a second
    journal = ["final.json", "request.json"]
    until(lambda: bench.names(job_id) == journal, "all of it gone", 20)
    concept = bench.catalogue.concept(bench.tenant, record.concept or "")
    assert concept is not None and concept.state == "failed"
    queued = bench.edit(steps=1)
    bench.succeeded(queued)
    worker.counts("customedit_jobs_running", 0)


def test_a_worker_that_was_overtaken_removes_its_outputs(bench: Bench, workers: Workers) -> None:
    slow = workers.start(lease_seconds=1.0, heartbeat_seconds=0.4).ready()
    job_id = bench.edit(steps=16, strengths=[0.2, 0.8])
    bench.running(job_id, "edit", 3)
    slow.kill(signal.SIGSTOP)  # as if its machine had gone to sleep
    workers.start().ready()
    until(lambda: bench.get(job_id).attempt == 2, "taken over")
    slow.kill(signal.SIGCONT)
    bench.succeeded(job_id)
    slow.counts("customedit_leases_lost_total", 1)
    slow.counts("customedit_jobs_running", 0)
    record = bench.get(job_id)
    assert record.state == "succeeded" and record.attempt == 2
    assert bench.states(job_id).count("succeeded") == 1
    own = [n for n in bench.names(job_id) if n.startswith("attempts/")]
    assert own and all(n.startswith("attempts/2-") for n in own)


def test_a_full_redis_ends_no_worker(bench: Bench, workers: Workers) -> None:
    before = workers.start(worker_concurrency=2).ready()
    waiting = [bench.edit(steps=4, strengths=[k / 10]) for k in range(1, 4)]
    running = bench.customize(**LONG)
    bench.running(running, "train", 1)
    queue = notifications.queue(bench.settings, "edit")
    message = notifications.message(bench.settings, waiting[0], "edit", None)
    bench.redis.rpush(queue, *[message] * 20)
    try:
        bench.redis.config_set("maxmemory", 1)
        after = workers.start().ready()
        for job_id in (*waiting, running):
            bench.succeeded(job_id)
            assert bench.get(job_id).attempt == 1
    finally:
        bench.redis.config_set("maxmemory", 0)
    late = bench.edit(steps=1)
    bench.succeeded(late)
    assert before.alive and after.alive
    for worker in (before, after):
        worker.kill(signal.SIGTERM)
        worker.gone()
        assert "exit status 0" in worker.said()


def test_a_worker_whose_celery_ends_by_itself_drains_and_says_so(
    bench: Bench, workers: Workers
) -> None:
    worker = workers.start(drain_seconds=60).ready()
    job_id = bench.edit(steps=30)
    bench.running(job_id, "edit", 1)
    bench.redis.lpush(notifications.queue(bench.settings, "edit"), "no message of Celery's")
    record = bench.finished(job_id)
    assert (record.state, record.attempt, record.handed_back) == ("succeeded", 1, 0)
    worker.gone()
    assert "Celery ended by itself" in worker.said() and "exit status 1" in worker.said()


def test_a_training_goes_on_while_s3_is_away(bench: Bench, workers: Workers) -> None:
    at = urlsplit(bench.settings.s3_endpoint or "")
    proxy = Proxy((at.hostname or "", at.port or 0))
    workers.start(s3_endpoint=f"http://127.0.0.1:{proxy.port}").ready()
    job_id = bench.customize(**LONG)
    bench.running(job_id, "train", 2)
    proxy.fail()
    bench.running(job_id, "train", 10)
    proxy.restore()
    bench.succeeded(job_id)
    assert bench.get(job_id).attempt == 1
    proxy.close()


def test_a_redis_that_lost_everything_is_rebuilt_under_a_running_worker(
    bench: Bench, workers: Workers
) -> None:
    worker = workers.start(worker_concurrency=2).ready()
    done = bench.edit(steps=1)
    result = bench.succeeded(done)
    final = object_keys.job(bench.tenant, done, "final.json")
    until(lambda: bench.storage.exists(final), "journaled")
    training = bench.customize(**LONG)
    bench.running(training, "train", 6)
    checkpoint_there(bench, training)
    waiting = [bench.edit(steps=2, strengths=[k / 10]) for k in range(1, 6)]
    keys = list(bench.redis.scan_iter(f"{bench.settings.namespace}:*", count=1000))
    bench.redis.delete(*keys)  # and the notifications with them
    bench.redis.delete(*bench.redis.keys(f"{bench.settings.namespace}.*") or ["none"])
    assert bench.jobs.peek(training) is None
    worker.counts("customedit_jobs_running", 0)
    recovered = recover(bench.jobs.client, bench.storage, bench.settings)
    assert recovered.unreadable == []
    for job_id in waiting:
        bench.succeeded(job_id)
    assert bench.succeeded(training)["token"] == "<plaid>"
    assert bench.states(training) == ["queued", "running", "succeeded"]  # since it was restored
    assert bench.get(done).result == result


def test_a_job_whose_worker_always_dies_fails_in_the_end(bench: Bench, workers: Workers) -> None:
    from dataclasses import replace

    poor = replace(bench, settings=bench.settings.model_copy(update={"max_attempts": 2}))
    poor.jobs = type(poor.jobs)(poor.jobs.client, poor.settings)
    job_id = poor.edit(steps=100, strengths=[0.2, 0.5, 0.8])

    def in_attempt(number: int) -> bool:
        return poor.get(job_id).attempt == number

    for attempt in (1, 2):
        worker = workers.start().ready()
        until(functools.partial(in_attempt, attempt), f"attempt {attempt}")
        worker.kill()
        worker.gone()
    workers.start().ready()
    record = poor.finished(job_id)
    assert record.state == "failed" and record.error is not None
    assert record.error.type == "attempts-exhausted"
