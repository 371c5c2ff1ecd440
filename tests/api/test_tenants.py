"""Tenants: nothing of another's can be read, listed, used or told from what is not there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from api import openai
from api.app import create_app
from customedit.config.settings import Settings
from customedit.jobs.store import Jobs
from customedit.schemas import ids
from customedit.schemas.keys import SCOPES
from customedit.storage.store import Storage
from customedit.tenants.catalogue import Concepts

from .. import web
from .conftest import Running, customize, edit, finish_concept, png, upload


def operations() -> Iterator[tuple[str, str]]:
    document = create_app(Settings()).openapi()
    for path, methods in document["paths"].items():
        for method in methods:
            yield method.upper(), path


OPERATIONS = list(operations())
WITH_ID = [(m, p) for m, p in OPERATIONS if "{id}" in p]
BEHIND_KEY = [(m, p) for m, p in OPERATIONS if p.startswith("/v1/")]


@pytest.fixture
def theirs(anna: httpx.Client, jobs: Jobs, concepts: Concepts, storage: Storage) -> dict[str, str]:
    """Ids of Anna's: one for each kind of path."""
    job = customize(anna)
    finish_concept(jobs, concepts, storage, job["id"])
    form = anna.post("/v1/uploads", json={"media_type": "image/png"}).json()
    web.post(form["url"], data=form["fields"], files={"file": ("x", png())})
    return {
        "images": upload(anna, "gold"),
        "concepts": job["concept"],
        "edits": edit(anna)["id"],
        "jobs": edit(anna, seeds=[3])["id"],
        "batches": batch(anna),
        "uploads": form["id"],
        "keys": anna.post("/v1/keys", json={"name": "hers"}).json()["id"],
    }


def batch(client: httpx.Client) -> str:
    """A batch of one picture; its id."""
    settings = {"source_prompt": "a cup", "target_prompt": "a red cup"}
    made = client.post("/v1/batches", json={"images": [upload(client, "gold")], **settings})
    assert made.status_code == 202, made.text
    return str(made.json()["id"])


def test_no_id_of_anothers_can_be_used_in_a_path(
    anna: httpx.Client, bert: httpx.Client, theirs: dict[str, str]
) -> None:
    before = {p: anna.get(p).json() for p in ("/v1/jobs", "/v1/concepts", "/v1/images")}
    for method, path in WITH_ID:
        kind = path.split("/")[2]
        found = bert.request(method, path.replace("{id}", theirs[kind]))
        never = {"images": ids.of_image(b"never"), "concepts": ids.new("con")}
        never |= {"uploads": ids.new("upl"), "jobs": ids.new("job"), "edits": ids.new("job")}
        never |= {"batches": ids.new("bat"), "keys": ids.new("key")}
        unknown = bert.request(method, path.replace("{id}", never[kind]))
        assert found.status_code == unknown.status_code == 404, (method, path)
        told = [
            {k: v for k, v in answer.json().items() if k not in ("instance", "request_id")}
            for answer in (found, unknown)
        ]
        told[0]["detail"] = told[0]["detail"].replace(theirs[kind], never[kind])
        assert told[0] == told[1], (method, path)
    for path, was in before.items():
        now = anna.get(path).json()
        assert [i["id"] for i in now["items"]] == [i["id"] for i in was["items"]]
        assert [i.get("state") for i in now["items"]] == [i.get("state") for i in was["items"]]


def test_no_id_of_anothers_can_be_used_in_a_request(
    bert: httpx.Client, theirs: dict[str, str], storage: Storage
) -> None:
    own = upload(bert)
    plain = {"image": own, "source_prompt": "a cup", "target_prompt": "a red cup"}
    image, concept = theirs["images"], theirs["concepts"]
    named: list[tuple[dict[str, Any], str]] = [
        ({"image": image}, "image"),
        ({"mask": image}, "mask"),
        ({"references": [own, image]}, "references[1]"),
        ({"concepts": [{"id": concept}]}, "concepts[0].id"),
    ]
    for more, field in named:
        answer = bert.post("/v1/edits", json={**plain, **more})
        assert (answer.status_code, answer.json()["field"]) == (409, field)
        assert answer.json()["type"] in ("/problems/unknown-image", "/problems/unknown-concept")
    answer = bert.post("/v1/concepts", json={"references": [image], "noun": "cup"})
    assert (answer.status_code, answer.json()["field"]) == (409, "references[0]")
    assert not list(storage.list("tenants/bert/jobs/"))
    assert not list(storage.list("tenants/bert/concepts/"))


def test_lists_show_ones_own_alone(
    anna: httpx.Client, bert: httpx.Client, theirs: dict[str, str]
) -> None:
    own = {"/v1/jobs": edit(bert)["id"], "/v1/edits": None, "/v1/concepts": None, "/v1/images": 0}
    for path in own:
        items = bert.get(path, params={"limit": 100}).json()["items"]
        hers = {i["id"] for i in anna.get(path, params={"limit": 100}).json()["items"]}
        assert hers and not hers & {i["id"] for i in items} - {ids.of_image(png("red"))}
    filtered = bert.get("/v1/jobs", params={"concept": theirs["concepts"]}).json()
    assert filtered["items"] == []
    cursor = anna.get("/v1/jobs", params={"limit": 1}).json()["next_cursor"]
    through = bert.get("/v1/jobs", params={"cursor": cursor}).json()["items"]
    assert {i["id"] for i in through} <= {own["/v1/jobs"]}


def test_the_same_picture_of_two_tenants_is_two_images(
    anna: httpx.Client, bert: httpx.Client
) -> None:
    image = upload(bert, "navy")
    assert upload(anna, "navy") == image
    anna.delete(f"/v1/images/{image}")
    kept = bert.get(f"/v1/images/{image}")
    assert kept.status_code == 200 and web.get(kept.json()["url"]).is_success


def test_limits_are_each_tenants_own(start: Callable[..., Running], settings: Settings) -> None:
    api: Running = start(settings, rate_per_minute=5)
    anna, bert = api.client("anna"), api.client("bert")
    codes = [anna.get("/v1/limits").status_code for _ in range(6)]
    assert codes == [200] * 5 + [429]
    refused = anna.get("/v1/jobs")
    assert refused.json()["type"] == "/problems/rate-limited"
    assert 1 <= int(refused.headers["retry-after"]) <= 120  # the next minute counts this one
    assert refused.headers["ratelimit-policy"] == '"tenant";q=5;w=60'
    assert refused.headers["ratelimit"].startswith('"tenant";r=0;t=')
    allowed = bert.get("/v1/limits")
    assert allowed.status_code == 200 and allowed.json()["requests_left"] == 4
    assert allowed.headers["ratelimit"].startswith('"tenant";r=4;t=')


def test_no_key_no_entry(start: Callable[..., Running], settings: Settings) -> None:
    api: Running = start(settings, failed_keys_per_minute=10_000)
    good = api.key()
    wrong = f"{good[:-1]}{'0' if good[-1] != '0' else '1'}"
    basic = httpx.BasicAuth("ce", good)
    refused = [
        {},
        {"Authorization": f"Bearer {wrong}"},
        {"Authorization": good},
        {"X-API-Key": wrong},
        {"Authorization": f"Bearer {good}", "X-API-Key": wrong},
        {"Authorization": f"Bearer {good} {good}"},
    ]
    with web.Client(base_url=api.url) as client:
        for method, pattern in BEHIND_KEY:
            path = pattern.replace("{id}", "job_" + "0" * 26)
            for headers in refused:
                answer = client.request(method, path, headers=headers)
                assert answer.status_code == 401, (method, path, headers)
                told = answer.json()
                if path == openai.PATH:  # in the form that OpenAI's clients read
                    assert told["error"]["code"] == "unauthenticated"
                else:
                    assert told["type"] == "/problems/unauthenticated"
                assert answer.headers["www-authenticate"].startswith("Bearer")
            assert client.request(method, path, auth=basic).status_code == 401


def test_keys_end(api: Running) -> None:
    key, text = api.keys.create("anna", scopes=["read"])
    soon, short = api.keys.create("anna", scopes=["read"], days=1e-9)

    def ask(text: str) -> int:
        return web.get(f"{api.url}/v1/jobs", headers={"X-API-Key": text}).status_code

    assert ask(text) == 200
    assert ask(short) == 401 and soon.expires_at is not None
    api.keys.revoke(key.id)
    assert ask(text) == 401


EITHER_WRITER = "edits:write or concepts:write"
NEEDED = {
    "read": """
        GET /v1/images, GET /v1/images/{id}, GET /v1/images/{id}/file, GET /v1/concepts,
        GET /v1/concepts/{id}, GET /v1/concepts/{id}/weights, GET /v1/edits, GET /v1/edits/{id},
        POST /v1/prompts/read, GET /v1/batches, GET /v1/batches/{id}, GET /v1/presets,
        GET /v1/presets/{name}, GET /v1/jobs, GET /v1/jobs/{id}, GET /v1/jobs/{id}/events,
        GET /v1/jobs/{id}/mask/file, GET /v1/jobs/{id}/webhook, GET /v1/webhooks/deliveries,
        GET /v1/limits""",
    "images:write": """
        POST /v1/images, DELETE /v1/images/{id}, POST /v1/uploads, POST /v1/uploads/{id}/complete
    """,
    "concepts:write": "POST /v1/concepts, POST /v1/concepts/import, DELETE /v1/concepts/{id}",
    "edits:write": """
        POST /v1/edits, POST /v1/images/edits, POST /v1/batches, POST /v1/batches/{id}/cancel,
        DELETE /v1/batches/{id}, PUT /v1/presets/{name}, DELETE /v1/presets/{name}""",
    EITHER_WRITER: "POST /v1/jobs/{id}/cancel, DELETE /v1/jobs/{id}",  # by the kind of the job
    "admin": """
        GET /v1/webhooks/secret, POST /v1/webhooks/secret, GET /v1/keys, POST /v1/keys,
        POST /v1/keys/{id}/revoke""",
}
"""The scope of each operation behind a key."""


def test_scopes(api: Running) -> None:
    """Of all operations of the OpenAPI document: a new one has to be entered above."""
    needed = {
        (operation.split()[0], operation.split()[1]): scope
        for scope, operations in NEEDED.items()
        for operation in operations.split(",")
    }
    assert sorted(needed) == sorted(BEHIND_KEY)
    never = {"images": ids.of_image(b"never"), "concepts": ids.new("con")}
    never |= {"uploads": ids.new("upl"), "batches": ids.new("bat"), "keys": ids.new("key")}
    clients = {scope: api.client("anna", (scope,)) for scope in SCOPES}
    for (method, path), scope in needed.items():
        id_ = never.get(path.split("/")[2], ids.new("job"))
        for held, client in clients.items():
            answer = client.request(method, path.format(id=id_, name="never"))
            allowed = held in (*scope.split(" or "), "admin")
            assert (answer.status_code != 403) == allowed, (method, path, held)
            if allowed:
                continue
            if path == openai.PATH:  # in the form that OpenAI's clients read
                assert answer.json()["error"]["code"] == "forbidden"
            else:
                assert answer.json()["type"] == "/problems/forbidden"
                assert scope in answer.json()["limit"]


def test_cancelling_needs_the_scope_of_the_kind(api: Running, anna: httpx.Client) -> None:
    asked, training = edit(anna)["id"], customize(anna)["id"]
    edits = api.client("anna", ("edits:write",))
    assert edits.post(f"/v1/jobs/{training}/cancel").status_code == 403
    assert edits.delete(f"/v1/jobs/{training}").status_code == 403
    assert edits.post(f"/v1/jobs/{asked}/cancel").status_code == 200
