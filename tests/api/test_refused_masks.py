"""Masks of edits and regions of concepts that cannot be used: told before a job is made."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from PIL import Image
from redis import Redis

from customedit.config.settings import Settings
from customedit.errors import InputError
from customedit.images.masks import read_mask
from customedit.jobs.store import Jobs
from customedit.storage.store import Storage
from customedit.tenants.catalogue import Concepts

from .conftest import Running, customize, finish_concept, upload_mask

EDIT: dict[str, Any] = {"source_prompt": "a cup", "target_prompt": "a red cup"}


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
