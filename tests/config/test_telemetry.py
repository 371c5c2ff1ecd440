"""Logs with ids and without secrets; traces that go on in another process."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue
from typing import Any

import pytest
from pydantic import SecretStr

from customedit.config import telemetry
from customedit.config.settings import Settings


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    telemetry.stop_tracing()


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_line_is_json_with_the_ids_of_its_context() -> None:
    out = io.StringIO()
    telemetry.set_up_logging(Settings(), "worker", out)
    log = logging.getLogger("a.b")
    with telemetry.bind(job="job_1", tenant=None), telemetry.bind(tenant="acme"):
        log.info('said "%s"\nand more', "this", extra={"rows": 3})
    log.warning("after")
    first, second = lines(out)
    assert first.pop("time").endswith("Z")
    assert first == {
        "message": 'said "this"\nand more',
        "level": "INFO",
        "logger": "a.b",
        "service": "worker",
        "job": "job_1",
        "tenant": "acme",
        "rows": 3,
    }
    assert "job" not in second and "tenant" not in second


def test_threads_do_not_share_ids() -> None:
    seen: Queue[dict[str, str]] = Queue()
    with telemetry.bind(tenant="acme"):
        thread = threading.Thread(target=lambda: seen.put(telemetry.bound()))
        thread.start()
        thread.join()
    assert seen.get() == {}


SECRET = 'pa"ss\\wörd'
SAID = [
    ("key ce_0123abcd_aVeryLongSecretThatNobodyMaySee_-", "aVeryLong"),
    ("hook whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw=", "MfKQ9r8"),
    ("Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.abc", "eyJhbG"),
    ("redis://user:opensesame@redis:6379/0", "opensesame"),
    ("redis://:opensesame@redis:6379/0", "opensesame"),
    ("http://s3/b/k?X-Amz-Signature=deadbeef01&X-Amz-Expires=9", "deadbeef01"),
    ("http://s3/b/k?X-Amz-Credential=AKIA%2F2026&a=b", "AKIA"),
    (f"the key is {SECRET}", "wörd"),
]


@pytest.mark.parametrize("log_format", ["json", "text"])
@pytest.mark.parametrize(("text", "secret"), SAID)
def test_secrets_never_reach_a_line(log_format: Any, text: str, secret: str) -> None:
    out = io.StringIO()
    settings = Settings(s3_access_key="AK", s3_secret_key=SecretStr(SECRET), log_format=log_format)
    telemetry.set_up_logging(settings, "api", out)
    try:
        raise RuntimeError(text)
    except RuntimeError:
        logging.getLogger("x").exception("failed: %s", text, extra={"where": text})
    said = out.getvalue()
    assert telemetry.REDACTED in said and secret not in said and "failed" in said
    assert json.dumps(secret)[1:-1] not in said
    if log_format == "json":
        (line,) = lines(out)
        assert "RuntimeError" in line["exception"] and secret not in str(line)


def test_what_is_no_secret_stays() -> None:
    for text in ("job_01hzy at http://s3:8333/b/tenants/a", "Basic idea", "step 3:4 @ noon"):
        assert telemetry.redact(text) == text


def test_text_cannot_forge_a_second_line() -> None:
    out = io.StringIO()
    telemetry.set_up_logging(Settings(log_format="text"), "api", out)
    with telemetry.bind(tenant="acme"):
        logging.getLogger("x").warning("name %s", "a\r\n2026 ERROR forged")
    assert len(out.getvalue().splitlines()) == 1 and "tenant=acme" in out.getvalue()


def test_the_level_holds_and_clients_stay_quiet() -> None:
    out = io.StringIO()
    telemetry.set_up_logging(Settings(log_level="DEBUG"), "api", out)
    logging.getLogger("customedit.x").debug("mine")
    logging.getLogger("botocore.auth").debug("signature")
    assert [line["message"] for line in lines(out)] == ["mine"]


def test_without_an_endpoint_opentelemetry_is_not_even_loaded() -> None:
    program = """if True:
        import sys
        from customedit.config import telemetry
        from customedit.config.settings import Settings
        assert not telemetry.set_up_tracing(Settings(), "api")
        with telemetry.span("x"):
            assert telemetry.traceparent() is None
        print([m for m in sys.modules if m.startswith("opentelemetry")])
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


class _Collector(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.put((self.path, body))  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Collector)
    server.got = Queue()  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_trace_goes_on_in_another_process_and_reaches_the_collector(
    collector: ThreadingHTTPServer,
) -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    out = io.StringIO()
    settings = Settings(otel_endpoint=f"http://127.0.0.1:{collector.server_port}/")
    telemetry.set_up_logging(settings, "worker", out)
    assert telemetry.set_up_tracing(settings, "worker")
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with telemetry.bind(job="job_1"), telemetry.span("run", parent, rows=3):
        handed_on = telemetry.traceparent()
        logging.getLogger("x").info("inside")
    with pytest.raises(ValueError), telemetry.span("fails"):
        raise ValueError("with a secret inside")
    telemetry.stop_tracing()

    assert handed_on is not None and handed_on.split("-")[1] == parent.split("-")[1]
    assert lines(out)[0]["trace_id"] == parent.split("-")[1]
    path, body = collector.got.get(timeout=30)  # type: ignore[attr-defined]
    assert path == "/v1/traces"
    assert b"with a secret inside" not in body
    (resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
    run, fails = resource.scope_spans[0].spans
    assert run.name == "run" and run.parent_span_id.hex() == parent.split("-")[2]
    assert {a.key for a in run.attributes} == {"customedit.job", "rows"}
    assert (fails.status.code, fails.status.message) == (2, "ValueError")
