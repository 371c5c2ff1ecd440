"""The worker process: ``python -m worker``.

The main thread runs Celery's consumer and owns the signals: SIGTERM and SIGINT drain, SIGQUIT (or a
second SIGINT) hands everything back at once. Should Celery end by itself, the worker drains as well
and ends with status 1, so that whoever runs it starts another. Whatever the process dies of, leases
do the rest.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import sys
import threading
from typing import Any, Final

from celery.worker import state as celery_state

from customedit.config import telemetry
from customedit.config.settings import Settings
from customedit.errors import InputError
from customedit.jobs import notifications
from customedit.jobs.redis import connect
from customedit.jobs.store import Jobs
from customedit.storage.store import Storage
from worker.celery_app import make_celery_app, register
from worker.executor import Executor
from worker.health import Health
from worker.presence import Presence
from worker.reconciler import Reconciler
from worker.runtime import Runtime

GRACE_S: Final = 15.0
"""After the drain: how long Celery may take to stop before the process ends anyway."""

_log = logging.getLogger(__name__)


def main() -> int:
    """Run a worker until it is told to stop.

    Gives the exit status: 0, 1 if Celery ended by itself, 2 for unusable settings.
    """
    try:
        settings = Settings.of_environment()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    telemetry.set_up_logging(settings, "worker")
    telemetry.set_up_tracing(settings, "worker")
    health = Health(settings.metrics_host, settings.metrics_port)
    _log.info("health on port %d", health.port)
    redis = connect(settings)
    jobs, storage = Jobs(redis, settings), Storage(settings)
    try:
        runtime = Runtime.load(settings, redis, jobs, storage)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return Worker(settings, runtime, health).run()


class Worker:
    """Runs jobs on a runtime that is loaded, until a signal comes."""

    def __init__(self, settings: Settings, runtime: Runtime, health: Health) -> None:
        self.settings, self.runtime, self.health = settings, runtime, health
        self.name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.app = make_celery_app(settings)
        self.executor = Executor(runtime, self.name, self.notify)
        register(self.app, self.executor)
        self.presence = Presence(runtime, self.executor, self.name)
        self.reconciler = Reconciler(runtime, self.name)
        self._going, self._drained = threading.Event(), threading.Event()
        self._status = 0

    def notify(self, job_id: str, kind: str) -> None:
        """Send a notification."""
        notifications.send(self.runtime.redis, self.settings, kind, [job_id])

    def run(self) -> int:
        """Run jobs until a signal comes; then drain and clean up. Gives the exit status."""
        controller = self.app.WorkController(
            pool="threads",
            concurrency=self.settings.worker_concurrency,
            hostname=self.name,
            queues=[
                notifications.queue(self.settings, k)
                for k in self.settings.worker_queues.split(",")
            ],
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
        )
        # Before Celery waits for its threads, in which jobs run that must be told to end.
        controller.blueprint.on_close = self._celery_ends
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, self._stop)
        self.health.registry = self.runtime.metrics.registry
        self.health.alive = lambda: self.runtime.engine.alive
        self.health.trouble = self.executor.trouble
        self.health.ready = True
        self.executor.start()
        self.presence.start()
        self.reconciler.start()
        _log.info("ready: %s", self.name)
        controller.start()
        self._celery_ends()
        self._close()
        return self._status

    def _celery_ends(self) -> None:
        """Celery's consumer has ended: if nobody asked for that, drain as at SIGTERM."""
        if self._going.is_set():
            return
        _log.critical("Celery ended by itself")
        self._status = 1
        self._go(self.settings.drain_seconds)

    def _stop(self, number: int, frame: Any) -> None:
        """A signal: drain, or on SIGQUIT and the second time hand everything back at once."""
        seconds = self.settings.drain_seconds
        if number == signal.SIGQUIT or self._going.is_set():
            seconds = 0.0
        celery_state.should_stop = 0
        self._go(seconds)

    def _go(self, seconds: float) -> None:
        """Drain in a thread of its own."""
        self._going.set()
        self.health.ready = False
        threading.Thread(target=self._drain, args=[seconds], name="drain", daemon=True).start()

    def _drain(self, seconds: float) -> None:
        _log.info("draining; jobs have %g s", seconds)
        self.presence.leave()
        self.executor.drain(seconds)
        self.executor.finish(GRACE_S)
        self._drained.set()
        threading.Event().wait(GRACE_S)
        _log.warning("Celery did not stop")
        logging.shutdown()
        os._exit(self._status)

    def _close(self) -> None:
        if self._going.is_set():  # jobs may run beside Celery's threads
            self._drained.wait()
        self.presence.leave()
        self.reconciler.close()
        self.executor.close()
        self.runtime.close()
        self.health.close()
        telemetry.stop_tracing()
        _log.info("stopped")
