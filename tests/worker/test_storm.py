"""The kill storm: workers, front end, Redis and S3 die; no job is lost, none is committed twice."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis.exceptions import RedisError

from customedit.config.settings import Settings
from customedit.devserver.local_servers import LocalServers
from customedit.jobs.records import EditOutcome
from customedit.tenants.access import ApiKeys

from .bench import ROOT, SOURCE, Bench, Workers, free_port, until
from .proxy import Proxy

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGQUIT)


class Front:
    """The front end as a process, and a client of it that asks until it has its 202."""

    def __init__(self, environment: dict[str, str], key: str, log: Path) -> None:
        self._environment, self._key, self._log = environment, key, log
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        env = os.environ | self._environment | {
            "PYTHONPATH": str(ROOT), "CUSTOMEDIT_API_PORT": str(self.port),
        }  # fmt: skip
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "api"], env=env, stdout=out, stderr=out
            )

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def submit(self, body: dict[str, object], name: str) -> str:
        """The id of the job: the same for the same name, however often it must ask."""

        def ask() -> str | None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection.request(
                    "POST", "/v1/edits", json.dumps(body),
                    {
                        "Authorization": f"Bearer {self._key}",
                        "Content-Type": "application/json",
                        "Idempotency-Key": name,
                    },
                )  # fmt: skip
                answer = connection.getresponse()
                text = answer.read().decode()
                assert answer.status in (202, 409, 500, 503), text
                if answer.status == 202:
                    return str(json.loads(text)["id"])
            connection.close()
            return None

        return str(until(ask, f"{name} taken\n{self._log.read_text()[-2000:]}"))


@pytest.fixture
def s3_proxy(settings: Settings) -> Iterator[Proxy]:
    at = urlsplit(settings.s3_endpoint or "")
    proxy = Proxy((at.hostname or "", at.port or 0))
    yield proxy
    proxy.close()


@pytest.fixture
def front(bench: Bench, workers: Workers, s3_proxy: Proxy, tmp_path: Path) -> Iterator[Front]:
    workers.environment |= {
        "CUSTOMEDIT_S3_ENDPOINT": f"http://127.0.0.1:{s3_proxy.port}",
        "CUSTOMEDIT_DRAIN_SECONDS": "1",
        "CUSTOMEDIT_MAX_ATTEMPTS": "100",
        "CUSTOMEDIT_QUEUE_LIMIT_PER_TENANT": "1000",
        "CUSTOMEDIT_RATE_PER_MINUTE": "100000",
    }
    _, key = ApiKeys(bench.jobs.client, bench.settings).create(bench.tenant)
    held = Front(workers.environment, key, tmp_path / "api.log")
    held.start()
    yield held
    held.kill()


@pytest.mark.parametrize(
    ("count", "pause", "every", "outage"),
    [
        pytest.param(20, 0.6, 3.0, 3.0, marks=pytest.mark.timeout(300)),
        pytest.param(60, 0.1, 4.0, 4.0, marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
        pytest.param(200, 0.1, 6.0, 10.0, marks=[pytest.mark.slow, pytest.mark.timeout(1200)]),
    ],
)
def test_none_lost_none_twice(
    count: int,
    pause: float,
    every: float,
    outage: float,
    bench: Bench,
    workers: Workers,
    front: Front,
    s3_proxy: Proxy,
    local_servers: LocalServers,
) -> None:
    """pause: seconds between jobs; every: at most between deaths; outage: of S3."""
    chance = random.Random(count)
    image = bench.image()
    asked: list[str] = []

    def ask() -> None:
        for k in range(count):
            body = {
                "image": image, "source_prompt": SOURCE.prompt,
                "target_prompt": SOURCE.colour_prompt, "steps": 1 + k % 2,
                "strengths": [round(0.1 + k / 500, 3)],
            }  # fmt: skip
            asked.append(front.submit(body, f"storm-{k}"))
            time.sleep(pause)

    asking = threading.Thread(target=ask)
    asking.start()
    living = [workers.start() for _ in range(3)]
    for worker in living:
        worker.ready()

    def s3_away() -> None:
        s3_proxy.fail()
        threading.Timer(outage, s3_proxy.restore).start()

    def redis_dies() -> None:
        os.kill(local_servers.pid("valkey"), signal.SIGKILL)
        until(lambda: not local_servers.alive()["valkey"], "valkey gone")
        local_servers.restart("valkey")

    def front_dies() -> None:
        front.kill()
        front.start()

    deeds = [front_dies, redis_dies, s3_away]
    while asking.is_alive() or unfinished(bench, asked) or deeds:
        time.sleep(chance.uniform(0.5, 1.0) * every)
        victim = chance.randrange(3)
        living[victim].kill(chance.choice(SIGNALS))
        living[victim] = workers.start()
        if deeds:
            deeds.pop()()
    asking.join()
    assert len(set(asked)) == count
    consistent(bench, asked)
    until(lambda: all(tidy(bench, j) for j in asked), "the files of other attempts removed")


def unfinished(bench: Bench, asked: list[str]) -> int:
    """How many are not final; asked in a way that bears Redis being away."""
    try:
        return sum(not bench.get(j).finished for j in list(asked))
    except RedisError:
        return len(asked)


def consistent(bench: Bench, asked: list[str]) -> None:
    """Every job succeeded once; its record, events, index and files agree."""
    attempts: Counter[int] = Counter()
    listed = []
    cursor: str | None = None
    while True:
        page = bench.jobs.list(bench.tenant, cursor=cursor)
        listed += [record.id for record in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert sorted(listed) == sorted(asked)
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
