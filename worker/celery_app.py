"""Celery, as far as it goes here: it carries notifications, "job N may be ready"."""

from __future__ import annotations

from celery import Celery
from celery.exceptions import Reject

from customedit.config.settings import Settings
from customedit.jobs import notifications
from worker.executor import Executor


def make_celery_app(settings: Settings) -> Celery:
    """Celery with the settings that long jobs behind notifications need.

    Late acknowledgement and a prefetch of one, so that a worker takes no notification that it has
    no thread for; no result backend, since the job's record is the truth. A notification that is
    lost or delivered twice does no harm: claims are compare-and-set, and workers also look by
    themselves. A Redis that is full refuses what the consumer notes of each message, which Celery
    takes for a broken channel: it begins anew then, instead of ending the worker under its jobs.
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
        broker_channel_error_retry=True,
    )
    return app


def register(app: Celery, executor: Executor) -> None:
    """Have ``executor`` run jobs at each notification that ``app`` receives."""

    @app.task(name=notifications.TASK, ignore_result=True, acks_late=True)  # type: ignore[untyped-decorator]
    def wake(job_id: str) -> None:
        """Run jobs while there are any; which ones is Redis' choice, not the message's."""
        if not executor.wake():
            raise Reject("this worker is going", requeue=True)
