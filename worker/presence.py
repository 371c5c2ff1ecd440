"""Tells the front end every few seconds that this worker lives, on which base, and how fast."""

from __future__ import annotations

import dataclasses
import logging
import threading
from typing import Final, cast, get_args

from redis.exceptions import RedisError

from customedit.concepts.settings import TrainingSettings
from customedit.diffusion.base import Base
from customedit.diffusion.engine import CPU_POSITIONS
from customedit.estimates.workers import BEAT_S, WorkerBase, WorkerReport, Workers
from customedit.schemas.answers import JobKind
from customedit.schemas.concepts import TrainingOptions, TrainingWay
from worker.executor import Executor
from worker.runtime import Runtime

_FIELDS: Final = frozenset(TrainingOptions.model_fields)
_log = logging.getLogger(__name__)


class Presence:
    """Runs in a thread of its own from ``start`` to ``leave``.

    A worker whose engine stands still, or that takes no jobs for another reason, says nothing.
    """

    def __init__(self, runtime: Runtime, executor: Executor, name: str) -> None:
        self._runtime, self._executor = runtime, executor
        self._workers = Workers(runtime.redis, runtime.settings)
        settings = runtime.settings
        self._report = WorkerReport(
            name=name,
            kinds=cast("tuple[JobKind, ...]", tuple(settings.worker_queues.split(","))),
            slots=settings.worker_concurrency,
            base=worker_base(runtime.base, settings.engine_rows),
        )
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    def start(self) -> None:
        """Begin."""
        try:
            self._runtime.speedometer.begin(self._workers.speed(self._report.base))
        except RedisError as error:
            _log.warning("speeds measured before cannot be read: %s", error)
        self._thread.start()

    def leave(self) -> None:
        """Say that this worker takes no more jobs; may be called twice."""
        self._left.set()
        if self._thread.is_alive():
            self._thread.join(5)
        try:
            self._workers.leave(self._report.name)
        except (RedisError, OSError) as error:  # it is forgotten soon
            _log.warning("the front end was not told: %s", error)

    def _run(self) -> None:
        while not self._left.is_set():
            try:
                if self._runtime.engine.alive and not self._executor.trouble():
                    self._workers.beat(self.report())
            except (RedisError, OSError) as error:
                _log.warning("no sign of life: %s", error)
            except Exception:
                _log.exception("no sign of life")
            self._left.wait(BEAT_S)

    def report(self) -> WorkerReport:
        """What is told now."""
        return self._report.model_copy(
            update={
                "speed": self._runtime.speedometer.lines(),
                "classes": self._runtime.class_images.marks(),
            }
        )


def worker_base(base: Base, rows: int) -> WorkerBase:
    """What the front end knows of ``base``. rows: most rows of one call."""
    training = {
        way: {
            name: value
            for name, value in dataclasses.asdict(TrainingSettings.of(base, way=way)).items()
            if name in _FIELDS
        }
        for way in get_args(TrainingWay)
    }
    return WorkerBase(
        name=base.name,
        fingerprint=base.fingerprint,
        architecture=base.profile.architecture,
        device=base.device.type,
        dtype=str(base.dtype).removeprefix("torch."),
        guidance=base.guidance,
        sizes=base.sizes,
        rows=rows,
        cells=CPU_POSITIONS if base.device.type == "cpu" else None,
        training=training,
    )
