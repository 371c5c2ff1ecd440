"""Notifications: Celery messages that say "job N may be ready". Celery is not imported here.

Front ends send them and workers receive them; both must agree on what is written here. The id is
for people who look at the queue: which job a worker takes is decided when it claims one.

``message`` writes one as Celery would (message protocol 2, in the envelope of kombu's transport for
Redis): a front end that did it through Celery would spend more on it than on the job's record.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from customedit.config.settings import Settings
from customedit.schemas.answers import JobKind

if TYPE_CHECKING:
    from redis import Redis

TASK: Final = "customedit.wake"
"""Name of the Celery task; its one argument is the job's id."""


def queue(settings: Settings, kind: JobKind | str) -> str:
    """The Celery queue (a list in Redis) of notifications of jobs of ``kind``: ``ce.edit``."""
    return f"{settings.namespace}.{kind}"


def message(settings: Settings, job_id: str, kind: JobKind | str, traceparent: str | None) -> str:
    """The entry of the list ``queue(settings, kind)`` that wakes a worker for the job, as JSON.

    traceparent: of the W3C, which the worker's trace continues; None: there is none.
    """
    task, tag = str(uuid.uuid4()), str(uuid.uuid4())
    links = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    headers: dict[str, Any] = {
        "lang": "py",
        "task": TASK,
        "id": task,
        "root_id": task,
        "parent_id": None,
        "group": None,
        "retries": 0,
        "eta": None,
        "expires": None,
        "timelimit": [None, None],
        "argsrepr": repr([job_id]),
        "kwargsrepr": "{}",
        "ignore_result": True,
    }
    if traceparent:
        headers["traceparent"] = traceparent
    envelope = {
        "body": base64.b64encode(json.dumps([[job_id], {}, links]).encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers,
        "properties": {
            "correlation_id": task,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": queue(settings, kind)},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": tag,
        },
    }
    return json.dumps(envelope)


def send(client: Redis, settings: Settings, kind: JobKind | str, job_ids: Sequence[str]) -> None:
    """Notify workers of jobs of ``kind``, in one call of Redis. Raises RedisError."""
    if job_ids:
        messages = [message(settings, job_id, kind, None) for job_id in job_ids]
        client.lpush(queue(settings, kind), *messages)


def celery_settings(settings: Settings) -> dict[str, Any]:
    """Celery's configuration, for both sides.

    Short time limits on the socket: workers also look for jobs by themselves, so a notification
    that cannot be sent now is not missed. For the same reason it does not matter how long those of
    a killed worker stay undelivered, which the visibility timeout says.
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
