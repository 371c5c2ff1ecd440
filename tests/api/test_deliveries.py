"""How webhooks were delivered, over REST and with the client."""

from __future__ import annotations

import httpx
import pytest
from redis import Redis

from customedit.client import ApiError, CustomEdit
from customedit.jobs.store import Jobs
from customedit.jobs.webhooks import Webhooks

from .conftest import Running, edit

ADDRESS = "https://hooks.example.com/anna"


def test_the_state_of_a_webhook_is_told(
    api: Running, anna: httpx.Client, bert: httpx.Client, jobs: Jobs, redis_client: Redis
) -> None:
    assert anna.post("/v1/webhooks/secret").status_code == 201
    job = edit(anna, webhook=ADDRESS)
    path = f"/v1/jobs/{job['id']}/webhook"
    waiting = anna.get(path).json()
    assert waiting == {
        "job": job["id"], "url": ADDRESS, "state": "waiting", "attempts": 0, "finished_at": None,
        "last_attempt_at": None, "last_status": None, "last_problem": None, "next_attempt_at": None,
    }  # fmt: skip
    assert anna.get("/v1/webhooks/deliveries").json()["items"] == []
    jobs.cancel("anna", job["id"])
    pending = anna.get(path).json()
    assert (pending["state"], pending["attempts"]) == ("pending", 0)
    assert pending["finished_at"] and pending["next_attempt_at"]
    assert anna.get("/v1/webhooks/deliveries").json()["items"] == [pending]

    Webhooks(redis_client, api.settings, jobs).deliver_due()  # the name does not resolve
    with CustomEdit(api.url, api.key("anna", ("read",))) as client:
        (tried,) = client.deliveries(state="pending").items
        assert tried == client.delivery(job["id"])
        assert tried.attempts == 1 and tried.last_status is None and tried.last_problem
        assert client.deliveries(state="delivered").items == []
        plain = edit(anna)
        with pytest.raises(ApiError, match="names no webhook"):
            client.delivery(plain["id"])
    assert bert.get(path).status_code == 404
    assert bert.get("/v1/webhooks/deliveries").json()["items"] == []

    redis_client.delete(f"{api.settings.namespace}:hook:{job['id']}")  # as after a recovery
    assert anna.get(path).json()["state"] == "unknown"
    odd = anna.get("/v1/webhooks/deliveries", params={"state": "lost"})
    assert (odd.status_code, odd.json()["field"]) == (422, "state")
