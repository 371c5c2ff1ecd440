"""Celery, as far as it goes here: it carries doorbells, "job N may be ready", and nothing else."""

from __future__ import annotations

from celery import Celery

from customedit.config.settings import Settings
from customedit.jobs import notifications


def make_app(settings: Settings) -> Celery:
    """Celery with the settings that long jobs behind doorbells need.

    Late acknowledgement and a prefetch of one, so that a worker holds no bell it cannot answer; no
    result backend, since the job's record is the truth. A bell that is lost or rings twice does no
    harm: claims are compare-and-set, and the reconciler rings again.
    """
    app = Celery("customedit")
    app.conf.update(
        notifications.celery_settings(settings),
        task_acks_late=True,
        task_reject_on_worker_lost=False,
        worker_prefetch_multiplier=1,
        worker_concurrency=settings.worker_concurrency,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_enable_remote_control=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
    )
    return app
