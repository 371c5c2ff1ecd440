"""What callers see while Redis may hold no more: refusals that say so, and nothing lost."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import httpx
import pytest
from redis import Redis

from customedit.jobs.redis import memory

from .. import web
from .conftest import Running, edit, upload


@pytest.fixture
def allow(redis_client: Redis) -> Iterator[Callable[[int], None]]:
    """Sets how many bytes Redis may hold; 0, and after the test: as many as it likes."""

    def allow(most: int) -> None:
        redis_client.config_set("maxmemory", most)

    yield allow
    redis_client.config_set("maxmemory", 0)


def test_a_redis_that_is_nearly_full_is_told_and_takes_no_process_out(
    api: Running, redis_client: Redis, allow: Callable[[int], None]
) -> None:
    watch = api.container.watch
    watch.measure()
    assert web.get(f"{api.url}/readyz").json()["warnings"] == {}
    used = memory(redis_client).used
    for share, warned in ((0.5, set()), (0.95, {"redis"}), (1.5, {"redis"})):
        allow(int(used / share))
        watch.measure()
        answer = web.get(f"{api.url}/readyz")
        assert answer.status_code == 200 and answer.json()["checks"]["redis"] == "ok"
        assert set(answer.json()["warnings"]) == warned
    assert "submissions and uploads are refused" in answer.json()["warnings"]["redis"]
    text = web.get(f"{api.url}/metrics").text
    told = dict(re.findall(r'^customedit_redis_memory_bytes{what="(\w+)"} (\S+)$', text, re.M))
    assert float(told["most"]) == int(used / 1.5) < float(told["used"])
    allow(0)
    watch.measure()
    assert api.container.watch.warnings == {}
    assert 'what="most"} +Inf' in web.get(f"{api.url}/metrics").text


def test_submissions_are_refused_and_nothing_is_lost(
    api: Running, anna: httpx.Client, allow: Callable[[int], None]
) -> None:
    stolen = api.keys.create("anna")[0].id
    image, job = upload(anna), edit(anna)
    body = {"image": image, "source_prompt": "a cup", "target_prompt": "a red cup"}
    allow(2**20)
    refused = anna.post("/v1/edits", json=body)
    assert refused.status_code == 503, refused.text
    assert refused.json()["type"] == "/problems/unavailable"
    assert "Retry-After" in refused.headers
    assert anna.post(f"/v1/keys/{stolen}/revoke").json()["state"] == "revoked"
    for path in ("/v1/edits", "/v1/jobs?kind=edit", "/v1/jobs?state=queued"):
        assert [found["id"] for found in anna.get(path).json()["items"]] == [job["id"]], path
    for path in ("/v1/images", "/v1/webhooks/deliveries", "/v1/batches", "/v1/keys", "/v1/presets"):
        assert anna.get(path).status_code == 200, path
    allow(0)
    assert anna.post("/v1/edits", json=body).status_code == 202
