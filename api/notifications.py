"""Tells the workers that a job may be ready, through Celery; never the reason a request fails."""

from __future__ import annotations

import logging
from collections.abc import Callable

from celery import Celery

from customedit.config.settings import Settings
from customedit.jobs import notifications
from customedit.jobs.records import JobRecord

_log = logging.getLogger(__name__)


class Notifier:
    """Sends notifications, from many threads. failed: called when one cannot be sent."""

    def __init__(self, settings: Settings, failed: Callable[[], None] = lambda: None) -> None:
        self._settings, self._failed = settings, failed
        self._celery = Celery("customedit-api", set_as_current=False)
        self._celery.conf.update(notifications.celery_settings(settings))

    def notify(self, job: JobRecord) -> bool:
        """Tell the workers of ``job`` once; False if that failed: the reconciler will do it."""
        try:
            self._celery.send_task(
                notifications.TASK,
                args=[job.id],
                queue=notifications.queue(self._settings, job.kind),
                retry=False,
                headers={"traceparent": job.traceparent} if job.traceparent else None,
            )
        except Exception as error:  # whatever the broker's client raises: the record is safe
            _log.warning("%s: no worker was notified: %s", job.id, type(error).__name__)
            self._failed()
            return False
        return True

    def close(self) -> None:
        """Close the broker's connections."""
        self._celery.close()
