"""Batches over HTTP: one request, a job for each picture; a worker's part is played."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import httpx
import pytest
from redis import Redis

from customedit.config.settings import Settings
from customedit.jobs.records import JobProgress
from customedit.jobs.recovery import recover
from customedit.jobs.store import Jobs
from customedit.storage.store import Storage

from .conftest import Running, claimed, finish_edit, png, upload

COLOURS = ("red", "green", "blue")
WORDS = {"source_prompt": "a cup", "target_prompt": "a pink cup", "steps": 10}


def batch(client: httpx.Client, **more: Any) -> dict[str, Any]:
    images = [upload(client, colour) for colour in COLOURS]
    answer = client.post("/v1/batches", json={"images": images, **WORDS, **more})
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/v1/batches/{answer.json()['id']}"
    return dict(answer.json())


def test_a_batch_to_its_end(anna: httpx.Client, jobs: Jobs, storage: Storage) -> None:
    made = batch(anna)
    assert made["state"] == "queued" and made["counts"]["queued"] == 3 and made["progress"] == 0
    assert made["request"]["steps"] == 10 and "image" not in made["request"]
    pictures = [job["request"]["image"] for job in made["jobs"]]
    assert pictures == [upload(anna, colour) for colour in COLOURS]
    assert {job["batch"] for job in made["jobs"]} == {made["id"]}
    finish_edit(jobs, storage, made["jobs"][1]["id"])
    half = anna.get(f"/v1/batches/{made['id']}").json()
    assert half["state"] == "running" and half["progress"] == pytest.approx(1 / 3, abs=1e-3)
    assert half["jobs"][1]["result"]["outputs"] and half["jobs"][0]["result"] is None
    early = anna.delete(f"/v1/batches/{made['id']}")
    assert early.status_code == 409 and early.json()["type"] == "/problems/not-finished"
    finish_edit(jobs, storage, made["jobs"][0]["id"])
    cancelled = anna.post(f"/v1/batches/{made['id']}/cancel").json()
    assert cancelled["state"] == "finished" and cancelled["finished_at"]
    assert cancelled["counts"] == {
        "queued": 0, "running": 0, "succeeded": 2, "failed": 0, "cancelled": 1,
    }  # fmt: skip
    (listed,) = anna.get("/v1/batches").json()["items"]
    assert listed["id"] == made["id"] and "jobs" not in listed
    assert anna.delete(f"/v1/batches/{made['id']}").status_code == 204
    assert anna.get(f"/v1/batches/{made['id']}").status_code == 404
    assert anna.get("/v1/batches").json()["items"] == []
    assert anna.get("/v1/jobs").json()["items"] == []
    assert not list(storage.list("tenants/anna/jobs/"))


def test_a_picture_is_done_once_it_is_drawn(anna: httpx.Client, jobs: Jobs) -> None:
    made = batch(anna)
    claim = claimed(jobs, made["jobs"][0]["id"])
    for phase, step, drawn in (
        ("invert", 9, 0), ("edit", 5, 0.5), ("edit", 10, 1), ("measure", 0, 1), ("upload", 0, 1),
    ):  # fmt: skip
        jobs.progress(claim, JobProgress(phase=phase, step=step, steps=10 if step else 0))
        told = anna.get(f"/v1/batches/{made['id']}").json()
        assert told["progress"] == pytest.approx(drawn / 3, abs=1e-3)


def test_the_answer_may_wait_for_the_end(anna: httpx.Client, jobs: Jobs, storage: Storage) -> None:
    made = batch(anna)
    for job in made["jobs"]:
        finish_edit(jobs, storage, job["id"])
    done = anna.get(f"/v1/batches/{made['id']}", headers={"Prefer": "wait=10"})
    assert done.json()["state"] == "finished" and "retry-after" not in done.headers
    later = batch(anna, target_prompt="a grey cup")
    waited = anna.get(f"/v1/batches/{later['id']}", headers={"Prefer": "wait=1"})
    assert waited.json()["state"] == "queued" and waited.headers["retry-after"]


def test_a_key_makes_one_batch(anna: httpx.Client) -> None:
    body = {"images": [upload(anna, colour) for colour in COLOURS], **WORDS}
    first, again = (
        anna.post("/v1/batches", json=body, headers={"Idempotency-Key": "k"}) for _ in range(2)
    )
    assert first.json()["id"] == again.json()["id"]
    assert again.headers["idempotency-replayed"] == "true"
    other = anna.post("/v1/batches", json={**body, "steps": 9}, headers={"Idempotency-Key": "k"})
    assert other.json()["type"] == "/problems/idempotency-conflict"
    assert len(anna.get("/v1/jobs").json()["items"]) == 3


def test_a_key_makes_one_batch_while_any_job_of_it_is_there(
    anna: httpx.Client, jobs: Jobs, storage: Storage
) -> None:
    body = {"images": [upload(anna, colour) for colour in COLOURS], **WORDS}
    ask = partial(anna.post, "/v1/batches", json=body, headers={"Idempotency-Key": "k"})
    made = ask().json()
    for job in made["jobs"]:
        finish_edit(jobs, storage, job["id"])
    for left in (2, 1):
        assert anna.delete(f"/v1/jobs/{made['jobs'][2 - left]['id']}").status_code == 204
        again = ask()
        assert again.json()["id"] == made["id"] and len(again.json()["jobs"]) == left
        assert again.headers["idempotency-replayed"] == "true"
    assert anna.delete(f"/v1/batches/{made['id']}").status_code == 204
    assert ask().json()["id"] != made["id"]  # as with a job that is deleted


def test_a_list_takes_no_more_round_trips_for_more_jobs(
    anna: httpx.Client, jobs: Jobs, storage: Storage, round_trips: Callable[[], int]
) -> None:
    def asked(call: Callable[[], object]) -> int:
        before = round_trips()
        call()
        return round_trips() - before

    def short() -> object:
        return jobs.batches_in_short("anna", jobs.batches("anna").items)

    first = batch(anna)
    finish_edit(jobs, storage, first["jobs"][0]["id"])
    few, whole = asked(short), asked(lambda: jobs.batch("anna", first["id"]))
    more = [batch(anna, target_prompt=f"a {word} cup") for word in ("grey", "black", "white")]
    assert asked(short) == few <= 4
    body = {"images": [upload(anna, f"#{k:06x}") for k in range(12)], **WORDS}
    long = anna.post("/v1/batches", json=body).json()
    assert asked(lambda: jobs.batch("anna", long["id"])) == whole
    assert jobs.batches_in_short("bert", [first["id"]]) == [[]]
    listed = anna.get("/v1/batches").json()["items"]
    assert [one["id"] for one in listed] == [long["id"], *(m["id"] for m in reversed(more)),
                                             first["id"]]  # fmt: skip
    assert listed[-1]["counts"]["succeeded"] == 1 and listed[-1]["state"] == "running"
    (found,), whole_records = (
        jobs.batches_in_short("anna", [first["id"]]),
        jobs.batch("anna", first["id"]),
    )
    assert [r.model_copy(update={"result": None}) for r in whole_records] == found


def test_all_pictures_or_none(
    start: Callable[..., Running], settings: Settings, storage: Storage
) -> None:
    api: Running = start(settings, queue_limit_per_tenant=4)
    anna, bert = api.client("anna"), api.client("bert")
    images = [upload(anna, colour) for colour in COLOURS]
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({"images": [*images, upload(bert, "white")]}, 409, "unknown-image"),
        ({"images": images * 2}, 422, "validation"),
        ({"images": []}, 422, "validation"),
        ({"images": images, "target_prompt": "a <nobody> cup"}, 422, "validation"),
        ({"images": images, "mask": images[0]}, 422, "validation"),
    ]
    for body, status, kind in cases:
        answer = anna.post("/v1/batches", json=WORDS | body)
        assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{kind}")
    batch(anna)
    full = anna.post("/v1/batches", json={"images": images[:2], **WORDS})
    assert full.status_code == 429 and full.json()["type"] == "/problems/queue-full"
    assert len(anna.get("/v1/jobs").json()["items"]) == 3
    folders = {stored.key.split("/")[3] for stored in storage.list("tenants/anna/jobs/")}
    assert len(folders) == 3


def test_batches_are_of_one_tenant_and_share_fairly(
    anna: httpx.Client, bert: httpx.Client, jobs: Jobs
) -> None:
    made = batch(anna)
    assert bert.get(f"/v1/batches/{made['id']}").status_code == 404
    assert bert.post(f"/v1/batches/{made['id']}/cancel").status_code == 404
    assert bert.delete(f"/v1/batches/{made['id']}").status_code == 404
    assert bert.get("/v1/batches").json()["items"] == []
    single = bert.post("/v1/edits", json={"image": upload(bert), **WORDS}).json()
    claims = [jobs.claim_next(["edit"], "w") for _ in range(2)]
    assert single["id"] in [claim.id for claim in claims if claim is not None]


def test_a_batch_survives_the_loss_of_redis(
    anna: httpx.Client, api: Running, jobs: Jobs, storage: Storage, redis_client: Redis
) -> None:
    made = batch(anna)
    finish_edit(jobs, storage, made["jobs"][2]["id"])
    for key in redis_client.scan_iter(f"{api.settings.namespace}:*"):
        if ":key" not in key:
            redis_client.delete(key)
    recover(redis_client, storage, api.settings)
    found = jobs.batch("anna", made["id"])
    assert [record.id for record in found] == [job["id"] for job in made["jobs"]]
    assert jobs.batches("anna").items == [made["id"]]
    assert claimed(jobs, made["jobs"][0]["id"]).record.batch == made["id"]


def test_pictures_of_a_batch_are_held(anna: httpx.Client) -> None:
    made = batch(anna)
    held = anna.delete(f"/v1/images/{made['jobs'][0]['request']['image']}")
    assert held.status_code == 409 and png()
