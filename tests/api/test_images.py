"""Images over HTTP: uploads in forms and straight to the store, and what is refused."""

from __future__ import annotations

import io
import os
import signal
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from redis import Redis

from customedit.config.settings import Settings
from customedit.jobs.maintenance import UPLOAD_GRACE_S
from customedit.jobs.store import Jobs
from customedit.schemas import ids
from customedit.schemas.file_names import MAX_FILE_NAME, file_name
from customedit.storage.store import Storage
from customedit.tenants.catalogue import Concepts

from .. import web
from .conftest import (
    Running,
    customize,
    edit,
    finish_concept,
    png,
    upload,
    upload_mask,
    wait_for,
)


def files(storage: Storage) -> list[str]:
    return [stored.key for stored in storage.list("tenants/")]


def test_the_same_file_twice_is_one_image(anna: httpx.Client, storage: Storage) -> None:
    data = png("green", (40, 30))
    first = anna.post("/v1/images", files={"file": ("a.png", data, "image/png")})
    again = anna.post("/v1/images", files={"file": ("b.png", data, "text/plain")})
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"] == ids.of_image(data)
    assert first.json()["width"], first.json()["height"] == (40, 30)
    assert first.json()["media_type"] == "image/png"
    assert first.headers["location"] == f"/v1/images/{ids.of_image(data)}"
    assert web.get(first.json()["url"]).content == data
    folder = f"tenants/anna/images/{ids.of_image(data)}/"
    assert sorted(key.rpartition("/")[2] for key in files(storage)) == ["image.json", "picture"]
    assert all(key.startswith(folder) for key in files(storage))


def sent_as(client: httpx.Client, name: str, data: bytes) -> dict[str, Any]:
    answer = client.post("/v1/images", files={"file": (name, data, "image/png")})
    assert answer.status_code in (200, 201), answer.text
    return dict(answer.json())


def test_an_image_keeps_the_name_that_its_file_was_first_sent_with(anna: httpx.Client) -> None:
    image = sent_as(anna, "cup of tea.png", png("green"))
    assert image["name"] == "cup of tea.png"
    again = sent_as(anna, "other.png", png("green"))
    assert (again["id"], again["name"]) == (image["id"], "cup of tea.png")
    assert anna.get(f"/v1/images/{image['id']}").json()["name"] == "cup of tea.png"
    assert anna.get("/v1/images").json()["items"][0]["name"] == "cup of tea.png"
    anna.delete(f"/v1/images/{image['id']}")
    assert sent_as(anna, "other.png", png("green"))["name"] == "other.png"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        (r"C:\Users\anna\cup.png", "cup.png"),
        ("a\r\nSet-Cookie: b=c.png", "a Set-Cookie: b=c.png"),
        ("\x1b[31mred\x07.png", "[31mred.png"),
        ("cup\u202egnp.exe", "cupgnp.exe"),
        ("Tasse grün 茶碗.png", "Tasse grün 茶碗.png"),
        ("folder/", ""),
        ("x" * 300 + ".png", "x" * 200),
        (None, ""),
    ],
)
def test_names_of_files_are_for_people_alone(given: str | None, kept: str) -> None:
    assert file_name(given) == kept


@given(st.text(max_size=400))
def test_a_name_that_is_kept_is_short_and_shows_all_that_it_has(given: str) -> None:
    kept = file_name(given)
    assert len(kept) <= MAX_FILE_NAME and kept == file_name(kept)
    assert not {"/", "\\"} & set(kept)
    assert all(not unicodedata.category(c).startswith("C") for c in kept)


def test_an_evil_name_changes_no_header_and_no_path(anna: httpx.Client, storage: Storage) -> None:
    image = sent_as(anna, '..\\..\\"><img src=x>\u202e.png', png("green"))
    assert not any(c in image["name"] for c in "/\\\u202e\r\n")
    assert all(key.startswith(f"tenants/anna/images/{image['id']}/") for key in files(storage))
    answer = anna.get(f"/v1/images/{image['id']}/file")
    assert "img src" not in str(answer.headers) and "img%20src" not in image["url"]


def test_deleted_means_gone(anna: httpx.Client, storage: Storage) -> None:
    image = upload(anna)
    url = anna.get(f"/v1/images/{image}").json()["url"]
    assert anna.delete(f"/v1/images/{image}").status_code == 204
    assert anna.get(f"/v1/images/{image}").status_code == 404
    assert anna.delete(f"/v1/images/{image}").status_code == 404
    assert web.get(url).status_code == 404
    assert files(storage) == []


def test_an_image_that_a_job_needs_stays(anna: httpx.Client, jobs: Jobs) -> None:
    job = edit(anna)
    image = job["request"]["image"]
    refused = anna.delete(f"/v1/images/{image}")
    assert refused.status_code == 409
    assert refused.json()["type"] == "/problems/in-use"
    assert job["id"] in refused.json()["detail"]
    jobs.cancel("anna", job["id"])
    assert anna.delete(f"/v1/images/{image}").status_code == 204


def test_an_image_that_is_deleted_within_a_minute_makes_no_job(
    anna: httpx.Client, storage: Storage, jobs: Jobs, concepts: Concepts
) -> None:
    """Its sides are remembered; the script that makes jobs knows that it is gone."""
    ready = finish_concept(jobs, concepts, storage, customize(anna, token="<a>")["id"])
    image, mask = upload(anna, "navy"), upload_mask(anna)
    fields = {"image": image, "source_prompt": "a cup", "target_prompt": "a <a> cup"}
    uses = [{"id": ready.id, "mask": mask}]
    made = anna.post("/v1/edits", json={**fields, "concepts": uses}).json()
    anna.post(f"/v1/jobs/{made['id']}/cancel")
    anna.delete(f"/v1/jobs/{made['id']}")
    before = files(storage)
    red = {"source_prompt": "a cup", "target_prompt": "a red cup"}
    assert anna.delete(f"/v1/images/{mask}").status_code == 204
    gone = anna.post("/v1/edits", json={**fields, "concepts": uses})
    assert (gone.status_code, gone.json()["field"]) == (409, "concepts[0].mask")
    assert anna.delete(f"/v1/images/{image}").status_code == 204
    for path, body in (
        ("/v1/edits", {"image": image, **red}),
        ("/v1/edits?dry_run=true", {"image": image, **red}),
        ("/v1/batches", {"images": [upload(anna), image], **red}),
    ):
        gone = anna.post(path, json=body)
        assert (gone.status_code, gone.json()["field"]) == (409, "image"), path
        assert gone.json()["type"] == "/problems/unknown-image" and image in gone.json()["detail"]
    assert not anna.get("/v1/jobs", params={"kind": "edit"}).json()["items"]
    assert {key for key in files(storage) if "/jobs/" in key} == {
        key for key in before if "/jobs/" in key
    }


def bomb() -> bytes:
    """A small PNG whose header says 50 000 x 50 000."""
    data = bytearray(png())
    data[16:24] = (50_000).to_bytes(4, "big") * 2
    return bytes(data)


def gif() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (32, 32)).save(stream, "GIF")
    return stream.getvalue()


@pytest.mark.parametrize(
    "data", [b"", b"hello", gif(), png()[:60], bomb(), png(size=(8, 8))],
    ids=["empty", "text", "gif", "cut", "bomb", "tiny"],
)  # fmt: skip
def test_what_is_no_usable_picture_leaves_nothing(
    anna: httpx.Client, storage: Storage, data: bytes
) -> None:
    answer = anna.post("/v1/images", files={"file": ("a.png", data, "image/png")})
    assert answer.status_code == 422
    problem = answer.json()
    assert problem["type"] == "/problems/unusable-image"
    assert problem["field"] == "file" and "pixels" in problem["limit"]
    assert files(storage) == [] and anna.get("/v1/images").json()["items"] == []


def test_what_of_a_file_is_missing_is_told(anna: httpx.Client) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(stream, "JPEG")
    answer = anna.post("/v1/images", files={"file": ("a.jpg", stream.getvalue()[:-2])})
    assert answer.status_code == 201
    assert answer.json()["warnings"] == ["The file ends without its end mark."]
    assert anna.get(answer.headers["location"]).json()["warnings"] == answer.json()["warnings"]
    assert anna.get(f"/v1/images/{upload(anna)}").json()["warnings"] == []


def scan_bomb(scans: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    stream = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(stream, "JPEG", progressive=True)
    whole = stream.getvalue()
    return whole[:-2] + whole[whole.rindex(b"\xff\xda") : -2] * scans + b"\xff\xd9"


def test_scan_bombs_are_refused_with_the_limit(anna: httpx.Client, storage: Storage) -> None:
    bombs = [scan_bomb(5000) + bytes(n) for n in range(3)]
    with ThreadPoolExecutor(3) as threads:
        answers = list(
            threads.map(lambda data: anna.post("/v1/images", files={"file": ("a", data)}), bombs)
        )
    for answer in answers:
        assert answer.status_code == 422
        assert answer.json()["type"] == "/problems/unusable-image"
        assert "more than 100 scans, the limit" in answer.json()["detail"]
    assert files(storage) == []


def test_a_decoder_that_hangs_is_no_ones_loss_but_the_files(
    start: Callable[..., Running], settings: Settings
) -> None:
    api: Running = start(settings, decoders=2, decode_seconds=60)
    anna, bert = api.client("anna"), api.client("bert")
    with ThreadPoolExecutor(20) as threads:
        list(threads.map(upload, (anna, bert), ("red", "green")))  # starts decoders
        pool = api.container.decoders
        hung = pool._idle[-1]._process.pid  # the one that is taken next
        os.kill(hung, signal.SIGSTOP)
        calls = [
            threads.submit(anna.post, "/v1/images", files={"file": ("a", png("blue") + bytes(n))})
            for n in range(18)
        ]
        wait_for(lambda: any(call.done() for call in calls))
        (refused,) = (call.result() for call in calls if call.done())
        assert refused.status_code == 429 and int(refused.headers["Retry-After"]) > 0
        assert refused.json()["type"] == "/problems/rate-limited"
        assert refused.json()["limit"] == "16 files that wait"
        upload(bert, "white")  # another tenant's files are checked meanwhile
        os.kill(hung, signal.SIGCONT)
        assert {call.result().status_code for call in calls} == {201, 429}
        assert sum(call.result().status_code == 429 for call in calls) == 1


def test_a_check_over_its_deadline_is_refused(
    start: Callable[..., Running], settings: Settings, storage: Storage
) -> None:
    api: Running = start(settings, decoders=2, decode_seconds=0.001)
    answer = api.client().post("/v1/images", files={"file": ("a", png())})
    assert answer.status_code == 422
    assert "takes more than 0.001 s to decode, the limit" in answer.json()["detail"]
    assert files(storage) == []


def test_an_upload_over_the_limit_is_refused_before_it_is_read(
    start: Callable[..., Running], settings: Settings, storage: Storage
) -> None:
    api: Running = start(settings, max_upload_bytes=100_000)
    anna = api.client()
    answer = anna.post("/v1/images", files={"file": ("a.png", b"x" * 5_000_000)})
    assert answer.status_code == 413
    assert answer.json()["type"] == "/problems/too-large"
    assert answer.json()["field"] == "body" and "bytes" in answer.json()["limit"]
    just_over = anna.post("/v1/images", files={"file": ("a.png", b"x" * 100_001)})
    assert just_over.status_code == 422
    assert "100000" in just_over.json()["limit"]
    assert files(storage) == []


def test_a_chunked_body_is_stopped_at_the_limit(
    start: Callable[..., Running], settings: Settings
) -> None:
    anna = start(settings, max_upload_bytes=100_000).client()

    def endless() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(100):
            yield b"x" * 50_000

    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = anna.post("/v1/images", content=endless(), headers=kind)
    assert answer.status_code == 413
    assert answer.json()["type"] == "/problems/too-large"
    assert answer.json()["limit"].startswith("at most")


@pytest.mark.parametrize(
    ("given", "status", "slug"),
    [
        ({"json": {"file": "x"}}, 415, "unsupported-media-type"),
        (
            {"content": b"x", "headers": {"Content-Type": "image/png"}},
            415,
            "unsupported-media-type",
        ),
        ({"files": {"picture": png()}}, 422, "validation"),
        ({"files": {"file": (None, "text")}}, 422, "validation"),
        ({"files": [("file", png()), ("file", png())]}, 422, "validation"),
        (
            {"content": b"junk", "headers": {"Content-Type": "multipart/form-data"}},
            400,
            "malformed",
        ),
    ],
)
def test_forms_that_are_none(
    anna: httpx.Client, given: dict[str, Any], status: int, slug: str
) -> None:
    answer = anna.post("/v1/images", **given)
    assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{slug}")


def send(form: dict[str, Any], data: bytes) -> httpx.Response:
    return web.post(form["url"], data=form["fields"], files={"file": ("x", data)})


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({}, ""),
        ({"name": "cup of tea.png"}, "cup of tea.png"),
        ({"name": "C:\\Users\\anna\\cup\u202e.png"}, "cup.png"),
        ({"name": "茶" * 300}, "茶" * MAX_FILE_NAME),
    ],
    ids=["none", "plain", "path", "long"],
)
def test_what_goes_straight_to_the_store_has_a_name_by_the_rule_of_forms(
    anna: httpx.Client, given: dict[str, str], kept: str
) -> None:
    data, asked = png("blue"), {"media_type": "image/png"} | given
    form = anna.post("/v1/uploads", json=asked).json()
    assert send(form, data).is_success
    image = anna.post(f"/v1/uploads/{form['id']}/complete").json()
    assert image["name"] == kept == file_name(given.get("name"))
    assert anna.get(f"/v1/images/{image['id']}").json()["name"] == kept
    again = anna.post("/v1/uploads", json=asked | {"name": "other.png"}).json()
    assert send(again, data).is_success
    assert anna.post(f"/v1/uploads/{again['id']}/complete").json()["name"] == kept


def test_names_of_uploads_are_their_tenants_and_go_with_them(
    api: Running, anna: httpx.Client, redis_client: Redis
) -> None:
    asked = {"media_type": "image/png", "name": "cup.png"}
    id_ = anna.post("/v1/uploads", json=asked).json()["id"]
    jobs = api.container.jobs
    assert (jobs.upload_name("anna", id_), jobs.upload_name("bert", id_)) == ("cup.png", "")
    name = f"{api.settings.namespace}:upload-name:anna:{id_}"
    assert 0 < int(redis_client.ttl(name)) <= api.settings.presign_seconds + UPLOAD_GRACE_S


def test_straight_to_the_store(anna: httpx.Client, storage: Storage) -> None:
    form = anna.post("/v1/uploads", json={"media_type": "image/png"}).json()
    early = anna.post(f"/v1/uploads/{form['id']}/complete")
    assert early.status_code == 404
    data = png("blue")
    assert send(form, data).is_success
    done = anna.post(f"/v1/uploads/{form['id']}/complete")
    assert done.status_code == 201 and done.json()["id"] == ids.of_image(data)
    assert not [key for key in files(storage) if "/uploads/" in key]
    assert anna.post(f"/v1/uploads/{form['id']}/complete").status_code == 404


def test_what_was_sent_to_the_store_is_checked(anna: httpx.Client, storage: Storage) -> None:
    form = anna.post("/v1/uploads", json={"media_type": "image/png"}).json()
    assert send(form, b"no picture").is_success
    answer = anna.post(f"/v1/uploads/{form['id']}/complete")
    assert answer.status_code == 422 and answer.json()["type"] == "/problems/unusable-image"
    assert files(storage) == []


def test_pages_hold_while_images_come_and_go(anna: httpx.Client) -> None:
    ours = [upload(anna, f"#0000{n:02x}") for n in range(7)]
    seen, cursor = [], None
    while True:
        params = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        page = anna.get("/v1/images", params=params).json()
        seen += [item["id"] for item in page["items"]]
        upload(anna, f"#00{len(seen):02x}00")  # newer ones do not shift the pages
        if (cursor := page["next_cursor"]) is None:
            break
    assert seen == ours[::-1]
