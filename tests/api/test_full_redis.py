"""What callers see while Redis may hold no more: refusals that say so, and nothing lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest
from redis import Redis

from .conftest import edit, upload


@pytest.fixture
def allow(redis_client: Redis) -> Iterator[Callable[[int], None]]:
    """Sets how many bytes Redis may hold; 0, and after the test: as many as it likes."""

    def allow(most: int) -> None:
        redis_client.config_set("maxmemory", most)

    yield allow
    redis_client.config_set("maxmemory", 0)


def test_submissions_are_refused_and_nothing_is_lost(
    anna: httpx.Client, allow: Callable[[int], None]
) -> None:
    image, job = upload(anna), edit(anna)
    body = {"image": image, "source_prompt": "a cup", "target_prompt": "a red cup"}
    allow(2**20)
    refused = anna.post("/v1/edits", json=body)
    assert refused.status_code == 503, refused.text
    assert refused.json()["type"] == "/problems/unavailable"
    assert "Retry-After" in refused.headers
    allow(0)
    assert [found["id"] for found in anna.get("/v1/edits").json()["items"]] == [job["id"]]
    assert anna.post("/v1/edits", json=body).status_code == 202
