"""What waits for a store or takes long does not hold up the event loop, nor the sign of life."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from customedit.config.settings import Settings
from customedit.jobs.store import Jobs

from .. import web
from .conftest import Running, claimed, edit, png, upload, wait_for


def in_a_thread(call: Callable[..., Any], asked: list[bool]) -> Callable[..., Any]:
    """``call``, and for each time whether it ran beside the event loop."""

    def checked(*given: Any, **named: Any) -> Any:
        try:
            asyncio.get_running_loop()
            asked.append(False)
        except RuntimeError:
            asked.append(True)
        return call(*given, **named)

    return checked


def test_estimates_are_made_beside_it(
    api: Running, anna: httpx.Client, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[bool]()
    forecasts = api.container.forecasts
    monkeypatch.setattr(forecasts, "of", in_a_thread(forecasts.of, asked))
    job = edit(anna)["id"]
    assert asked and all(asked)
    batch = {"images": [upload(anna)], "source_prompt": "a cup", "target_prompt": "a red cup"}
    calls: list[Callable[[], httpx.Response]] = [
        lambda: anna.get(f"/v1/jobs/{job}"),
        lambda: anna.get(f"/v1/edits/{job}"),
        lambda: anna.get(f"/v1/jobs/{job}", headers={"Prefer": "wait=1"}),
        lambda: anna.post("/v1/batches", json=batch),
    ]
    for call in calls:
        before = len(asked)
        assert call().status_code in (200, 202)
        assert len(asked) > before and all(asked)
    jobs.cancelled(claimed(jobs, job))
    assert anna.get(f"/v1/jobs/{job}").json()["state"] == "cancelled" and all(asked)


def test_addresses_are_signed_beside_it(
    api: Running, anna: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, storage = list[bool](), api.container.storage
    monkeypatch.setattr(storage, "presign_get", in_a_thread(storage.presign_get, asked))
    name = upload(anna)
    assert upload(anna) == name and len(asked) == 2
    form = anna.post("/v1/uploads", json={"media_type": "image/png"}).json()
    sent = web.post(form["url"], data=form["fields"], files={"file": png("green")})
    assert sent.is_success
    assert anna.post(f"/v1/uploads/{form['id']}/complete").status_code == 201
    assert len(asked) == 3 and all(asked)


def test_the_process_is_alive_while_no_thread_is_free(
    start: Callable[..., Running], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = start(settings, api_threads=2)
    anna = api.client()
    free, held = threading.Event(), list[int]()
    admit = api.container.limits.admit

    def silent(text: str) -> Any:
        held.append(1)
        assert free.wait(60)
        return admit(text)

    monkeypatch.setattr(api.container.limits, "admit", silent)
    with ThreadPoolExecutor(3) as pool:
        try:
            waiting = [pool.submit(anna.get, "/v1/limits") for _ in range(3)]
            wait_for(lambda: len(held) == 2)
            assert web.get(f"{api.url}/healthz", timeout=10).json()["status"] == "ok"
            assert not any(answer.done() for answer in waiting)
        finally:
            free.set()
        assert [answer.result().status_code for answer in waiting] == [200] * 3
