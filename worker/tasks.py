"""The one task there is."""

from __future__ import annotations

from celery import Celery
from celery.exceptions import Reject

from customedit.jobs import notifications
from worker.executor import Desk


def register(app: Celery, desk: Desk) -> None:
    """Have ``desk`` answer the doorbells that ``app`` receives."""

    @app.task(  # type: ignore[untyped-decorator]
        name=notifications.TASK, bind=True, ignore_result=True, acks_late=True
    )
    def ring(task: object, job_id: str) -> None:
        """Take up the job, if it is to be had; returns when it has ended here."""
        queue = task.request.delivery_info.get("routing_key", "")  # type: ignore[attr-defined]
        if not desk.ring(job_id, notifications.kind_of(queue)):
            raise Reject("this worker goes", requeue=True)
