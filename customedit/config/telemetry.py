"""Logs with job and tenant ids (structlog), and traces if a collector is set (OpenTelemetry).

Secrets never reach a log: known ones and all that look like one are removed from finished lines.

Spans are our own few: the instrumentation of ASGI records whole addresses, with the signatures in
them, and that of Redis and S3 makes a trace of every heartbeat.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
from collections.abc import Iterator, MutableMapping
from datetime import UTC, datetime
from typing import IO, Any, Final
from urllib.parse import unquote, urlsplit

import structlog
from structlog.contextvars import bound_contextvars, get_contextvars, merge_contextvars

from customedit.config.settings import Settings

REDACTED: Final = "[redacted]"

_tracer: Any = None

# API keys, webhook secrets, credentials in headers and addresses, and what signs an S3 request.
# None matches across a quote, so that a line of JSON stays one. Before each pattern what every
# match of it holds, in small letters: most lines hold none of that and need no search by a pattern.
_SECRETS: Final = (
    (("ce_",), re.compile(r"\bce_([A-Za-z0-9]+)_[A-Za-z0-9_-]{16,}"), rf"ce_\1_{REDACTED}"),
    (("whsec_",), re.compile(r"\bwhsec_[A-Za-z0-9+/=_-]+"), f"whsec_{REDACTED}"),
    (
        ("bearer", "basic"),
        re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"),
        rf"\1 {REDACTED}",
    ),
    (("://",), re.compile(r"(://[^\s:/@\"']*):[^\s/@\"']+@"), rf"\1:{REDACTED}@"),
    (
        ("x-amz-",),
        re.compile(r"(?i)\b(X-Amz-(?:Signature|Credential|Security-Token))=[^&\s\"'\\]+"),
        rf"\1={REDACTED}",
    ),
)


@contextlib.contextmanager
def bind(**fields: str | None) -> Iterator[None]:
    """Give all log lines in this context ``fields`` (job, tenant, request); None leaves one out."""
    with bound_contextvars(**{n: v for n, v in fields.items() if v is not None}):
        yield


def bound() -> dict[str, Any]:
    """The fields that log lines here get."""
    return get_contextvars()


def redact(text: str, secrets: tuple[str, ...] = ()) -> str:
    """``text`` without ``secrets`` and without what looks like one."""
    for secret in secrets:
        text = text.replace(secret, REDACTED)
    small = text.lower()
    for marks, pattern, instead in _SECRETS:
        if any(mark in small for mark in marks):
            text = pattern.sub(instead, text)
    return text


def set_up_logging(settings: Settings, service: str, stream: IO[str] | None = None) -> None:
    """Log everything of this process to ``stream`` (standard error) as the settings say.

    service: ``api``, ``worker`` or the like. Replaces all handlers of the root logger; loggers of
    servers are made to use it.
    """
    formatter = _JsonLines(service) if settings.log_format == "json" else _text_lines()
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Redacting(formatter, _secrets_of(settings)))
    logging.basicConfig(handlers=[handler], level=settings.log_level, force=True)
    logging.captureWarnings(True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "celery", "celery.task"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    # At DEBUG they log headers and bodies, at INFO whole addresses.
    for name in (
        "botocore",
        "boto3",
        "s3transfer",
        "urllib3",
        "httpx",
        "httpcore",
        "kombu",
        "amqp",
    ):
        logging.getLogger(name).setLevel(logging.WARNING)


class _JsonLines(logging.Formatter):
    """A line of JSON for each record: its context, its extra fields, and what happened.

    Written out, since a front end logs each request: a chain of structlog's processors took a tenth
    of all that a submit costs it.
    """

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service
        self._encode = json.JSONEncoder(default=str, ensure_ascii=False).encode

    def format(self, record: logging.LogRecord) -> str:
        event = {
            **get_contextvars(),
            "logger": record.name,
            "level": record.levelname,
            **{n: v for n, v in record.__dict__.items() if n not in _OF_EVERY_RECORD},
            **_trace_ids(),
            "time": _time_of(record),
            "service": self._service,
        }
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            event["stack"] = record.stack_info
        event["message"] = record.getMessage()
        return self._encode(event)


_OF_EVERY_RECORD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "taskName"}


def _time_of(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _text_lines() -> logging.Formatter:
    """Lines for people at a terminal."""
    chain: list[structlog.typing.Processor] = [
        merge_contextvars,
        structlog.stdlib.add_logger_name,
        _add_level,
        structlog.stdlib.ExtraAdder(),
        _add_trace_ids,
        structlog.processors.TimeStamper("%Y-%m-%d %H:%M:%S", utc=False),
        _one_line,
    ]
    console = structlog.dev.ConsoleRenderer(
        colors=False, exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
    )
    return structlog.stdlib.ProcessorFormatter(
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, console],
        foreign_pre_chain=chain,
    )


class _Redacting(logging.Formatter):
    """Another formatter's lines without secrets."""

    def __init__(self, inner: logging.Formatter, secrets: tuple[str, ...]) -> None:
        super().__init__()
        self._inner, self._secrets = inner, secrets

    def format(self, record: logging.LogRecord) -> str:
        return redact(self._inner.format(record), self._secrets)


def _add_level(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {**event, "level": event["_record"].levelname}


def _one_line(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Line breaks of messages and fields as people see them, so that none forges a line."""
    escaped = {
        name: value.replace("\r", "\\r").replace("\n", "\\n")
        for name, value in event.items()
        if isinstance(value, str)
    }
    return {**event, **escaped}


def _add_trace_ids(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {**event, **_trace_ids()}


def _trace_ids() -> dict[str, str]:
    """The ids of the current trace and span; nothing without tracing."""
    if _tracer is None:
        return {}
    from opentelemetry import trace

    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}


def set_up_tracing(settings: Settings, service: str) -> bool:
    """Send traces to ``settings.otel_endpoint``; without one nothing is loaded. Says whether it is.

    Raises:
        ImportError: an endpoint is set and OpenTelemetry is not installed.
    """
    global _tracer
    if settings.otel_endpoint is None:
        return False
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": f"customedit-{service}"}))
    address = f"{settings.otel_endpoint.rstrip('/')}/v1/traces"
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=address)))
    _tracer = provider.get_tracer("customedit")
    return True


def stop_tracing() -> None:
    """Send what is left and stop; does nothing if tracing was not set up."""
    global _tracer
    tracer, _tracer = _tracer, None
    if tracer is not None:
        tracer.span_processor.shutdown()


@contextlib.contextmanager
def span(name: str, traceparent: str | None = None, **facts: str | int | float) -> Iterator[None]:
    """A span of a trace around what happens inside; costs nothing unless tracing is set up.

    traceparent: continues the trace of another process (W3C); None continues this one's. An
    exception marks the span as failed, by its kind alone, and goes on.
    """
    if _tracer is None:
        yield
        return
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = None
    if traceparent is not None:
        context = TraceContextTextMapPropagator().extract({"traceparent": traceparent})
    attributes = {**{f"customedit.{k}": v for k, v in bound().items()}, **facts}
    with _tracer.start_as_current_span(
        name, context, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as active:
        try:
            yield
        except BaseException as error:
            active.set_status(trace.StatusCode.ERROR, type(error).__name__)
            raise


def traceparent() -> str | None:
    """The W3C ``traceparent`` of the current span, to hand to another process; None without."""
    if _tracer is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent")


def _secrets_of(settings: Settings) -> tuple[str, ...]:
    """The settings' secrets, as they are and as JSON and Python spell them."""
    password = urlsplit(settings.redis_url).password
    key = settings.s3_secret_key
    plain = {password, unquote(password or ""), key.get_secret_value() if key else None}
    spelled = {
        text
        for secret in plain
        if secret
        for text in (
            secret,
            json.dumps(secret)[1:-1],
            json.dumps(secret, ensure_ascii=False)[1:-1],
            repr(secret)[1:-1],
        )
    }
    return tuple(sorted(spelled, key=len, reverse=True))
