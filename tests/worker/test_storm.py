"""The kill storm: workers, Redis and S3 die at random; no job is lost, none is committed twice."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from redis.exceptions import RedisError

from customedit.platform.jobs import Jobs
from customedit.platform.local import LocalServers
from customedit.platform.records import EditOutcome

from .bench import Bench, Workers, until
from .proxy import Proxy

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGQUIT)


@pytest.fixture
def s3_proxy(settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    at = urlsplit(settings.s3_endpoint)
    proxy = Proxy((at.hostname, at.port))
    yield proxy
    proxy.close()


@pytest.mark.parametrize(
    ("count", "every", "outage"),
    [
        (60, 5.0, 4.0),
        pytest.param(200, 6.0, 10.0, marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
)
def test_none_lost_none_twice(
    count: int,
    every: float,
    outage: float,
    bench: Bench,
    workers: Workers,
    s3_proxy: Proxy,
    local_servers: LocalServers,
) -> None:
    chance = random.Random(count)
    workers.environment |= {
        "CUSTOMEDIT_S3_ENDPOINT": f"http://127.0.0.1:{s3_proxy.port}",
        "CUSTOMEDIT_DRAIN_SECONDS": "1",
        "CUSTOMEDIT_MAX_ATTEMPTS": "50",
    }
    patient = bench.settings.model_copy(update={"max_attempts": 50, "queue_limit_per_tenant": 1000})
    bench.settings = patient
    bench.jobs = Jobs(bench.jobs.client, patient)
    image = bench.image()
    asked = [
        bench.edit(image=image, steps=1 + k % 2, strengths=[round(0.1 + k / 500, 3)])
        for k in range(count)
    ]
    living = [workers.start() for _ in range(3)]
    for worker in living:
        worker.ready()
    deeds = ["redis", "s3"]
    while (left := open_jobs(bench, asked)) > 0:
        time.sleep(chance.uniform(0.5, 1.0) * every)
        victim = chance.randrange(3)
        living[victim].kill(chance.choice(SIGNALS))
        living[victim] = workers.start()
        if deeds and left < count * 0.8:
            if deeds.pop() == "s3":
                s3_proxy.fail()
                threading.Timer(outage, s3_proxy.mend).start()
            else:
                crash(local_servers, "valkey")
    until(lambda: open_jobs(bench, asked) == 0, "all final")
    consistent(bench, asked)
    until(lambda: all(tidy(bench, j) for j in asked), "the leavings of other attempts swept")


def crash(servers: LocalServers, name: str) -> None:
    """Kill a server as the kernel would, and start it again."""
    os.kill(servers.pid(name), signal.SIGKILL)
    until(lambda: not servers.alive()[name], f"{name} gone")
    servers.restart(name)


def open_jobs(bench: Bench, asked: list[str]) -> int:
    """How many are not final; asked in a way that bears Redis being away."""
    try:
        return sum(not bench.get(j).finished for j in asked)
    except RedisError:
        return len(asked)


def consistent(bench: Bench, asked: list[str]) -> None:
    """Every job succeeded once, its record, events, index and files agree."""
    attempts: Counter[int] = Counter()
    for job_id in asked:
        record = bench.get(job_id)
        assert record.state == "succeeded", record
        attempts[record.attempt] += 1
        states = bench.states(job_id)
        assert states.count("succeeded") == 1 and states[-1] == "succeeded", states
        assert states.count("running") == record.attempt
        outcome = EditOutcome.model_validate(record.result)
        for key in (outcome.outputs[0].image_key, outcome.source_key):
            assert key is not None and bench.storage.exists(key)
    assert bench.jobs.open_jobs(bench.tenant) == 0 and bench.jobs.running() == 0
    print("attempts:", dict(attempts))


def tidy(bench: Bench, job_id: str) -> bool:
    """Whether nothing lies there but what the attempt that was committed wrote."""
    folders = {n.split("/")[1] for n in bench.names(job_id) if n.startswith("attempts/")}
    return len(folders) == 1
