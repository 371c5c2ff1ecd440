"""Presets over HTTP: saved, replaced, kept through the loss of Redis, of one tenant alone."""

from __future__ import annotations

import httpx
import pytest
from redis import Redis

from customedit.client import CustomEdit
from customedit.jobs.recovery import recover
from customedit.storage.store import Storage
from customedit.tenants import presets

from .conftest import Running

SETTINGS = {"method": "p2p", "change": 0.3, "p2p": {"threshold": 0.4}}


def test_a_preset_is_saved_read_and_deleted(
    anna: httpx.Client, bert: httpx.Client, api: Running, storage: Storage, redis_client: Redis
) -> None:
    first = anna.put("/v1/presets/gentle", json=SETTINGS)
    assert first.status_code == 201 and first.json()["settings"] == SETTINGS
    again = anna.put("/v1/presets/gentle", json={"steps": 20})
    assert again.status_code == 200 and again.json()["settings"] == {"steps": 20}
    anna.put("/v1/presets/Bold.2", json=SETTINGS)
    assert [p["name"] for p in anna.get("/v1/presets").json()["items"]] == ["Bold.2", "gentle"]
    assert bert.get("/v1/presets/gentle").status_code == 404
    assert bert.get("/v1/presets").json()["items"] == []
    assert bert.delete("/v1/presets/gentle").status_code == 404
    redis_client.delete(f"{api.settings.namespace}:presets:anna")
    assert recover(redis_client, storage, api.settings).presets == 2
    assert anna.get("/v1/presets/gentle").json()["settings"] == {"steps": 20}
    assert anna.delete("/v1/presets/gentle").status_code == 204
    assert anna.get("/v1/presets/gentle").status_code == 404
    redis_client.delete(f"{api.settings.namespace}:presets:anna")
    assert recover(redis_client, storage, api.settings).presets == 1


@pytest.mark.parametrize(
    ("name", "body", "field"),
    [
        ("gentle", {"change": 2}, "change"),
        ("gentle", {"change": 0.5, "strengths": [0.5]}, "change"),
        ("gentle", {"strengths": [0.5] * 9, "seeds": [1, 2]}, "strengths"),
        ("gentle", {"image": "img_x"}, "image"),
        (".hidden", {}, "name"),
        ("a b", {}, "name"),
    ],
)
def test_what_cannot_be_saved(
    anna: httpx.Client, name: str, body: dict[str, object], field: str
) -> None:
    refused = anna.put(f"/v1/presets/{name}", json=body)
    assert refused.status_code == 422 and refused.json()["field"] == field


def test_there_is_a_limit(anna: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presets, "MOST", 1)
    assert anna.put("/v1/presets/one", json={}).status_code == 201
    assert anna.put("/v1/presets/one", json={"steps": 3}).status_code == 200
    full = anna.put("/v1/presets/two", json={})
    assert full.status_code == 422 and "1 presets" in full.json()["detail"]


def test_the_client(api: Running) -> None:
    with CustomEdit(api.url, api.key("anna")) as client:
        saved = client.save_preset("gentle", change=0.3, steps=20)
        assert client.preset("gentle") == saved
        assert [p.name for p in client.presets().items] == ["gentle"]
        client.delete_preset("gentle")
        assert client.presets().items == []
