"""A notification is what Celery itself would send, but for what it adds about the sender."""

from __future__ import annotations

import base64
import json
from typing import Any

from celery import Celery
from redis import Redis

from customedit.config.settings import Settings
from customedit.jobs import notifications


def opened(text: str) -> dict[str, Any]:
    """A message with its body decoded, without what is random."""
    message: dict[str, Any] = json.loads(text)
    message["body"] = json.loads(base64.b64decode(message["body"]))
    headers, properties = message["headers"], message["properties"]
    assert headers["id"] == headers["root_id"] == properties["correlation_id"]
    assert len({headers["id"], properties["delivery_tag"]}) == 2
    for place, names in (
        (headers, ("id", "root_id", "origin", "ignore_result")),
        (properties, ("correlation_id", "delivery_tag", "reply_to")),
    ):
        for name in names:
            place.pop(name, None)
    # These say nothing: Celery reads them with the same defaults.
    for name in ("shadow", "group_index", "replaced_task_nesting", "stamped_headers", "stamps"):
        assert not headers.pop(name, None)
    return message


def test_a_message_is_celerys(settings: Settings, redis_client: Redis) -> None:
    app = Celery(set_as_current=False)
    app.conf.update(notifications.celery_settings(settings))
    place = notifications.queue(settings, "edit")
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    for headers, parent in (({"traceparent": trace}, trace), (None, None)):
        app.send_task(notifications.TASK, args=["job_1"], queue=place, headers=headers)
        theirs = str(redis_client.lpop(place))
        ours = notifications.message(settings, "job_1", "edit", parent)
        assert opened(ours) == opened(theirs)
    app.close()
