"""Metrics of the stores, which the front end and the workers export alike."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class StoreMetrics:
    """A registry, and in it what its process learns of Redis and S3.

    Each has its own registry, so that several apps can live in one process.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
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

    def set_memory(self, used: int, most: int | None) -> None:
        """Memory of Redis in bytes; most: None for no limit."""
        self.redis_memory.labels("used").set(used)
        self.redis_memory.labels("most").set(most or float("inf"))
