"""What those who ring and those who answer must agree on. Celery itself is not imported here.

A doorbell is a Celery message that says "job N may be ready". It carries no more than the id.
"""

from __future__ import annotations

from typing import Any, Final

from customedit.config.settings import Settings
from customedit.jobs.records import JobKind

TASK: Final = "customedit.ring"
"""Name of the Celery task; its one argument is the job's id."""


def queue(settings: Settings, kind: JobKind | str) -> str:
    """The Celery queue (a list in Redis) for doorbells of jobs of ``kind``: ``ce.edit``."""
    return f"{settings.namespace}.{kind}"


def kind_of(queue_name: str) -> str:
    """The kind of job that rings in the queue of this name."""
    return queue_name.rpartition(".")[2]


def celery_settings(settings: Settings) -> dict[str, Any]:
    """Celery's configuration, for both sides.

    Short time limits on the socket: a ring that cannot be had now is made up for by the
    reconciler. The visibility timeout is how long bells of a worker that was killed stay unheard,
    which does not matter either.
    """
    return {
        "broker_url": settings.redis_url,
        "result_backend": None,
        "task_ignore_result": True,
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_default_queue": queue(settings, "edit"),
        "task_create_missing_queues": True,
        "broker_transport_options": {
            "visibility_timeout": 3600,
            "socket_connect_timeout": 3,
            "socket_timeout": 10,
            "socket_keepalive": True,
            "health_check_interval": 10,
            "retry_on_timeout": True,
            "unacked_key": f"{settings.namespace}.unacked",
            "unacked_index_key": f"{settings.namespace}.unacked-index",
            "unacked_mutex_key": f"{settings.namespace}.unacked-mutex",
        },
        "broker_connection_timeout": 3,
        "enable_utc": True,
        "timezone": "UTC",
    }
