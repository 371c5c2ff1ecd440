"""The bytes of pictures through the API: uploads, outputs, regions."""

from __future__ import annotations

import io

import httpx
from PIL import Image

from customedit.jobs.store import Jobs
from customedit.schemas import ids
from customedit.storage.store import Storage

from .conftest import customize, edit, finish_edit, png, upload


def test_an_upload_is_read_as_it_was_sent(anna: httpx.Client, bert: httpx.Client) -> None:
    image = upload(anna, "green")
    answer = anna.get(f"/v1/images/{image}/file")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/png")
    assert answer.content == png("green")
    assert bert.get(f"/v1/images/{image}/file").status_code == 404


def test_outputs_and_the_region_are_read(
    anna: httpx.Client, bert: httpx.Client, jobs: Jobs, storage: Storage
) -> None:
    job = edit(anna)["id"]
    paths = [f"/v1/images/{ids.of_output(job, 0)}/file", f"/v1/jobs/{job}/mask/file"]
    assert [anna.get(path).status_code for path in paths] == [404, 404]  # it is not finished
    finish_edit(jobs, storage, job, region=True)
    output, mask = (anna.get(path) for path in paths)
    assert output.content == png("blue") and output.headers["Content-Type"] == "image/png"
    region = Image.open(io.BytesIO(mask.content))
    assert (region.mode, region.getpixel((16, 12)), region.getpixel((0, 0))) == ("L", 255, 0)
    assert [bert.get(path).status_code for path in paths] == [404, 404]
    assert anna.get(f"/v1/images/{ids.of_output(job, 1)}/file").status_code == 404


def test_a_job_without_a_region_says_so(anna: httpx.Client, jobs: Jobs, storage: Storage) -> None:
    training, everywhere = customize(anna)["id"], edit(anna)["id"]
    finish_edit(jobs, storage, everywhere)
    for job in (training, everywhere):
        answer = anna.get(f"/v1/jobs/{job}/mask/file")
        assert answer.status_code == 404 and answer.json()["field"] == "id"
