"""Keys over REST: made, listed and revoked by a key of the scope admin, for its tenant alone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from customedit.client import ApiError, CustomEdit
from customedit.config.settings import Settings
from customedit.storage.store import Storage
from customedit.tenants.access import MAX_KEYS

from .. import web
from .conftest import Running


def with_key(api: Running, text: str) -> httpx.Response:
    return web.get(f"{api.url}/v1/limits", headers={"X-API-Key": text})


def test_a_key_is_made_shown_once_used_and_revoked(
    api: Running, anna: httpx.Client, storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    body = {"name": " web ", "scopes": ["read", "edits:write"], "days": 30}
    answer = anna.post("/v1/keys", json=body)
    assert answer.status_code == 201 and answer.headers["cache-control"] == "no-store"
    made = answer.json()
    text = made.pop("key")
    assert text.startswith(made["prefix"]) and made["name"] == "web"
    assert made["scopes"] == ["edits:write", "read"] and made["state"] == "valid"
    assert with_key(api, text).json()["scopes"] == ["edits:write", "read"]

    listed = anna.get("/v1/keys").json()["items"]
    own = next(key for key in listed if key["current"])
    assert [key["id"] for key in listed] == [made["id"], own["id"]]  # newest first
    assert made["made_by"] == own["id"] and own["made_by"] is None
    assert listed[0]["last_used_at"] is not None
    secret = text.removeprefix(made["prefix"])
    told = anna.get("/v1/keys").text + caplog.text
    told += "".join(storage.get(found.key).decode() for found in storage.list("api-keys/"))
    assert secret not in told

    revoked = anna.post(f"/v1/keys/{made['id']}/revoke").json()
    assert revoked["state"] == "revoked" and revoked["revoked_at"]
    assert with_key(api, text).status_code == 401
    again = anna.post(f"/v1/keys/{made['id']}/revoke")
    assert again.status_code == 200 and again.json()["revoked_at"] == revoked["revoked_at"]
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("API key")]
    assert lines[0].startswith(f"API key {made['id']} was made with {own['id']}: edits:write read")
    assert lines[1:] == [f"API key {made['id']} was revoked with {own['id']}"]


def test_a_key_revokes_others_and_never_itself(api: Running, anna: httpx.Client) -> None:
    first = anna.get("/v1/keys").json()["items"][0]["id"]
    refused = anna.post(f"/v1/keys/{first}/revoke")
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/own-key")
    second = anna.post("/v1/keys", json={"scopes": ["admin"]}).json()
    with CustomEdit(api.url, second["key"]) as client:
        assert client.revoke_key(first).state == "revoked"
        with pytest.raises(ApiError, match="does not revoke itself"):
            client.revoke_key(second["id"])
        assert [key.state for key in client.keys().items] == ["valid", "revoked"]
        third = client.make_key(name="third", scopes=["read"], days=1.5)
        assert third.made_by == second["id"] and third.key.startswith("ce_")
    assert anna.get("/v1/keys").status_code == 401


def test_what_is_refused(api: Running, anna: httpx.Client, bert: httpx.Client) -> None:
    maker, text = api.keys.create("anna", scopes=["admin"], days=2)
    refused: dict[str, tuple[dict[str, Any], ...]] = {
        "scopes": ({"scopes": []}, {"scopes": ["read", "read"]}),
        "scopes[0]": ({"scopes": ["write"]},),
        "days": ({"days": 0}, {"days": 3}, {"days": "1"}),
        "name": ({"name": "x" * 201},),
        "tenant": ({"tenant": "bert"},),
    }
    for field, bodies in refused.items():
        for body in bodies:
            answer = web.post(f"{api.url}/v1/keys", json=body, headers={"X-API-Key": text})
            assert (answer.status_code, answer.json()["field"]) == (422, field), body
    theirs = bert.get("/v1/keys").json()["items"]
    assert maker.id not in [key["id"] for key in theirs]
    answer = bert.post(f"/v1/keys/{maker.id}/revoke")
    assert answer.status_code == 404 and answer.json()["detail"] == f"you have no key {maker.id}"
    assert anna.get(f"/v1/keys/{maker.id}").status_code == 404


def test_there_are_limits(start: Callable[..., Running], settings: Settings) -> None:
    api = start(settings, new_keys_per_minute=2)
    anna = api.client("anna")
    for _ in range(2):
        assert anna.post("/v1/keys", json={}).status_code == 201
    refused = anna.post("/v1/keys", json={})
    assert (refused.status_code, refused.json()["type"]) == (429, "/problems/too-many-new-keys")
    assert 1 <= int(refused.headers["retry-after"]) <= 120
    assert api.client("bert").post("/v1/keys", json={}).status_code == 201
    for _ in range(MAX_KEYS):
        api.keys.create("cleo")
    full = api.client("cleo").post("/v1/keys", json={})
    assert (full.status_code, full.json()["type"]) == (409, "/problems/too-many-keys")
