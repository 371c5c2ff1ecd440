"""The front end's metrics. A label has few values: none that a caller can invent."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def method_label(method: str) -> str:
    """The method, or ``other`` for what is not one of HTTP's usual ones."""
    return method if method in METHODS else "other"


class Metrics:
    """The API's metrics, in a registry of their own so that several apps can live in a process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "customedit_http_requests",
            "Requests by route and status.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "customedit_http_seconds",
            "Time to the end of the answer, in seconds; event streams are left out.",
            ["method", "route"],
            registry=self.registry,
        )
        self.open = Gauge(
            "customedit_http_open", "Requests that are being served.", registry=self.registry
        )
        self.notifications_failed = Counter(
            "customedit_notifications_failed",
            "Notifications of workers that were not sent; the reconciler sends them again.",
            registry=self.registry,
        )
        self.store_errors = Counter(
            "customedit_store_errors",
            "Calls of Redis or S3 that failed, after their own retries.",
            ["store"],
            registry=self.registry,
        )
        self.redis_memory = Gauge(
            "customedit_redis_memory_bytes",
            "Memory of Redis: used, and the most that it may use.",
            ["what"],
            registry=self.registry,
        )
        self.storage_writable = Gauge(
            "customedit_storage_writable",
            "Whether the bucket took a write when it was last tried.",
            registry=self.registry,
        )
        for store in ("redis", "s3"):  # a series that begins at 1 has not increased
            self.store_errors.labels(store)
        self.storage_writable.set(1)
