"""Bad input of every kind: a problem with type, field and limit, and nothing stored half."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from PIL import Image
from redis import Redis

from customedit import mini
from customedit.config.settings import Settings
from customedit.diffusion.facts import BaseFacts
from customedit.errors import InputError
from customedit.images.masks import read_mask
from customedit.jobs.bases import Bases
from customedit.jobs.records import ConceptRecord
from customedit.jobs.store import Jobs
from customedit.mini.text import load_tokenizer
from customedit.schemas import ids
from customedit.schemas.patterns import IN_WORDS
from customedit.storage.store import Storage, StorageError
from customedit.tenants.catalogue import Concepts

from .conftest import Running, customize, finish_concept, upload, upload_mask

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
    ("/v1/uploads", {"media_type": "image/png", "name": "\ud800"}, "name", ""),
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
    import json

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


@pytest.mark.parametrize("method", [{}, {"method": "p2p"}])
def test_several_seeds_have_no_effect_on_p2p(anna: httpx.Client, method: dict[str, str]) -> None:
    asked = {**EDIT, "image": upload(anna), **method}
    problem = anna.post("/v1/edits", json={**asked, "seeds": [1, 2]}).json()
    assert (problem["status"], problem["field"]) == (422, "seeds")
    assert "are 2" in problem["detail"] and problem["limit"] == "give one seed, or use sdedit"
    assert anna.post("/v1/edits", json={**asked, "seeds": [1]}).status_code == 202
    drawn = {**asked, "method": "sdedit", "seeds": [1, 2]}
    assert anna.post("/v1/edits", json=drawn).status_code == 202


@pytest.mark.parametrize("path", ["/v1/edits", "/v1/edits?dry_run=true"])
@pytest.mark.parametrize("method", ["p2p", "masactrl"])
def test_a_union_without_words_of_the_target_is_refused_before_a_job_is_made(
    anna: httpx.Client, path: str, method: str
) -> None:
    asked = {**EDIT, "image": upload(anna), "target_prompt": "a jug", "method": method}
    union = {"blend_over": "union"}
    problem = anna.post(path, json={**asked, method: union}).json()
    assert (problem["status"], problem["field"]) == (422, f"{method}.blend_target_words")
    assert "none of the blend words (cup)" in problem["detail"]
    assert problem["limit"] == "name the target's words"
    named = union | {"blend_target_words": ["jug"]}
    assert anna.post(path, json={**asked, method: named}).is_success
    assert len(anna.get("/v1/jobs").json()["items"]) == ("dry_run" not in path)


def test_a_mask_of_another_aspect_is_refused_before_a_job_is_made(anna: httpx.Client) -> None:
    asked = {**EDIT, "image": upload_mask(anna, (96, 64))}
    problem = anna.post("/v1/edits", json={**asked, "mask": upload_mask(anna, (64, 64))}).json()
    assert (problem["status"], problem["field"]) == (422, "mask")
    assert "is 64 x 64 pixels" in problem["detail"] and "the picture 96 x 64" in problem["detail"]
    assert problem["limit"] == "give a mask of the picture's aspect; 1 % off is allowed"
    assert not anna.get("/v1/jobs").json()["items"]


@pytest.mark.parametrize("size", [(96, 64), (48, 32), (290, 192)], ids=str)
def test_a_mask_of_the_pictures_aspect_is_taken(anna: httpx.Client, size: tuple[int, int]) -> None:
    asked = {**EDIT, "image": upload_mask(anna, (96, 64)), "mask": upload_mask(anna, size)}
    assert anna.post("/v1/edits", json=asked).status_code == 202


@pytest.mark.parametrize("earlier", ["image", "mask"])
def test_a_mask_that_fits_turned_is_left_to_the_worker_for_records_of_earlier_versions(
    api: Running, anna: httpx.Client, redis_client: Redis, earlier: str
) -> None:
    """Those have the sides as they are in the file, which its EXIF may turn."""
    asked = {**EDIT, "image": upload_mask(anna, (96, 64)), "mask": upload_mask(anna, (64, 96))}
    refused = anna.post("/v1/edits", json=asked)
    assert (refused.status_code, refused.json()["field"]) == (422, "mask")
    assert "is it turned?" in refused.json()["detail"]
    name = f"{api.settings.namespace}:image:anna:{asked[earlier]}"
    record = json.loads(str(redis_client.hget(name, "record")))
    assert record.pop("upright") is True
    redis_client.hset(name, "record", json.dumps(record))
    api.container.image_sides.read("anna", asked[earlier])  # else remembered for a minute
    assert anna.post("/v1/edits", json=asked).status_code == 202


def test_regions_of_concepts_are_refused_before_a_job_is_made(
    anna: httpx.Client, jobs: Jobs, concepts: Concepts, storage: Storage
) -> None:
    """What the worker would say, and what only the front end can know."""
    made = customize(anna, token="<a>")
    ready = finish_concept(jobs, concepts, storage, made["id"])
    before = len(anna.get("/v1/jobs").json()["items"])
    picture = upload_mask(anna, (96, 64))

    def refused(place: dict[str, Any], **more: Any) -> tuple[str, str]:
        asked = {**EDIT, "image": picture, "target_prompt": "a <a> cup", **more}
        uses = [{"id": ready.id} | place]
        answer = anna.post("/v1/edits", json={**asked, "concepts": uses})
        assert answer.status_code in (409, 422), answer.text
        return answer.json()["field"], answer.json()["detail"]

    box = {"box": [0, 0, 0.5, 1]}
    field, detail = refused(box, everywhere=True)
    assert field == "concepts[0].box" and "contradicts everywhere" in detail
    field, detail = refused(box, source_prompt="a <a> cup", target_prompt="a red cup")
    assert field == "concepts[0].id" or "does not name <a>" in detail
    field, detail = refused({"mask": upload_mask(anna, (64, 64))})
    assert field == "concepts[0].mask" and "is 64 x 64 pixels" in detail
    field, detail = refused({"mask": "img_" + "1" * 64})
    assert field == "concepts[0].mask"
    stream = io.BytesIO()
    MASKS["empty"].save(stream, "PNG")
    answer = anna.post("/v1/images", files={"file": ("a.png", stream.getvalue(), "image/png")})
    field, detail = refused({"mask": answer.json()["id"]})
    assert field == "concepts[0].mask" and "black everywhere" in detail
    batch = {k: v for k, v in EDIT.items() if k != "image"} | {"images": [picture]}
    uses = [{"id": ready.id, "mask": picture}]
    answer = anna.post("/v1/batches", json={**batch, "concepts": uses})
    assert (answer.status_code, answer.json()["field"]) == (422, "concepts[0].mask")
    assert len(anna.get("/v1/jobs").json()["items"]) == before


def small(size: tuple[int, int], dots: int) -> Image.Image:
    picture = Image.new("L", size)
    for k in range(dots):
        picture.putpixel((k, 0), 255)
    return picture


def coloured(size: tuple[int, int], colours: list[str]) -> Image.Image:
    picture = Image.new("RGB", size)
    for k, colour in enumerate(colours):
        picture.paste(colour, (20 * k, 0, 20 * k + 20, size[1]))
    return picture


MASKS = {
    "empty": Image.new("L", (96, 64)),
    "grey": Image.new("L", (96, 64), 90),
    "full": Image.new("L", (96, 64), 255),
    "transparent": Image.new("RGBA", (96, 64)),
    "too small": small((96, 64), 1),
    "labels": Image.linear_gradient("L").resize((96, 64)).point(lambda level: level // 50),
    "colours": coloured((96, 64), ["red", "blue"]),
}


@pytest.mark.parametrize("kind", MASKS)
def test_a_mask_without_effect_is_refused_as_by_the_worker(anna: httpx.Client, kind: str) -> None:
    stream = io.BytesIO()
    MASKS[kind].save(stream, "PNG")
    with pytest.raises(InputError) as by_worker:
        read_mask(stream.getvalue(), (96, 64))
    answer = anna.post("/v1/images", files={"file": ("a.png", stream.getvalue(), "image/png")})
    asked = {**EDIT, "image": upload_mask(anna, (96, 64)), "mask": answer.json()["id"]}
    answer = anna.post("/v1/edits", json=asked)
    problem = answer.json()
    assert (answer.status_code, problem["type"]) == (422, "/problems/validation")
    assert (problem["field"], problem["limit"]) == ("mask", by_worker.value.remedy)
    assert by_worker.value.problem in problem["detail"]
    assert not anna.get("/v1/jobs").json()["items"]


def test_a_mask_too_large_to_be_read_here_is_left_to_the_worker(
    start: Callable[..., Running], settings: Settings
) -> None:
    client = start(settings, decode_memory_bytes=64 * 2**20).client()
    empty = Image.new("L", (3000, 2400))
    stream = io.BytesIO()
    empty.save(stream, "PNG")
    answer = client.post("/v1/images", files={"file": ("a.png", stream.getvalue(), "image/png")})
    mask = str(answer.json()["id"])
    asked = {**EDIT, "image": upload_mask(client, (30, 24)), "mask": mask}
    assert client.post("/v1/edits", json=asked).status_code == 202


@pytest.mark.parametrize(
    ("named", "status"), [("today", 202), ("earlier", 202), ("another", 422), ("", 202)]
)
def test_a_concept_of_another_base(
    api: Running, anna: httpx.Client, concepts: Concepts, storage: Storage, redis_client: Redis,
    named: str, status: int,
) -> None:  # fmt: skip
    facts = BaseFacts.of(
        [load_tokenizer(mini.path() / "tokenizer")], "f1",
        name="mini", concept_fingerprints=("today", "earlier"),
    )  # fmt: skip
    Bases(redis_client, api.settings, storage).publish(facts)
    record = ConceptRecord(
        id=ids.new("con"), tenant="anna", job=ids.new("job"), token="<a>", state="ready",
        created_at=1, base=named, columns={"<a>": 1},
    )  # fmt: skip
    concepts.put(record)
    asked = {**EDIT, "image": upload(anna), "target_prompt": "a <a> cup"}
    answer = anna.post("/v1/edits", json={**asked, "concepts": [{"id": record.id}]})
    assert answer.status_code == status, answer.text
    if status == 422:
        assert answer.json()["field"] == "concepts[0].id"
        assert "was made for the base another, this is today (mini)" in answer.json()["detail"]


class TestLengthOfPrompts:
    """Counted by the facts of the base that a worker published."""

    PROMPT = " ".join(["cup"] * 40)
    LIMIT = "shorten it by 2 tokens or more"

    @pytest.fixture
    def base(self, api: Running, storage: Storage, redis_client: Redis) -> BaseFacts:
        facts = BaseFacts.of([load_tokenizer(mini.path() / "tokenizer")], "f1")
        Bases(redis_client, api.settings, storage).publish(facts)
        return facts

    @pytest.mark.parametrize("field", ["source_prompt", "target_prompt"])
    def test_too_many_tokens(self, base: BaseFacts, anna: httpx.Client, field: str) -> None:
        asked = {**EDIT, "image": upload(anna), "method": "sdedit", field: self.PROMPT}
        answer = anna.post("/v1/edits", json=asked)
        assert answer.status_code == 422, answer.text
        problem = answer.json()
        assert (problem["field"], problem["limit"]) == (field, self.LIMIT)
        assert "takes 42 tokens with start and end, the model reads 40" in problem["detail"]
        assert not anna.get("/v1/jobs").json()["items"]
        fits = {**asked, field: " ".join(["cup"] * 38)}
        assert anna.post("/v1/edits", json=fits).status_code == 202

    def test_a_token_counts_with_all_its_vectors(
        self, base: BaseFacts, anna: httpx.Client, concepts: Concepts
    ) -> None:
        record = ConceptRecord(
            id=ids.new("con"), tenant="anna", job=ids.new("job"), token="<a>", state="ready",
            created_at=1, columns={"<a>": 30, "<b>": 2},
        )  # fmt: skip
        concepts.put(record)
        asked = {**EDIT, "image": upload(anna), "concepts": [{"id": record.id}]}
        asked["method"] = "sdedit"
        for count, status in ((8, 202), (9, 422)):
            prompt = " ".join(["<a>", *["cup"] * count])
            answer = anna.post("/v1/edits", json={**asked, "target_prompt": prompt})
            assert answer.status_code == status, answer.text
        two = anna.post("/v1/edits", json={**asked, "target_prompt": "a <b> cup"})
        assert two.status_code == 202, two.text

    @pytest.mark.parametrize(
        ("noun", "attribute", "field"), [(18, 16, "noun"), (5, 30, "attribute")]
    )
    def test_words_of_a_concept(
        self, base: BaseFacts, anna: httpx.Client, noun: int, attribute: int, field: str
    ) -> None:
        words = {"noun": " ".join(["cup"] * noun), "attribute": " ".join(["red"] * attribute)}
        asked = {"references": [upload(anna)], **words}
        problem = anna.post("/v1/concepts", json=asked).json()
        assert (problem["status"], problem["field"]) == (422, field)
        form = {"file": ("a.safetensors", (8).to_bytes(8, "little") + b"{}      ")}
        imported = anna.post("/v1/concepts/import", files=form, data=words).json()
        assert (imported["status"], imported["field"]) == (422, field)
        assert not anna.get("/v1/jobs").json()["items"]

    def test_without_a_known_base_the_worker_checks(self, anna: httpx.Client) -> None:
        asked = {**EDIT, "image": upload(anna), "target_prompt": self.PROMPT, "method": "sdedit"}
        assert anna.post("/v1/edits", json=asked).status_code == 202


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
