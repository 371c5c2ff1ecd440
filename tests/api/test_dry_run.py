"""Dry runs, and what jobs say of their time: nothing is stored, and workers are named or missed."""

from __future__ import annotations

import io
from typing import Any

import httpx
import pytest
from PIL import ExifTags, Image
from redis import Redis

from customedit.diffusion.profile import Sizes
from customedit.estimates import forecasts, speed, workers
from customedit.estimates.speed import Line
from customedit.estimates.workers import WorkerBase, WorkerReport, Workers
from customedit.jobs.store import Jobs
from customedit.storage.store import Storage
from customedit.tenants.catalogue import Concepts

from .conftest import Running, claimed, customize, edit, finish_concept, upload, upload_mask

BASE = WorkerBase(
    name="mini", fingerprint="f", architecture="Mini", device="cpu", dtype="float32", guidance=4.0,
    sizes=Sizes(side=128, multiple=16, factor=8), rows=24, cells=8192,
    training={
        "custom-diffusion": {
            "way": "custom-diffusion", "steps": 250, "rate": 2e-4, "batch": 2, "class_images": 16,
            "class_steps": 20, "crops": 4, "preview_every": 0,
        }
    },
)  # fmt: skip


def line(slope: float, start: float = 0.0) -> Line:
    made = Line()
    for amount in (1, 2):
        made.add(amount, start + slope * amount, 1.0)
    return made


REPORT = WorkerReport(
    name="w", kinds=("edit", "customize"), slots=2, base=BASE,
    speed={speed.call(336): line(0.01), speed.call(256): line(0.01), "edit": line(0.5)},
)  # fmt: skip
"""0.01 s a row of a call, and half a second a picture beside that."""


@pytest.fixture
def worker(api: Running, redis_client: Redis) -> Workers:
    """A worker that lives."""
    alive = Workers(redis_client, api.settings)
    alive.beat(REPORT)
    return alive


def tried(client: httpx.Client, **more: Any) -> dict[str, Any]:
    fields = {"image": upload(client), "source_prompt": "a cup", "target_prompt": "a blue cup"}
    answer = client.post("/v1/edits", params={"dry_run": True}, json=fields | more)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_an_edit_is_planned_and_not_stored(
    anna: httpx.Client, storage: Storage, worker: Workers
) -> None:
    told = tried(anna, steps=20, change=0.25)
    plan = told["plan"]
    assert (plan["guidance"], plan["inversion"], plan["steps"]) == (4.0, "direct", 20)
    assert plan["pictures"] == [{"strength": 0.75, "start": 0.5, "change": 0.25, "seed": 0}]
    assert plan["settings"]["blend_over"] == "source" and plan["preserve"] is True
    assert plan["region_words"] == ["cup"]
    assert plan["size"] == [32, 24] and plan["working_size"] == [144, 112]
    assert plan["base"] == {"name": "mini", "architecture": "Mini", "side": 128}
    assert told["queue_position"] == 0 and told["warnings"] == []
    cells = 18 * 14
    assert told["estimate"] == {
        "seconds": None, "wait_seconds": None, "run_seconds": None, "workers": 1,
        "unknown": forecasts.NOT_MEASURED,
    }, cells  # fmt: skip
    assert anna.get("/v1/jobs").json()["items"] == []
    assert not list(storage.list("tenants/anna/jobs/"))


def test_an_sdedit_is_planned_with_the_region_of_its_words(
    anna: httpx.Client, jobs: Jobs, worker: Workers
) -> None:
    """And its job says so to workers of any version; without a source prompt it has none."""
    plan = tried(anna, method="sdedit", sdedit={"threshold": 0.4})["plan"]
    assert (plan["region_words"], plan["preserve"], plan["outline"]) == (["cup"], True, True)
    assert (plan["settings"]["blend_over"], plan["settings"]["threshold"]) == ("source", 0.4)
    free = tried(anna, method="sdedit", source_prompt="")["plan"]
    assert (free["region_words"], free["preserve"]) == ([], False)
    assert free["settings"]["blend_over"] == "none"
    for given, kept in (({}, {}), ({"source_prompt": ""}, None)):
        record = jobs.get("anna", edit(anna, method="sdedit", **given)["id"])
        assert record is not None and record.request.get("sdedit") == kept
    for more, field in (
        ({"source_prompt": "", "sdedit": {"blend_words": ["cup"]}}, "source_prompt"),
        ({"source_prompt": "", "preserve": True}, "preserve"),
        ({"sdedit": {"blend_over": "none", "threshold": 0.4}}, "sdedit.threshold"),
        ({"sdedit": {"blend_words": ["jug"]}}, "source_prompt"),
        ({"p2p": {}}, "p2p"),
    ):
        asked = {"image": upload(anna), "source_prompt": "a cup", "target_prompt": "a blue cup"}
        refused = anna.post("/v1/edits", json=asked | {"method": "sdedit"} | more)
        assert (refused.status_code, refused.json()["field"]) == (422, field)


def test_a_concepts_region_is_planned_against_the_workers_base(
    anna: httpx.Client, jobs: Jobs, concepts: Concepts, storage: Storage, worker: Workers
) -> None:
    ready = finish_concept(jobs, concepts, storage, customize(anna, token="<a>")["id"])
    use: dict[str, Any] = {"id": ready.id, "box": [0.0, 0.0, 0.5, 1.0]}
    plan = tried(anna, target_prompt="a <a> cup", concepts=[use])["plan"]
    assert plan["concepts"] == [{**use, "token": "<a>", "weight": 1.0, "mask": None}]
    assert plan["region_words"] == [] and plan["preserve"] is True
    assert plan["settings"]["concept_regions"] is True
    use["box"] = [0.0, 0.0, 1 / 18, 1 / 30]  # of 18 x 14 cells
    fields = {"image": upload(anna), "source_prompt": "a cup", "target_prompt": "a <a> cup"}
    answer = anna.post("/v1/edits", json=fields | {"concepts": [use]})
    assert (answer.status_code, answer.json()["field"]) == (422, "concepts[0].box")
    assert "half of no latent cell, of which the picture has 18 x 14" in answer.json()["detail"]


def test_a_picture_that_its_exif_turns_has_the_sides_that_are_seen(
    anna: httpx.Client, jobs: Jobs, concepts: Concepts, storage: Storage, worker: Workers
) -> None:
    """As of a phone that was held upright: 32 x 24 in the file, 24 x 32 to look at."""
    exif, stream = Image.Exif(), io.BytesIO()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (32, 24), "red").save(stream, "JPEG", exif=exif)
    file = {"file": ("a.jpg", stream.getvalue(), "image/jpeg")}
    made = anna.post("/v1/images", files=file).json()
    assert (made["width"], made["height"]) == (24, 32)
    masks = {size: upload_mask(anna, size) for size in ((24, 32), (48, 64), (32, 24))}
    ready = finish_concept(jobs, concepts, storage, customize(anna, token="<a>")["id"])

    worker.beat(REPORT)  # that took a while on a busy machine
    plan = tried(anna, image=made["id"], mask=masks[24, 32])["plan"]
    assert plan["size"] == [24, 32] and plan["working_size"] == [112, 144]
    fields = {"image": made["id"], "source_prompt": "a cup", "target_prompt": "a <a> cup"}
    for place, detail in (
        ({"mask": masks[32, 24]}, "the picture 24 x 32"),
        ({"box": [0.0, 0.0, 1 / 30, 1 / 18]}, "of which the picture has 14 x 18"),
    ):
        worker.beat(REPORT)
        answer = anna.post("/v1/edits", json=fields | {"concepts": [{"id": ready.id, **place}]})
        assert answer.status_code == 422 and detail in answer.json()["detail"], answer.text
    asked = edit(anna, image=made["id"], mask=masks[48, 64])
    record = jobs.get("anna", asked["id"])
    assert record is not None and record.picture == (24, 32)


def test_seconds_follow_from_what_was_measured(
    anna: httpx.Client, api: Running, worker: Workers
) -> None:
    (report,) = worker.alive()
    call = {speed.call(18 * 14): line(0.01)}
    worker.beat(report.model_copy(update={"speed": report.speed | call}))
    alone = tried(anna, steps=20, strengths=[0.5])["estimate"]
    expected = 20 * 0.01 + 20 * 0.03 + 0.5  # inversion, three rows a step, one picture
    assert alone["run_seconds"] == pytest.approx(expected, abs=0.02)
    assert alone["wait_seconds"] == 0 and alone["seconds"] == alone["run_seconds"]
    for _ in range(3):
        edit(anna, steps=20)
    api.container.forecasts._queue = None  # it is read once a second at most
    beside = tried(anna, steps=20)
    assert beside["queue_position"] == 3
    assert beside["estimate"]["wait_seconds"] > expected
    assert beside["estimate"]["seconds"] > 2 * expected


def test_a_job_tells_its_place_and_its_time(
    anna: httpx.Client, bert: httpx.Client, api: Running, jobs: Jobs, worker: Workers
) -> None:
    (report,) = worker.alive()
    call = {speed.call(18 * 14): line(0.01)}
    report = report.model_copy(update={"speed": report.speed | call})
    worker.beat(report)
    made = [edit(anna, steps=20) for _ in range(3)]
    other = edit(bert, steps=20)
    api.container.forecasts._queue = None
    places = [anna.get(f"/v1/jobs/{j['id']}").json()["queue_position"] for j in made]
    assert places == [0, 2, 3]  # the other tenant has its turn between
    assert bert.get(f"/v1/jobs/{other['id']}").json()["queue_position"] == 1
    claimed(jobs, made[0]["id"])
    worker.beat(report)  # on a slow machine it would be forgotten by now
    api.container.forecasts._queue = None
    begun = anna.get(f"/v1/jobs/{made[0]['id']}").json()
    assert begun["queue_position"] is None and begun["estimate"]["unknown"] is None
    assert begun["estimate"]["seconds"] > 0
    anna.post(f"/v1/jobs/{made[1]['id']}/cancel")
    ended = anna.get(f"/v1/jobs/{made[1]['id']}").json()
    assert ended["queue_position"] is None and ended["estimate"] is None


def test_no_worker_is_part_of_the_answer(
    anna: httpx.Client, api: Running, worker: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.leave("w")
    told = tried(anna)
    assert told["estimate"]["workers"] == 0
    assert told["estimate"]["unknown"] == forecasts.NO_WORKER
    assert told["warnings"] == [f"{forecasts.NO_WORKER} The job would wait for one."]
    assert told["plan"]["guidance"] is None and told["plan"]["base"] is None
    assert edit(anna)["estimate"]["unknown"] == forecasts.NO_WORKER


def test_a_worker_that_says_nothing_is_forgotten(
    worker: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [w.name for w in worker.alive()] == ["w"]
    now = worker._now()
    monkeypatch.setattr(worker, "_now", lambda: now + workers.GONE_S + 1)
    assert worker.alive() == []


def test_what_was_measured_waits_for_the_next_worker(worker: Workers) -> None:
    worker.leave("w")
    assert worker.alive() == []
    assert worker.speed(BASE).keys() == {speed.call(336), speed.call(256), "edit"}
    assert worker.speed(BASE.model_copy(update={"device": "cuda"})) == {}


def test_a_customization_is_planned(anna: httpx.Client, worker: Workers) -> None:
    body = {"references": [upload(anna)], "noun": "cup", "training": {"steps": 9}}
    answer = anna.post("/v1/concepts", params={"dry_run": True}, json=body)
    assert answer.status_code == 200
    told = answer.json()
    assert told["plan"]["training"]["steps"] == 9 and told["plan"]["training"]["rate"] == 2e-4
    assert told["plan"]["token"] == "<look>" and "references" in told["warnings"][0]
    assert anna.get("/v1/concepts").json()["items"] == []


def test_a_dry_run_refuses_what_the_request_would_be_refused_for(
    anna: httpx.Client, bert: httpx.Client, jobs: Jobs, concepts: Concepts, storage: Storage
) -> None:
    body: dict[str, Any] = {
        "image": upload(bert, "green"),
        "source_prompt": "a",
        "target_prompt": "b",
    }
    hers = anna.post("/v1/edits", params={"dry_run": True}, json=body)
    assert hers.status_code == 409 and hers.json()["type"] == "/problems/unknown-image"
    learning = customize(anna)
    finish_concept(jobs, concepts, storage, learning["id"])
    body |= {"image": upload(anna), "concepts": [{"id": learning["concept"]}]}
    idle = anna.post("/v1/edits", params={"dry_run": True}, json=body)
    assert idle.status_code == 422 and "no effect" in idle.json()["detail"]
    reader = anna.post("/v1/edits", params={"dry_run": True}, json={**body, "webhook": "ftp://x"})
    assert reader.status_code == 422 and reader.json()["field"] == "webhook"
