"""The bytes of pictures through the API: uploads, outputs, regions."""

from __future__ import annotations

import io

import httpx
from PIL import Image

from customedit.jobs.store import Jobs
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
    job = edit(anna)
    paths = [f"/v1/jobs/{job['id']}/{name}/file" for name in ("outputs/0", "mask")]
    assert [anna.get(path).status_code for path in paths] == [404, 404]  # it is not finished
    finish_edit(jobs, storage, job["id"], region=True)
    output, mask = (anna.get(path) for path in paths)
    assert output.content == png("blue") and output.headers["Content-Type"] == "image/png"
    region = Image.open(io.BytesIO(mask.content))
    assert (region.mode, region.getpixel((16, 12)), region.getpixel((0, 0))) == ("L", 255, 0)
    assert [bert.get(path).status_code for path in paths] == [404, 404]
    past = anna.get(f"/v1/jobs/{job['id']}/outputs/1/file")
    assert past.status_code == 404 and past.json()["field"] == "number"
    assert anna.get(f"/v1/jobs/{job['id']}/outputs/16/file").status_code == 422


def test_what_has_no_pictures_says_so(anna: httpx.Client, jobs: Jobs, storage: Storage) -> None:
    training = customize(anna)["id"]
    everywhere = edit(anna)["id"]
    finish_edit(jobs, storage, everywhere)
    assert anna.get(f"/v1/jobs/{training}/outputs/0/file").status_code == 404
    assert anna.get(f"/v1/jobs/{everywhere}/mask/file").status_code == 404
