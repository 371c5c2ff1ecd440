"""Bad input of every kind: a problem with type, field and limit, and nothing stored half."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from redis import Redis

from customedit.jobs.store import Jobs
from customedit.schemas.patterns import IN_WORDS
from customedit.storage.store import Storage, StorageError
from customedit.tenants.catalogue import Concepts

from .conftest import Running, upload

IMAGE = "img_" + "0" * 64
EDIT: dict[str, Any] = {"image": IMAGE, "source_prompt": "a cup", "target_prompt": "a red cup"}
CONCEPT: dict[str, Any] = {"references": [IMAGE], "noun": "cup"}


def state(storage: Storage, redis_client: Redis, namespace: str) -> list[str]:
    """All keys in both stores but those of keys, rates and what is rung."""
    kept = ("key", "keys", "key-tenants", "rate", "image", "images")
    found = [
        name for name in redis_client.scan_iter(f"{namespace}:*") if name.split(":")[1] not in kept
    ]
    return sorted([*found, *(s.key for s in storage.list("tenants/"))])


BODIES = [
    ("/v1/edits", {**EDIT, "image": "no"}, "image", "img_ and 64 hex digits"),
    ("/v1/edits", {**EDIT, "image": None}, "image", ""),
    ("/v1/edits", {k: v for k, v in EDIT.items() if k != "image"}, "image", "required"),
    ("/v1/edits", {**EDIT, "steps": 0}, "steps", "at least 1"),
    ("/v1/edits", {**EDIT, "steps": 201}, "steps", "at most 200"),
    ("/v1/edits", {**EDIT, "steps": "many"}, "steps", ""),
    ("/v1/edits", {**EDIT, "steps": 1e400}, "steps", ""),
    ("/v1/edits", {**EDIT, "guidance": -1}, "guidance", "at least 0"),
    ("/v1/edits", {**EDIT, "strengths": [2]}, "strengths[0]", "at most 1"),
    ("/v1/edits", {**EDIT, "strengths": []}, "strengths", "at least 1 items"),
    ("/v1/edits", {**EDIT, "strengths": [0.5] * 10}, "strengths", "at most 9 items"),
    ("/v1/edits", {**EDIT, "strengths": [0.5] * 9, "seeds": [1, 2]}, "strengths", "two requests"),
    ("/v1/edits", {**EDIT, "seeds": [-1]}, "seeds[0]", "at least 0"),
    ("/v1/edits", {**EDIT, "source_prompt": " "}, "source_prompt", "in words"),
    ("/v1/edits", {**EDIT, "target_prompt": "x" * 1001}, "target_prompt", "at most 1000"),
    ("/v1/edits", {**EDIT, "target_prompt": ""}, "target_prompt", "at least 1"),
    ("/v1/edits", {**EDIT, "target_prompt": "\ud800"}, "target_prompt", ""),
    ("/v1/edits", {**EDIT, "method": "magic"}, "method", "one of"),
    ("/v1/edits", {**EDIT, "url": "http://127.0.0.1/"}, "url", "no fields but"),
    ("/v1/edits", {**EDIT, "p2p": {"blend_over": "mask"}}, "mask", ""),
    ("/v1/edits", {**EDIT, "p2p": {"words": {"cup": [0, 2]}}}, "p2p.words.cup[1]", "at most 1"),
    ("/v1/edits", {**EDIT, "concepts": [{"id": "x"}]}, "concepts[0].id", "con_ and 26"),
    *(
        ("/v1/edits", {**EDIT, "concepts": [{"id": "con_" + "0" * 26} | place]}, field, limit)
        for place, field, limit in (
            ({"box": [0, 0, 0.5]}, "concepts[0].box[3]", "required"),
            ({"box": [0, 0, 0.5, 1.5]}, "concepts[0].box[3]", "at most 1"),
            ({"box": [0, 0, 0.5, "1"]}, "concepts[0].box[3]", "a number"),
            ({"box": [0.5, 0, 0.5, 1]}, "concepts[0].box", "left below right"),
            ({"box": [0, 0, 1, 1]}, "concepts[0].box", "leave it out"),
            ({"box": [0, 0, 0.5, 1], "mask": IMAGE}, "concepts[0].mask", "one of the two"),
            ({"mask": "mask.png"}, "concepts[0].mask", ""),
        )
    ),
    ("/v1/edits", {**EDIT, "webhook": "ftp://example.com"}, "webhook", ""),
    ("/v1/edits", {**EDIT, "webhook": "http://169.254.169.254/x"}, "webhook", "public"),
    ("/v1/edits", {**EDIT, "webhook": "https://[::1]/x"}, "webhook", "public"),
    ("/v1/edits", {**EDIT, "webhook": "https://a:b@example.com/"}, "webhook", "public"),
    ("/v1/edits", {**EDIT, "webhook": "https://example.com/"}, "webhook", "secret"),
    *(
        ("/v1/edits", {**EDIT, "webhook": f"https://{host}/x"}, "webhook", "public")
        for host in (
            "localhost",
            "localhost.",
            "LOCALHOST",
            "api.localhost.",
            "redis",
            "redis.",
            "valkey.default.svc",
            "x.local",
            "x.internal.",
            "127.0.0.1.",
            "127.1",
            "2130706433",
            "0177.0.0.1",
            "0x7f.0.0.1",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[64:ff9b::7f00:1]",
            "\uff4c\uff4f\uff43alhost",
            "\u2460\u2461\u2466.0.0.1",
            "0",
            "10.1.",
            "[fe80::1]",
        )
    ),
    *(
        ("/v1/edits", {**EDIT, field: value}, told, limit)
        for field, value, told, limit in (
            ("steps", True, "steps", "a number"),
            ("steps", "20", "steps", "a number"),
            ("steps", 20.5, "steps", "a whole number"),
            ("guidance", "7.5", "guidance", "a number"),
            ("feather", False, "feather", "a number"),
            ("strengths", [0.5, "0.5"], "strengths[1]", "a number"),
            ("seeds", [True], "seeds[0]", "a number"),
            ("preserve", 1, "preserve", "true or false"),
            ("maps", "yes", "maps", "true or false"),
            (
                "concepts",
                [{"id": "con_" + "0" * 26, "weight": "1"}],
                "concepts[0].weight",
                "number",
            ),
            ("p2p", {"cross_steps": True}, "p2p.cross_steps", "a number"),
            ("p2p", {"words": {"cup": ["0", 1]}}, "p2p.words.cup[0]", "a number"),
            ("p2p", {"reweight": {"cup": "2"}}, "p2p.reweight.cup", "a number"),
            ("p2p", {"blend_words": ["x" * 101]}, "p2p.blend_words[0]", "at most 100"),
            ("p2p", {"subtract": [""]}, "p2p.subtract[0]", "at least 1"),
            ("webhook", "https://example.com/" + "a" * 2000, "webhook", "at most 2000"),
        )
    ),
    ("/v1/edits", {**EDIT, "preset": "paper", "preserve": 0}, "preserve", "true or false"),
    ("/v1/edits", {**EDIT, "preset": "paper", "inversion": None}, "inversion", "one of"),
    ("/v1/concepts", {**CONCEPT, "training": {"steps": "5"}}, "training.steps", "a number"),
    (
        "/v1/concepts",
        {**CONCEPT, "training": {"augment_crops": 0}},
        "training.augment_crops",
        "true",
    ),
    ("/v1/edits", [], "body", ""),
    ("/v1/edits", "text", "body", ""),
    ("/v1/concepts", {**CONCEPT, "references": []}, "references", "at least 1"),
    ("/v1/concepts", {**CONCEPT, "references": [IMAGE] * 21}, "references", "at most 20"),
    ("/v1/concepts", {**CONCEPT, "noun": "<cup>"}, "noun", "letters, digits, spaces"),
    ("/v1/concepts", {**CONCEPT, "attribute": "<>"}, "attribute", "letters, digits, spaces"),
    ("/v1/concepts", {**CONCEPT, "path": "/etc"}, "path", "no fields but"),
    ("/v1/concepts", {**CONCEPT, "token": "look"}, "token", "such as <look>"),
    ("/v1/concepts", {**CONCEPT, "training": {"steps": 10**6}}, "training.steps", "at most 20000"),
    ("/v1/concepts", {**CONCEPT, "training": {"rate": 0}}, "training.rate", "above 0"),
    ("/v1/uploads", {"media_type": "image/gif"}, "media_type", "one of"),
    ("/v1/uploads", {}, "media_type", "required"),
    ("/v1/uploads", {"media_type": "image/png", "name": 1}, "name", ""),
]


def test_bodies(api: Running, anna: httpx.Client, storage: Storage, redis_client: Redis) -> None:
    upload(anna)
    before = state(storage, redis_client, api.settings.namespace)
    for path, body, field, limit in BODIES:
        answer = anna.post(path, content=_json(body), headers=JSON | {"Idempotency-Key": "one"})
        problem = answer.json()
        assert answer.status_code == 422, (body, problem)
        assert answer.headers["content-type"] == "application/problem+json"
        assert problem["type"] == "/problems/validation", body
        assert problem["field"] == field, (body, problem)
        assert problem["limit"] and limit in problem["limit"], (body, problem)
        assert problem["errors"][0]["field"] == field if problem.get("errors") else True
        assert problem["request_id"] == answer.headers["x-request-id"]
        assert state(storage, redis_client, api.settings.namespace) == before, body


JSON = {"Content-Type": "application/json"}


def _json(body: Any) -> bytes:
    return json.dumps(body).encode()


@pytest.mark.parametrize("place", ["words", "reweight", "blend_words", "field", "path"])
def test_long_words_are_not_repeated(anna: httpx.Client, place: str) -> None:
    word = "x" * 100_000
    p2p = {"words": {word: [0, 1]}, "reweight": {word: 1}, "blend_words": [word]}
    if place == "path":
        answer = anna.get(f"/v1/edits/{word[:20_000]}")
    elif place == "field":
        answer = anna.post("/v1/edits", json={**EDIT, word: 1})
    else:
        answer = anna.post("/v1/edits", json={**EDIT, "p2p": {place: p2p[place]}})
    assert answer.status_code == 422 and len(answer.content) < 3000


@pytest.mark.parametrize(
    ("content", "headers", "status", "slug"),
    [
        (b"{", JSON, 400, "malformed"),
        (b"\xff\xfe{}", JSON, 400, "malformed"),
        (b"[" * 100_000, JSON, 400, "malformed"),
        (b'{"steps": 1' + b"0" * 5000 + b"}", JSON, 400, "malformed"),
        (b"", JSON, 422, "validation"),
        (b"{}", {}, 415, "unsupported-media-type"),
        (b"{}", {"Content-Type": "text/plain"}, 415, "unsupported-media-type"),
        (b" " * 300_000, JSON, 413, "too-large"),
    ],
)
def test_bodies_that_cannot_be_read(
    anna: httpx.Client, content: bytes, headers: dict[str, str], status: int, slug: str
) -> None:
    for path in ("/v1/edits", "/v1/concepts", "/v1/uploads"):
        answer = anna.post(path, content=content, headers=headers)
        assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{slug}")
        assert answer.headers["content-type"] == "application/problem+json"


def patterns(part: Any) -> Iterator[str]:
    """Every pattern in a part of the OpenAPI document."""
    inside = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    if isinstance(part, dict) and isinstance(part.get("pattern"), str):
        yield part["pattern"]
    for entry in inside:
        yield from patterns(entry)


def test_patterns_are_told_in_words(anna: httpx.Client) -> None:
    written = set(patterns(anna.get("/openapi.json").json())) - {r"\S"}  # that: "is empty"
    assert written == set(IN_WORDS)


def test_parameters(anna: httpx.Client) -> None:
    upload(anna)
    job = "job_" + "0" * 26
    wrong = [
        ("GET", "/v1/jobs?limit=0", "limit"),
        ("GET", "/v1/jobs?limit=101", "limit"),
        ("GET", "/v1/jobs?limit=x", "limit"),
        ("GET", "/v1/jobs?kind=x", "kind"),
        ("GET", "/v1/jobs?state=done", "state"),
        ("GET", "/v1/jobs?concept=x", "concept"),
        ("GET", "/v1/jobs?cursor=%00", "cursor"),
        ("GET", "/v1/images?cursor=" + "a" * 300, "cursor"),
        ("GET", "/v1/concepts?cursor=(", "cursor"),
        ("GET", "/v1/edits?limit=-1", "limit"),
        ("GET", "/v1/edits?state=x", "state"),
        ("GET", "/v1/jobs/job_x", "id"),
        ("GET", "/v1/jobs/" + job + "%0a", "id"),
        ("GET", "/v1/jobs/..%2f..", None),
        ("DELETE", "/v1/jobs/1", "id"),
        ("POST", "/v1/jobs/1/cancel", "id"),
        ("GET", "/v1/jobs/1/events", "id"),
        ("GET", "/v1/edits/1", "id"),
        ("GET", "/v1/images/1", "id"),
        ("DELETE", "/v1/images/IMG_" + "0" * 64, "id"),
        ("GET", "/v1/concepts/1", "id"),
        ("DELETE", "/v1/concepts/1", "id"),
        ("GET", "/v1/concepts/1/weights", "id"),
        ("GET", "/v1/concepts/con_" + "0" * 26 + "/weights?format=pickle", "format"),
        ("POST", "/v1/uploads/1/complete", "id"),
    ]
    for method, path, field in wrong:
        answer = anna.request(method, path)
        if field is None:
            assert answer.status_code == 404
            continue
        problem = answer.json()
        assert (answer.status_code, problem["field"]) == (422, field), (path, problem)
        assert problem["limit"] and problem["type"] == "/problems/validation"
    for key in (b"a b", b"", b"x" * 256, "é".encode()):
        answer = anna.post("/v1/edits", json=EDIT, headers={b"Idempotency-Key": key})
        assert (answer.status_code, answer.json()["field"]) == (422, "Idempotency-Key"), key


@pytest.mark.parametrize(
    ("data", "form", "field"),
    [
        (b"x" * 100, {}, "file"),
        (b"", {}, "file"),
        (b"12345678{", {}, "file"),
        (b"12345678{" + b" " * 50, {"token": "look"}, "token"),
        (b"12345678{" + b" " * 50, {"noun": "<>"}, "noun"),
        (b"12345678{" + b" " * 50, {"allow_unused": "yes"}, "allow_unused"),
        (b"12345678{" + b" " * 50, {"bytes": "1"}, "bytes"),
        (b"12345678{" + b" " * 50, {"file": "../../x"}, "file"),
        (b"12345678{" + b" " * 50, {"path": "/etc/passwd"}, "path"),
    ],
)
def test_imports_that_are_refused(
    anna: httpx.Client, storage: Storage, data: bytes, form: dict[str, str], field: str
) -> None:
    answer = anna.post("/v1/concepts/import", files={"file": ("c.bin", data)}, data=form)
    problem = answer.json()
    assert (answer.status_code, problem["field"]) == (422, field)
    assert problem["limit"]
    assert not list(storage.list("tenants/")) and not anna.get("/v1/jobs").json()["items"]
    assert not anna.get("/v1/concepts").json()["items"]


def test_a_store_that_is_away_is_told_and_leaves_nothing(
    api: Running, anna: httpx.Client, storage: Storage, jobs: Jobs, concepts: Concepts,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    image = upload(anna)

    def away(*_: object, **__: object) -> None:
        raise StorageError("http://secret-host:1/: away", transient=True)

    with monkeypatch.context() as patch:
        patch.setattr(api.container.storage, "put", away)
        body = {"references": [image], "noun": "cup"}
        key = {"Idempotency-Key": "one"}
        answer = anna.post("/v1/concepts", json=body, headers=key)
        assert answer.status_code == 503 and answer.headers["retry-after"]
        assert answer.json()["type"] == "/problems/unavailable"
        assert "secret-host" not in answer.text
    assert not anna.get("/v1/jobs").json()["items"]
    assert not anna.get("/v1/concepts").json()["items"]
    again = anna.post("/v1/concepts", json=body, headers=key)
    assert again.status_code == 202
