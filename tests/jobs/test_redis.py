"""A Redis that restarts, and one that forgets its scripts, are only a pause."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ConnectionError

from customedit.config.settings import Settings
from customedit.devserver.local_servers import LocalServers
from customedit.jobs import redis as module
from customedit.jobs.records import JobRecord
from customedit.jobs.redis import connect, source
from customedit.jobs.store import Jobs

Make = Callable[..., JobRecord]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[LocalServers, Settings]]:
    """Servers of this test alone, to be killed."""
    with LocalServers(tmp_path, usual_ports=False) as servers:
        for name, value in servers.environment().items():
            monkeypatch.setenv(name, value)
        yield servers, Settings.of_environment()


def test_scripts_are_sent_again_when_redis_forgot_them(
    jobs: Jobs, job: Make, client: Redis
) -> None:
    asked = jobs.submit(job()).record
    client.script_flush()
    assert jobs.claim(asked.id, "w") is not None
    client.script_flush()
    assert jobs.submit(job()).record.state == "queued"


def test_calls_wait_for_a_redis_that_restarts(
    own: tuple[LocalServers, Settings], job: Make
) -> None:
    servers, settings = own
    with connect(settings) as client:
        jobs = Jobs(client, settings)
        made = [jobs.submit(job()).record for _ in range(5)]
        claim = jobs.claim(made[0].id, "w")
        assert claim is not None
        halt = threading.Event()
        done: list[str] = []
        errors: list[Exception] = []

        def submit() -> None:
            while not halt.is_set():
                try:
                    done.append(jobs.submit(job(tenant="busy")).record.id)
                    jobs.cancel("busy", done[-1])
                except Exception as error:
                    errors.append(error)
                    return

        busy = threading.Thread(target=submit)
        busy.start()
        while not done:
            time.sleep(0.01)
        os.kill(servers.pid("valkey"), signal.SIGKILL)
        while servers.alive()["valkey"]:
            time.sleep(0.01)
        servers.restart("valkey")
        assert jobs.renew(claim) == "held" and jobs.commit(claim, {})
        count = len(done)
        while len(done) < count + 3 and not errors:
            time.sleep(0.01)
        halt.set()
        busy.join()
        assert errors == []
        assert {r.id for r in jobs.list("acme").items} == {r.id for r in made}
        found = jobs.list("busy", limit=10_000).items
        assert sorted(r.id for r in found) == sorted(done)


def test_a_redis_that_stays_away_is_an_error(
    settings: Settings, job: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRIES", 1)
    nobody = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    with connect(nobody) as client, pytest.raises(ConnectionError):
        Jobs(client, nobody).submit(job())


def test_every_script_is_shipped_and_compiles(client: Redis) -> None:
    folder = Path(module.__file__).parent / "lua"
    names = {path.stem for path in folder.glob("*.lua")} - {"common"}
    assert len(names) > 15
    for name in names:
        assert len(client.script_load(source(name))) == 40
