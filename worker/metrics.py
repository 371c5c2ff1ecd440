"""What a worker counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final, get_args

from prometheus_client import Counter, Gauge, Histogram

from customedit.schemas.answers import JobKind
from customedit.storage.metrics import StoreMetrics

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200)
ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
ALERTED_OUTCOMES: Final = ("internal", "out-of-memory", "abandoned")
"""Outcomes that alerts look for."""


class Metrics(StoreMetrics):
    """Of one worker, in a registry of their own, so that tests can have several."""

    def __init__(self) -> None:
        super().__init__()
        self.queue_age = Histogram(
            "customedit_queue_age_seconds",
            "From when a job was queued until a worker claimed it.",
            ["kind"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.phases = Histogram(
            "customedit_job_phase_seconds",
            "How long jobs were in each phase.",
            ["kind", "phase"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.jobs = Counter(
            "customedit_jobs",
            "Attempts by how they ended.",
            ["kind", "outcome"],
            registry=self.registry,
        )
        self.running = Gauge(
            "customedit_jobs_running", "Jobs under way.", ["kind"], registry=self.registry
        )
        self.calls = Counter("customedit_unet_calls", "Calls of the UNet.", registry=self.registry)
        self.rows = Histogram(
            "customedit_unet_call_rows",
            "Rows in a call of the UNet.",
            buckets=ROWS,
            registry=self.registry,
        )
        self.ticks = Histogram(
            "customedit_engine_tick_seconds",
            "One round of the engine.",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.cache = Counter(
            "customedit_cache_reads",
            "Concepts, inversions and features asked for, by where they were found.",
            ["what", "found"],
            registry=self.registry,
        )
        self.cache_bytes = Gauge(
            "customedit_cache_bytes",
            "Concepts, inversions and features on the device.",
            registry=self.registry,
        )
        self.lost = Counter(
            "customedit_leases_lost",
            "Jobs whose lease another worker took.",
            registry=self.registry,
        )
        self.device_memory = Gauge(
            "customedit_device_memory_bytes", "Memory of the GPU.", ["what"], registry=self.registry
        )
        self.depth = Gauge(
            "customedit_queue_depth", "Jobs queued.", ["kind"], registry=self.registry
        )
        self.oldest = Gauge(
            "customedit_queue_oldest_seconds",
            "Age of the oldest queued job.",
            ["kind"],
            registry=self.registry,
        )
        self.notified = Counter(
            "customedit_reconciler_notifications",
            "Jobs that the reconciler notified workers of.",
            ["kind"],
            registry=self.registry,
        )
        self.scratch = Gauge(
            "customedit_scratch_bytes",
            "The disk of the scratch folder: free, and total.",
            ["what"],
            registry=self.registry,
        )
        self.webhooks = Gauge(
            "customedit_webhooks_waiting",
            "Webhooks that are to be delivered.",
            registry=self.registry,
        )
        self.webhook_age = Gauge(
            "customedit_webhooks_oldest_seconds",
            "Seconds since the end of the job whose webhook waits longest.",
            registry=self.registry,
        )
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """Show what alerts and autoscaling ask for: a series that begins at 1 has not increased."""
        for kind in get_args(JobKind):
            self.running.labels(kind)
            self.notified.labels(kind)
            for outcome in ALERTED_OUTCOMES:
                self.jobs.labels(kind, outcome)

    @contextmanager
    def phase(self, kind: str, phase: str) -> Iterator[None]:
        """Time a phase of a job."""
        began = monotonic()
        try:
            yield
        finally:
            self.phases.labels(kind, phase).observe(monotonic() - began)
