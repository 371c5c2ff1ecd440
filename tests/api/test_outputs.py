"""Outputs of edits as the pictures of next edits."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from customedit.jobs.records import JobRecord
from customedit.jobs.store import InUse, Jobs, Missing
from customedit.storage.store import Storage

from .. import web
from .conftest import edit, finish_edit, upload


def finished(client: httpx.Client, jobs: Jobs, storage: Storage) -> dict[str, Any]:
    job = edit(client)
    finish_edit(jobs, storage, job["id"])
    return dict(client.get(f"/v1/jobs/{job['id']}").json())


def test_an_output_is_a_source(anna: httpx.Client, jobs: Jobs, storage: Storage) -> None:
    first = finished(anna, jobs, storage)
    (output,) = first["result"]["outputs"]
    assert output["id"] == f"out_{first['id'][4:]}_0"
    shown = anna.get(f"/v1/images/{output['id']}").json()
    assert (shown["width"], shown["height"], shown["media_type"]) == (32, 24, "image/png")
    assert len(web.get(shown["url"]).content) == shown["bytes"]
    assert anna.get(f"/v1/images/{output['id'][:-1]}7").status_code == 404
    assert anna.delete(f"/v1/images/{output['id']}").status_code == 422
    body = {"image": output["id"], "source_prompt": "a cup", "target_prompt": "a red cup"}
    second = anna.post("/v1/edits", json=body)
    assert second.status_code == 202, second.text
    job = second.json()
    assert job["request"]["image"] == output["id"]
    kept = anna.delete(f"/v1/jobs/{first['id']}")
    assert kept.status_code == 409 and kept.json()["type"] == "/problems/in-use"
    assert job["id"] in kept.json()["detail"]
    with pytest.raises(InUse):
        jobs.delete("anna", first["id"])
    finish_edit(jobs, storage, job["id"])
    assert anna.delete(f"/v1/jobs/{first['id']}").status_code == 204
    assert not list(storage.list(f"tenants/anna/jobs/{first['id']}/"))
    gone = anna.post("/v1/edits", json=body)
    assert gone.status_code == 409 and gone.json()["type"] == "/problems/unknown-image"
    assert anna.get(f"/v1/jobs/{job['id']}").json()["state"] == "succeeded"


def test_an_output_is_its_tenants_and_must_be_there(
    anna: httpx.Client, bert: httpx.Client, jobs: Jobs, storage: Storage
) -> None:
    first = finished(anna, jobs, storage)
    queued = edit(anna)
    body = {"source_prompt": "a cup", "target_prompt": "a red cup"}
    output = first["result"]["outputs"][0]["id"]
    for client, name in (
        (bert, output),
        (anna, f"out_{first['id'][4:]}_1"),
        (anna, f"out_{queued['id'][4:]}_0"),
    ):
        for field in ("image", "mask", "references"):
            given: dict[str, Any] = {field: [name] if field == "references" else name}
            answer = client.post("/v1/edits", json={**body, "image": upload(client), **given})
            assert answer.status_code == 409, answer.text
            assert answer.json()["type"] == "/problems/unknown-image"
            assert answer.json()["field"].startswith(field)
    wrong = anna.post("/v1/edits", json={**body, "image": "out_1"})
    assert wrong.status_code == 422 and wrong.json()["field"] == "image"


def test_a_job_made_while_the_source_is_deleted_is_refused(
    anna: httpx.Client, jobs: Jobs, storage: Storage
) -> None:
    """The script that makes the job looks again, so that no job waits for what is gone."""
    first = finished(anna, jobs, storage)
    record = jobs.get("anna", first["id"])
    assert record is not None
    request = {**record.request, "image": first["result"]["outputs"][0]["id"]}
    assert jobs.delete("anna", first["id"])
    late = JobRecord(
        id="job_" + "1" * 26, tenant="anna", kind="edit", request=request, created_at=0, queued_at=0
    )
    with pytest.raises(Missing):
        jobs.submit(late)
