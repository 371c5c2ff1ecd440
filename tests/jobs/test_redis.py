"""A Redis that restarts, and one that forgets its scripts, are only a pause."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ConnectionError, OutOfMemoryError

from customedit.config.settings import Settings
from customedit.devserver.local_servers import LocalServers
from customedit.estimates import workers as estimates
from customedit.estimates.workers import WorkerReport, Workers
from customedit.jobs import redis as module
from customedit.jobs.deliveries import Deliveries
from customedit.jobs.records import ImageRecord, JobError, JobProgress, JobRecord
from customedit.jobs.redis import AT_MAXMEMORY, connect, memory, source
from customedit.jobs.store import Jobs
from customedit.jobs.webhooks import Secrets, Webhooks
from customedit.schemas import ids
from customedit.storage import object_keys
from customedit.tenants.access import ApiKeys, Limits
from customedit.tenants.catalogue import Images

from ..estimates.test_simulation import BASE, line

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
    assert len(names) > 15 and names >= AT_MAXMEMORY
    for name in names:
        assert len(client.script_load(source(name))) == 40


def test_at_maxmemory_jobs_run_end_and_are_cancelled_and_new_ones_are_refused(
    own: tuple[LocalServers, Settings], job: Make, lapse_of: Callable[[Redis, Settings, str], None]
) -> None:
    settings = own[1]
    with connect(settings) as client:
        jobs, keys = Jobs(client, settings), ApiKeys(client, settings)
        limits, hooks = Limits(client, settings), Webhooks(client, settings, Jobs(client, settings))
        _, text = keys.create("acme")
        made = [jobs.submit(job(webhook="https://example.com/")).record for _ in range(7)]
        client.config_set("maxmemory", "1")
        assert (memory(client).share or 0) > 1
        before = client.dbsize()
        with pytest.raises(OutOfMemoryError):
            jobs.submit(job())
        with pytest.raises(OutOfMemoryError):
            Images(client, settings).put(an_image())
        assert client.dbsize() == before  # nothing of it
        assert keys.verify(text) is not None and limits.take("acme").ok and jobs.epoch()
        assert limits.admit(text) is not None

        claims = [jobs.claim_next(["edit"], "w") for _ in range(6)]
        done, failed, cancelled, back, late, twin = (c for c in claims if c is not None)
        assert jobs.progress(done, JobProgress(phase="edit", step=1, steps=2)) == "held"
        assert jobs.commit(done, {"outputs": []})
        assert jobs.fail(failed, JobError(type="t", title="t"))
        assert jobs.cancel("acme", cancelled.id) is not None and jobs.cancelled(cancelled)
        assert jobs.hand_back(back)
        assert jobs.cancel("acme", made[6].id) is not None
        client.config_set("maxmemory", "0")
        lapse_of(client, settings, late.id)
        client.config_set("maxmemory", "1")
        assert set(jobs.overdue()) == {(back.id, "edit"), (late.id, "edit")}
        again = [jobs.claim_next(["edit"], "w2") for _ in range(2)]
        assert {c.id for c in again if c} == {back.id, late.id}
        states = {r.id: jobs.peek(r.id) for r in made}
        assert {n: r.state for n, r in states.items() if r} == {
            done.id: "succeeded", failed.id: "failed", cancelled.id: "cancelled",
            made[6].id: "cancelled", back.id: "running", late.id: "running", twin.id: "running",
        }  # fmt: skip
        assert jobs.lock("reconciler", "w", 1) and not jobs.lock("reconciler", "v", 1)
        assert hooks.deliver_due() == 0 and hooks.waiting() == 4
        assert jobs.delete("acme", done.id)
        for folder in jobs.folders_to_delete():
            jobs.folder_deleted(folder)
        client.config_set("maxmemory", "0")
        assert memory(client).share is None
        jobs.submit(job())


def test_at_maxmemory_webhooks_arrive_lists_are_read_and_workers_are_seen(
    own: tuple[LocalServers, Settings], job: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    got = list[str]()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            got.append(self.headers["webhook-signature"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    monkeypatch.setattr(estimates, "GONE_S", 1.0)
    settings = own[1].model_copy(update={"webhook_allow_private": True})
    speed = {"edit": line((1, 2))}
    report = WorkerReport(name="w", kinds=("edit",), slots=1, base=BASE, speed=speed)
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server,
        connect(settings) as client,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        jobs, workers = Jobs(client, settings), Workers(client, settings)
        secret = Secrets(client, settings).make("acme")
        url = f"http://localhost:{server.server_port}/"
        made = jobs.submit(job(webhook=url)).record
        workers.beat(report)
        client.config_set("maxmemory", "1")
        ends = time.monotonic() + 2 * estimates.GONE_S
        while time.monotonic() < ends:
            workers.beat(report)
            assert [w.name for w in workers.alive()] == ["w"]
            time.sleep(0.2)
        workers.beat(report.model_copy(update={"slots": 2}))
        assert workers.alive()[0].slots == 2 and workers.speed(BASE) == report.speed
        claim = jobs.claim(made.id, "w")
        assert claim is not None and jobs.commit(claim, {"outputs": []})
        client.delete(f"{settings.namespace}:indexed:acme")  # as an older version left it
        assert [r.id for r in jobs.list("acme", kind="edit").items] == [made.id]
        assert [d.state for d in Deliveries(client, settings).list("acme").items] == ["pending"]
        hooks = Webhooks(client, settings, jobs)
        assert hooks.deliver_due() == 1 and len(got) == 1 and hooks.waiting() == 0
        assert Secrets(client, settings).get("acme") == secret
        time.sleep(1.5 * estimates.GONE_S)
        assert workers.alive() == []
        server.shutdown()


def test_at_maxmemory_a_key_can_be_revoked(
    own: tuple[LocalServers, Settings],
) -> None:
    settings = own[1]
    with connect(settings) as client:
        keys = ApiKeys(client, settings)
        key, text = keys.create("acme")
        client.config_set("maxmemory", "1")
        assert keys.revoke(key.id) is not None
        assert keys.verify(text) is None and Limits(client, settings).admit(text) is None
        assert [k.state(time.time()) for k in keys.list("acme")] == ["revoked"]
        assert keys.revoke("key_" + "0" * 26) is None


@pytest.fixture
def lapse_of() -> Callable[[Redis, Settings, str], None]:
    def make(client: Redis, settings: Settings, job_id: str) -> None:
        space = settings.namespace
        client.hset(f"{space}:job:{job_id}", "lease_until", "1.0")
        client.zadd(f"{space}:leases:edit", {job_id: 1.0})
        client.zadd(f"{space}:wakeups", {job_id: 1.0})

    return make


def an_image() -> ImageRecord:
    name = ids.of_image(b"1")
    return ImageRecord(
        id=name, tenant="acme", media_type="image/png", bytes=1, width=8, height=8,
        key=object_keys.image("acme", name, "1", "picture"), created_at=1.0,
    )  # fmt: skip
