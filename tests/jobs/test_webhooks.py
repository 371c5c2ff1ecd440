"""Webhooks over real sockets: signed, tried again, and never into the inner network."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from customedit.config.settings import Settings
from customedit.errors import InputError
from customedit.jobs import webhook_addresses
from customedit.jobs.journal import Journal, secret_key
from customedit.jobs.records import JobError, JobRecord
from customedit.jobs.store import Jobs
from customedit.jobs.webhooks import SHARE, Secrets, Webhooks
from customedit.storage.store import Storage, StorageError

Make = Callable[..., JobRecord]


@dataclass
class Receiver:
    """A server that keeps what it is sent, and answers with ``status``."""

    url: str
    status: int = 204
    got: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    hang: threading.Event | None = None
    server: ThreadingHTTPServer | None = None


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            kept.got.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            if kept.hang is not None:
                kept.hang.wait(60)
            self.send_response(kept.status)
            self.send_header("location", f"{kept.url}/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kept = Receiver(f"http://localhost:{server.server_port}", server=server)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield kept
    server.shutdown()
    server.server_close()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for localhost, with its key in the same file."""
    made, key = tmp_path / "made.pem", tmp_path / "key.pem"
    asked = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -batch"
    name = "-subj /CN=localhost -addext subjectAltName=DNS:localhost"
    command = f"openssl {asked} {name} -keyout {key} -out {made}"
    subprocess.run(command.split(), check=True, capture_output=True)
    made.write_text(made.read_text() + key.read_text())
    return made


@pytest.fixture
def local(settings: Settings) -> Settings:
    """Settings that let webhooks go to this machine."""
    return settings.model_copy(update={"webhook_allow_private": True, "webhook_attempts": 3})


@pytest.fixture
def secrets(client: Redis, settings: Settings, journal: Journal) -> Secrets:
    return Secrets(client, settings, journal)


@pytest.fixture
def due(client: Redis, settings: Settings) -> Callable[[], None]:
    """Lets every wait be over."""

    def make() -> None:
        for outbox in client.scan_iter(f"{settings.namespace}:outbox:*"):
            names: Any = client.zrange(outbox, 0, -1)
            client.zadd(outbox, dict.fromkeys(names, 1.0))
        for receiver in client.scan_iter(f"{settings.namespace}:receiver:*"):
            client.hset(receiver, "until", "1.0")

    return make


def test_the_news_of_an_end_arrive_signed(
    client: Redis, local: Settings, jobs: Jobs, job: Make, receiver: Receiver, secrets: Secrets
) -> None:
    secret = secrets.make("acme")
    hooks = Webhooks(client, local, jobs)
    asked = jobs.submit(job(webhook=f"{receiver.url}/in?a=b")).record
    claim = jobs.claim(asked.id, "w")
    assert claim is not None and hooks.deliver_due() == 0 and hooks.waiting() == 0
    jobs.fail(claim, JobError(type="out-of-memory", title="Too large"))
    assert hooks.waiting() == 1
    assert hooks.deliver_due() == 1
    assert hooks.deliver_due() == 0 and hooks.waiting() == 0
    ((path, headers, body),) = receiver.got
    assert path == "/in?a=b"
    assert headers["host"] == receiver.url.removeprefix("http://")
    assert headers["webhook-id"] == f"msg_{asked.id}"
    told = Webhook(secret.text).verify(body, headers)
    assert told["type"] == "job.failed"
    assert told["data"] == {
        "id": asked.id, "kind": "edit", "state": "failed", "concept": None,
        "error": {"type": "out-of-memory", "title": "Too large", "detail": ""},
    }  # fmt: skip
    with pytest.raises(WebhookVerificationError):
        Webhook(secret.text).verify(body + b" ", headers)


def test_a_new_secret_signs_beside_the_old_one(
    client: Redis, local: Settings, jobs: Jobs, job: Make, receiver: Receiver, secrets: Secrets
) -> None:
    assert secrets.get("acme") is None
    old, new = secrets.make("acme"), secrets.make("acme")
    kept = secrets.get("acme")
    assert kept is not None and (kept.text, kept.former) == (new.text, old.text)
    assert old.text not in repr(kept) and new.text not in repr(kept)
    jobs.cancel("acme", jobs.submit(job(webhook=receiver.url)).record.id)
    assert Webhooks(client, local, jobs).deliver_due() == 1
    _, headers, body = receiver.got[0]
    for secret in (old, new):
        assert Webhook(secret.text).verify(body, headers)["type"] == "job.cancelled"
    client.hset(f"{local.namespace}:whsec:acme", "former_until", "1.000000")
    kept = secrets.get("acme")
    assert kept is not None and kept.former is None


def test_a_secret_that_cannot_be_journaled_changes_nothing(
    secrets: Secrets, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = secrets.make("acme")

    def away(*_: object, **__: object) -> None:
        raise StorageError("away", transient=True)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "put", away)
        for _ in range(2):
            with pytest.raises(StorageError):
                secrets.make("acme")
        assert secrets.get("acme") == first
    made = secrets.make("acme")
    assert made.former == first.text and secrets.get("acme") == made
    assert Journal(storage).read(secret_key("acme"))["secret"] == made.text


@pytest.mark.parametrize("status", [500, 404, 301, 307])
def test_a_refused_webhook_comes_again_and_then_no_more(
    client: Redis, local: Settings, jobs: Jobs, job: Make, receiver: Receiver, secrets: Secrets,
    due: Callable[[], None], status: int,
) -> None:  # fmt: skip
    secrets.make("acme")
    receiver.status = status
    hooks = Webhooks(client, local, jobs)
    jobs.cancel("acme", jobs.submit(job(webhook=receiver.url)).record.id)
    for tries in range(1, 6):
        assert hooks.deliver_due() == 0
        assert len(receiver.got) == min(tries, 3)
        assert hooks.waiting() == (1 if tries < 3 else 0)
        assert hooks.deliver_due() == 0 and len(receiver.got) == min(tries, 3)  # not due yet
        due()
    assert {path for path, _, _ in receiver.got} == {"/"}  # no redirect was followed
    assert len({h["webhook-id"] for _, h, _ in receiver.got}) == 1


def test_a_webhook_that_is_refused_once_arrives_the_second_time(
    client: Redis, local: Settings, jobs: Jobs, job: Make, receiver: Receiver, secrets: Secrets,
    due: Callable[[], None],
) -> None:  # fmt: skip
    secrets.make("acme")
    receiver.status = 503
    hooks = Webhooks(client, local, jobs)
    jobs.cancel("acme", jobs.submit(job(webhook=receiver.url)).record.id)
    assert hooks.deliver_due() == 0
    receiver.status = 200
    due()
    assert hooks.deliver_due() == 1 and hooks.waiting() == 0


def test_a_receiver_that_is_gone_is_left_alone(
    client: Redis, local: Settings, jobs: Jobs, job: Make, receiver: Receiver, secrets: Secrets
) -> None:
    secrets.make("acme")
    receiver.status = 410
    hooks = Webhooks(client, local, jobs)
    jobs.cancel("acme", jobs.submit(job(webhook=receiver.url)).record.id)
    assert hooks.deliver_due() == 0 and hooks.waiting() == 0 and len(receiver.got) == 1


def test_a_receiver_that_hangs_holds_nobody_up(
    client: Redis, local: Settings, jobs: Jobs, job: Make, receiver: Receiver, secrets: Secrets
) -> None:
    secrets.make("acme")
    receiver.hang = threading.Event()
    hooks = Webhooks(client, local.model_copy(update={"webhook_timeout_seconds": 0.2}), jobs)
    for _ in range(3):
        jobs.cancel("acme", jobs.submit(job(webhook=receiver.url)).record.id)
    assert hooks.deliver_due() == 0  # comes back, though the receiver never answers
    assert hooks.waiting() == 3
    receiver.hang.set()


def test_dead_receivers_of_one_tenant_delay_no_other(
    client: Redis, local: Settings, jobs: Jobs, job: Make, receiver: Receiver, secrets: Secrets
) -> None:
    """300 webhooks to a receiver that hangs for longer than the test, and then one of another."""
    import socket

    for tenant in ("dead", "acme"):
        secrets.make(tenant)
    patient = local.model_copy(
        update={"webhook_timeout_seconds": 60, "queue_limit_per_tenant": 1000}
    )
    hooks = Webhooks(client, patient, Jobs(client, patient))
    with socket.create_server(("127.0.0.1", 0), backlog=512) as hanging:  # takes, and says nothing
        url = f"http://localhost:{hanging.getsockname()[1]}/"
        for _ in range(300):
            jobs.cancel("dead", jobs.submit(job(tenant="dead", webhook=url)).record.id)
        asked: list[str] = []

        def arrived() -> bool:
            if not asked and hooks._in_flight["dead"] == SHARE:  # now it has all that it may have
                asked.append(jobs.submit(job(webhook=receiver.url)).record.id)
                jobs.cancel("acme", asked[0])
            return bool(receiver.got)

        running, closed = threading.Event(), threading.Event()
        thread = threading.Thread(target=hooks.run, args=[closed, 0.02], daemon=True)
        thread.start()
        over = time.monotonic() + 30
        while not arrived() and time.monotonic() < over:
            running.wait(0.01)
        assert receiver.got and hooks._in_flight["dead"] == SHARE
        names = client.scan_iter(f"{local.namespace}:hook:*")
        hooked: Any = [client.hgetall(name) for name in names]
        assert sum(int(h["tries"]) for h in hooked if h["tenant"] == "dead") == SHARE
        closed.set()
    thread.join(30)


def test_a_receiver_that_never_answers_is_asked_by_one_try_alone(
    client: Redis, local: Settings, jobs: Jobs, job: Make, secrets: Secrets,
    due: Callable[[], None], receiver: Receiver,
) -> None:  # fmt: skip
    secrets.make("acme")
    patient = local.model_copy(update={"webhook_attempts": 50})
    receiver.hang = threading.Event()
    hooks = Webhooks(client, patient.model_copy(update={"webhook_timeout_seconds": 2.0}), jobs)
    for _ in range(20):
        jobs.cancel("acme", jobs.submit(job(webhook=receiver.url)).record.id)
    hooks.deliver_due()
    assert len(receiver.got) == SHARE
    due()
    hooks.deliver_due()
    assert len(receiver.got) == SHARE + 1
    hooks.deliver_due()
    assert len(receiver.got) == SHARE + 1  # not before its pause is over
    receiver.hang.set()
    hooks = Webhooks(client, patient, jobs)
    due()
    assert hooks.deliver_due() == 1  # it is back
    due()
    assert hooks.deliver_due() == SHARE


def test_an_old_webhook_is_given_up(
    client: Redis, local: Settings, jobs: Jobs, job: Make, receiver: Receiver, secrets: Secrets
) -> None:
    secrets.make("acme")
    receiver.status = 500
    asked = jobs.submit(job(webhook=receiver.url)).record
    jobs.cancel("acme", asked.id)
    client.hset(f"{local.namespace}:hook:{asked.id}", "since", f"{time.time() - 90_000:.6f}")
    hooks = Webhooks(client, local, jobs)
    assert hooks.deliver_due() == 0 and hooks.waiting() == 0


def test_nothing_goes_out_unsigned_or_to_this_machine(
    client: Redis, settings: Settings, local: Settings, jobs: Jobs, job: Make, receiver: Receiver,
    secrets: Secrets,
) -> None:  # fmt: skip
    jobs.cancel("acme", jobs.submit(job(webhook=receiver.url)).record.id)
    assert Webhooks(client, local, jobs).deliver_due() == 0  # no secret yet
    secrets.make("acme")
    port = receiver.url.rpartition(":")[2]
    for url in (receiver.url, f"https://localhost:{port}", f"https://127.0.0.1:{port}"):
        jobs.cancel("acme", jobs.submit(job(webhook=url)).record.id)
    assert Webhooks(client, settings, jobs).deliver_due() == 0
    assert receiver.got == []


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_a_certificate_is_checked_for_the_name_though_the_address_is_dialled(
    client: Redis, local: Settings, jobs: Jobs, job: Make, receiver: Receiver, secrets: Secrets,
    certificate: Path,
) -> None:  # fmt: skip
    secrets.make("acme")
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(certificate)
    assert receiver.server is not None
    receiver.server.socket = served.wrap_socket(receiver.server.socket, server_side=True)
    trust = ssl.create_default_context(cafile=str(certificate))
    port = receiver.url.rpartition(":")[2]

    def sent(host: str, trust: ssl.SSLContext | None) -> int:
        jobs.cancel("acme", jobs.submit(job(webhook=f"https://{host}:{port}/")).record.id)
        return Webhooks(client, local, jobs, trust).deliver_due()

    assert sent("localhost", trust) == 1  # dialled as 127.0.0.1, shown a name
    assert sent("127.0.0.1", trust) == 0  # not what the certificate is for
    assert sent("localhost", None) == 0  # made by nobody that is known
    assert len(receiver.got) == 1


def test_a_deleted_job_tells_nothing(
    client: Redis, local: Settings, jobs: Jobs, job: Make, receiver: Receiver, secrets: Secrets
) -> None:
    secrets.make("acme")
    asked = jobs.submit(job(webhook=receiver.url)).record
    jobs.cancel("acme", asked.id)
    jobs.delete("acme", asked.id)
    assert Webhooks(client, local, jobs).deliver_due() == 0 and receiver.got == []


def test_waits_grow_and_differ(client: Redis, settings: Settings, jobs: Jobs) -> None:
    hooks = Webhooks(client, settings, jobs)
    for attempt, full in ((2, 5), (3, 10), (6, 80), (40, 6 * 3600)):
        found = {hooks.wait_before(attempt) for _ in range(20)}
        assert len(found) > 1 and full / 2 <= min(found) <= max(found) <= full


INNER = [
    "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254",
    "100.64.0.1", "100.100.100.200", "168.63.129.16", "224.0.0.1", "240.0.0.1", "255.255.255.255",
    "192.0.2.1", "198.18.0.1", "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
    "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::1", "2001:db8::1", "2001:0:7f00:1::",
]  # fmt: skip


@pytest.mark.parametrize("text", INNER)
def test_inner_addresses(text: str) -> None:
    assert not webhook_addresses.public(ipaddress.ip_address(text))
    host = f"[{text}]" if ":" in text else text
    with pytest.raises(InputError, match="not on the public internet"):
        webhook_addresses.check(f"https://{host}/")
    with pytest.raises(webhook_addresses.Refused):
        asyncio.run(webhook_addresses.resolve(text, 443))


@pytest.mark.parametrize(
    "text", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "64:ff9b::101:101"]
)
def test_public_addresses(text: str) -> None:
    assert webhook_addresses.public(ipaddress.ip_address(text))
    assert asyncio.run(webhook_addresses.resolve(text, 443)) == text


@given(st.ip_addresses(v=4))
def test_an_address_is_judged_alike_in_every_clothing(address: ipaddress.IPv4Address) -> None:
    mapped = ipaddress.ip_address(f"::ffff:{address}")
    nat = ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) | int(address))
    if not webhook_addresses.public(address):
        assert not webhook_addresses.public(mapped) and not webhook_addresses.public(nat)


@pytest.mark.parametrize("host", ["localhost", "2130706433", "0x7f.1", "127.1", "017700000001"])
def test_names_of_this_machine_are_refused_once_resolved(host: str) -> None:
    with pytest.raises((webhook_addresses.Refused, OSError)):
        asyncio.run(webhook_addresses.resolve(host, 443))


def test_one_inner_address_among_others_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    async def both(*_: object, **__: object) -> list[object]:
        return [(0, 0, 0, "", (ip, 443)) for ip in ("93.184.216.34", "10.0.0.1")]

    async def ask() -> str:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", both)
        return await webhook_addresses.resolve("example.com", 443)

    with pytest.raises(webhook_addresses.Refused):
        asyncio.run(ask())


@pytest.mark.parametrize(
    "url",
    ["", "https://", "ftp://example.com/", "http://example.com/", "https://u:p@example.com/",
     "https://u@example.com/", "https://localhost/", "https://a.internal/", "https://[::1",
     "https://example.com:99999/", "file:///etc/passwd", "//example.com/"],
)  # fmt: skip
def test_urls_that_no_webhook_may_have(url: str) -> None:
    with pytest.raises(InputError, match="webhook"):
        webhook_addresses.check(url)


def test_a_url_that_a_webhook_may_have() -> None:
    assert webhook_addresses.check("https://example.com:8443/a?b=c").port == 8443
    assert (
        webhook_addresses.check("http://localhost:1/", allow_private=True).hostname == "localhost"
    )


def test_the_body_is_small_json(jobs: Jobs, job: Make) -> None:
    from customedit.jobs.webhooks import payload

    asked = jobs.submit(job()).record
    record = jobs.cancel("acme", asked.id)
    assert record is not None
    told = json.loads(payload(record))
    assert set(told) == {"type", "timestamp", "data"} and told["timestamp"].endswith("+00:00")
