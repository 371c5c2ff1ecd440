"""The Python client against a real front end, waiting and under asyncio."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import BaseModel, ValidationError

from customedit.client import (
    ApiError,
    AsyncCustomEdit,
    ConceptUse,
    CustomEdit,
    JobFailed,
    TimedOut,
    generate,
)
from customedit.config.settings import Settings
from customedit.jobs.records import JobError, JobProgress
from customedit.jobs.store import Jobs
from customedit.schemas.answers import Event
from customedit.schemas.concepts import CustomizeRequest, ImportForm
from customedit.schemas.requests import EditRequest
from customedit.storage.store import Storage
from customedit.tenants.catalogue import Concepts

from .conftest import Running, claimed, finish_concept, finish_edit, png, wait_for

PLAIN: dict[str, Any] = {"source_prompt": "a cup", "target_prompt": "a red cup"}


@pytest.fixture
def client(api: Running) -> Iterator[CustomEdit]:
    with CustomEdit(api.url, api.key("anna")) as client:
        yield client


def test_from_upload_to_file(
    client: CustomEdit, jobs: Jobs, concepts: Concepts, storage: Storage, tmp_path: Path
) -> None:
    path = tmp_path / "cup.png"
    path.write_bytes(png("pink"))
    image = client.upload(path)
    assert image == client.image(image.id) or image.url != client.image(image.id).url
    assert client.upload(png("pink")).id == image.id
    learning = client.customize(references=[image.id], noun="cup", token="<plaid>")
    assert learning.concept is not None and learning.warnings
    finish_concept(jobs, concepts, storage, learning.id)
    assert client.wait(learning).result
    assert client.concept(learning.concept).state == "ready"
    assert client.concepts().items[0].token == "<plaid>"
    weights = client.weights(learning.concept)
    assert client.download(weights.url, tmp_path / "w") == (tmp_path / "w").read_bytes()

    edited = client.edit(
        image=image.id,
        source_prompt="a cup",
        target_prompt="a <plaid> cup",
        concepts=[ConceptUse(id=learning.concept)],
    )
    finish_edit(jobs, storage, edited.id)
    seen: list[str] = []
    done = client.wait(edited.id, on_progress=lambda job: seen.append(job.state))
    assert done.result is not None and done.result.kind == "edit" and seen[-1] == "succeeded"
    assert client.download(done.result.outputs[0].url) == png("blue")
    assert [j.id for j in client.jobs(kind="edit", state=None).items] == [edited.id]
    client.delete_job(edited.id)
    client.delete_concept(learning.concept)
    client.delete_image(image.id)
    assert client.images().items == [] and client.limits().jobs_now == 0


def test_what_fails_is_raised(client: CustomEdit, jobs: Jobs) -> None:
    with pytest.raises(ApiError) as refused:
        client.job("job_" + "0" * 26)
    assert refused.value.status == 404 and refused.value.slug == "not-found"
    with pytest.raises(ValidationError):
        client.edit(image="img_x", **PLAIN)
    job = client.edit(image=client.upload(png()).id, **PLAIN)
    with pytest.raises(TimedOut) as late:
        client.wait(job, timeout=0)
    assert late.value.job.state == "queued"
    jobs.fail(claimed(jobs, job.id), JobError(type="internal", title="Broke", detail="so"))
    with pytest.raises(JobFailed, match="Broke: so"):
        client.wait(job)
    with pytest.raises(ValueError, match="CUSTOMEDIT_SERVER"):
        CustomEdit(None, None)


def test_a_preset_is_enough(client: CustomEdit) -> None:
    """None of the client's own defaults contradicts it."""
    paper = {"method": "p2p", "inversion": "null-text", "preserve": False, "preset": "paper"}
    image = client.upload(png()).id
    job = client.edit(image=image, preset="paper", **PLAIN)
    batch = client.edit_batch(images=[image], preset="paper", **PLAIN)
    for request in (job.request, batch.request, client.save_preset("own", preset="paper").settings):
        assert {name: request[name] for name in paper} == paper
    assert client.try_edit(image=image, preset="paper", **PLAIN).plan is not None
    with pytest.raises(ValidationError, match="contradicts the preset paper"):
        client.edit(image=image, preset="paper", inversion="direct", **PLAIN)


@pytest.mark.parametrize("timeout", [0.6, 1.0, 2.3])
def test_wait_waits_as_long_as_told(client: CustomEdit, timeout: float) -> None:
    job = client.edit(image=client.upload(png()).id, **PLAIN)
    began = time.monotonic()
    with pytest.raises(TimedOut):
        client.wait(job, timeout=timeout)
    assert time.monotonic() - began >= timeout


def test_a_wait_outlasts_the_timeout_of_one_request(api: Running, jobs: Jobs) -> None:
    with CustomEdit(api.url, api.key("anna"), timeout=1.0) as impatient:
        job = impatient.edit(image=impatient.upload(png()).id, **PLAIN)
        assert impatient.job(job.id, wait=2).state == "queued"


def test_events_go_on_after_a_restart(start: Callable[..., Running], settings: Settings) -> None:
    """The stream breaks off; the client comes back and misses nothing."""
    first: Running = start(settings)
    jobs = first.container.jobs
    with CustomEdit(first.url, first.key("anna")) as client:
        job = client.edit(image=client.upload(png()).id, **PLAIN)
        claim = claimed(jobs, job.id)
        told: list[Event] = []
        reader = threading.Thread(target=lambda: told.extend(client.events(job.id)))
        stream = client.events(job.id)
        told_by_one = [next(stream), next(stream)]
        assert [e.data["state"] for e in told_by_one] == ["queued", "running"]
        first.container.stop()  # as a restart does: streams end, and later ones are taken again
        first.container._stop.clear()
        jobs.progress(claim, JobProgress(phase="edit", step=1, steps=2))
        assert next(stream).data["step"] == 1
        jobs.cancel("anna", job.id)
        assert jobs.cancelled(claim)
        assert [e.data["state"] for e in stream] == ["cancelled"]
        reader.start()
        reader.join(20)
        assert [e.id for e in told] == sorted({e.id for e in told}) and len(told) == 4


def test_a_lost_answer_makes_no_second_job(api: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    with CustomEdit(api.url, api.key("anna")) as client:
        image = client.upload(png()).id
        real = client._http.request
        lost: list[httpx.Response] = []

        def request(*args: object, **named: object) -> httpx.Response:
            answer = real(*args, **named)  # type: ignore[arg-type]
            if not lost:
                lost.append(answer)
                raise httpx.ReadError("the connection broke")
            return answer

        monkeypatch.setattr(client._http, "request", request)
        job = client.edit(image=image, **PLAIN)
        assert job.id == lost[0].json()["id"]
        assert len(client.jobs().items) == 1


def test_a_busy_service_is_asked_again(
    start: Callable[..., Running], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    api: Running = start(settings, rate_per_minute=2)
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    with CustomEdit(api.url, api.key("anna")) as client:
        client.limits()
        client.limits()
        with pytest.raises(ApiError) as refused:
            client.limits()
    assert refused.value.slug == "rate-limited"
    assert len(waited) == 4 and all(1 <= seconds <= 60 for seconds in waited)


def test_the_same_under_asyncio(api: Running, jobs: Jobs, storage: Storage) -> None:
    async def all_of_it() -> None:
        async with AsyncCustomEdit(api.url, api.key("bert")) as client:
            image = await client.upload(png())
            job = await client.edit(image=image.id, **PLAIN)

            async def watch() -> list[str]:
                return [str(e.data["state"]) async for e in client.events(job.id)]

            watching = asyncio.create_task(watch())
            waiting = asyncio.create_task(client.wait(job, timeout=30))
            await asyncio.to_thread(finish_edit, jobs, storage, job.id)
            done = await waiting
            assert done.result is not None
            assert await client.download(done.result.outputs[0].url) == png("blue")  # type: ignore[union-attr]
            assert await watching == ["queued", "running", "succeeded"]
            with pytest.raises(ApiError):
                await client.concept("con_" + "0" * 26)

    asyncio.run(all_of_it())


def test_importing_a_concept(client: CustomEdit, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    path.write_bytes(b"\x10\0\0\0\0\0\0\0{" + b" " * 100)
    job = client.import_concept(path, token="<x>", name="From elsewhere", allow_unused=True)
    assert job.kind == "import" and job.concept is not None
    assert job.request["allow_unused"] is True
    again = client.import_concept(path, token="<x>")
    assert client.job(again.id).request["allow_unused"] is False
    assert client.concept(job.concept).name == "From elsewhere"
    assert client.cancel(job.id).state == "cancelled"


def test_the_key_goes_nowhere_else(api: Running) -> None:
    with CustomEdit(api.url, api.key("anna")) as client:
        assert "authorization" not in client._files.headers
        url = client.upload(png()).url
        asked: list[httpx.Request] = []
        client._files.event_hooks["request"].append(asked.append)
        client.download(url)
        assert "authorization" not in asked[0].headers


def test_what_is_made_from_other_files_is_current() -> None:
    for name, text in generate.files().items():
        told = "run python -m customedit.client.generate"
        assert (generate.FOLDER / name).read_text("utf-8") == text, told


@pytest.mark.parametrize("client", [CustomEdit, AsyncCustomEdit])
@pytest.mark.parametrize(
    ("method", "model"),
    [("edit", EditRequest), ("customize", CustomizeRequest), ("import_concept", ImportForm)],
)
def test_methods_have_the_fields_of_their_requests(
    client: type, method: str, model: type[BaseModel]
) -> None:
    parameters = inspect.signature(getattr(client, method)).parameters
    assert parameters.keys() - {"self", "path"} == model.model_fields.keys() | {"idempotency_key"}
    given = {
        name: parameter.default
        for name, parameter in parameters.items()
        if parameter.default not in (inspect.Parameter.empty, None)
    }
    for name, default in given.items():
        assert model.model_fields[name].default == (
            list(default) if isinstance(default, tuple) else default
        )
    for name, field in model.model_fields.items():
        assert field.is_required() == (parameters[name].default is inspect.Parameter.empty)


USE = """
from customedit.client import ConceptUse, CustomEdit

with CustomEdit("http://x", "k") as client:
    job = client.edit(image="img", target_prompt="a", concepts=[ConceptUse(id="con")])
    reveal_type(job)
    client.edit(image="img", target_prompt="a", stepz=3)
    client.edit(image="img", target_prompt="a", method="magic")
    client.edit(target_prompt="a")
"""


def test_a_type_checker_knows_the_parameters(tmp_path: Path) -> None:
    (tmp_path / "use.py").write_text(USE)
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache")]
    env = {**os.environ, "MYPYPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [*command, "--config-file=", "--follow-imports=silent", "use.py"],
        cwd=tmp_path, env=env, capture_output=True, text=True,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith("use.py")]
    assert [line.split(":")[1] for line in lines if ": error:" in line] == ["7", "8", "9"]
    assert "Job" in next(line for line in lines if "Revealed" in line)


def test_it_runs_without_the_service_installed() -> None:
    """In a process of its own, where the front end's and the workers' packages cannot load."""
    code = (
        "import sys\n"
        "for name in ('torch', 'fastapi', 'redis', 'boto3', 'celery', 'api', 'worker'):\n"
        "    sys.modules[name] = None\n"
        "import customedit.client"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert wait_for(lambda: True)
