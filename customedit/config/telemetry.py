"""What the processes say of themselves: logs with job and tenant ids, traces if asked for.

Secrets never reach a log: known ones and all that look like one are struck out of finished lines.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import IO, Any, Final
from urllib.parse import unquote, urlsplit

from pythonjsonlogger.json import JsonFormatter

from customedit.config.settings import Settings

STRUCK: Final = "[redacted]"

_context: ContextVar[dict[str, str]] = ContextVar("customedit_log_context")
_tracer: Any = None

# API keys, webhook secrets, credentials in headers and addresses, and what signs an S3 request.
# None matches across a quote, so that a line of JSON stays one.
_SECRETS: Final = (
    (re.compile(r"\bce_([A-Za-z0-9]+)_[A-Za-z0-9_-]{16,}"), rf"ce_\1_{STRUCK}"),
    (re.compile(r"\bwhsec_[A-Za-z0-9+/=_-]+"), f"whsec_{STRUCK}"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), rf"\1 {STRUCK}"),
    (re.compile(r"(://[^\s:/@\"']*):[^\s/@\"']+@"), rf"\1:{STRUCK}@"),
    (
        re.compile(r"(?i)\b(X-Amz-(?:Signature|Credential|Security-Token))=[^&\s\"'\\]+"),
        rf"\1={STRUCK}",
    ),
)


@contextlib.contextmanager
def bind(**fields: str | None) -> Iterator[None]:
    """Give all log lines in this context ``fields`` (job, tenant, request); None leaves one out."""
    own = {name: value for name, value in fields.items() if value is not None}
    token = _context.set({**_context.get({}), **own})
    try:
        yield
    finally:
        _context.reset(token)


def bound() -> dict[str, str]:
    """The fields that log lines here get."""
    return dict(_context.get({}))


def redact(text: str, secrets: tuple[str, ...] = ()) -> str:
    """``text`` without ``secrets`` and without what looks like one."""
    for secret in secrets:
        text = text.replace(secret, STRUCK)
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


def set_up_logging(settings: Settings, service: str, stream: IO[str] | None = None) -> None:
    """Log everything of this process to ``stream`` (standard error) as the settings say.

    service: ``api``, ``worker`` or the like. Replaces all handlers of the root logger; loggers of
    servers are made to use it.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    secrets = _secrets_of(settings)
    if settings.log_format == "json":
        handler.setFormatter(_Json(service, secrets))
    else:
        handler.setFormatter(_Text(secrets))
    logging.basicConfig(handlers=[handler], level=settings.log_level, force=True)
    logging.captureWarnings(True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "celery", "celery.task"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
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
        # At DEBUG they tell headers and bodies; at INFO whole addresses.
        logging.getLogger(name).setLevel(logging.WARNING)


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
    """The settings' secrets, as they stand and as JSON spells them."""
    password = urlsplit(settings.redis_url).password
    key = settings.s3_secret_key
    plain = {password, unquote(password or ""), key.get_secret_value() if key else None}
    found = {spelled for s in plain if s for spelled in (s, json.dumps(s)[1:-1])}
    return tuple(sorted(found, key=len, reverse=True))


class _Json(JsonFormatter):
    """One JSON object a line."""

    def __init__(self, service: str, secrets: tuple[str, ...]) -> None:
        super().__init__("%(message)s")
        self._service, self._secrets = service, secrets

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        log_data["time"] = _utc(record.created)
        log_data["level"] = record.levelname
        log_data["logger"] = record.name
        log_data["service"] = self._service
        super().add_fields(log_data, record, message_dict)
        log_data.update(bound())
        log_data.update(_trace_ids())

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record), self._secrets)


class _Text(logging.Formatter):
    """A line for people; a message with line breaks stays one line."""

    def __init__(self, secrets: tuple[str, ...]) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
        self._secrets = secrets

    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record).replace("\r", "\\r").replace("\n", "\\n")
        return line + "".join(f" {name}={value}" for name, value in bound().items())

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record), self._secrets)


def _utc(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}Z"


def _trace_ids() -> dict[str, str]:
    if _tracer is None:
        return {}
    from opentelemetry import trace

    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
