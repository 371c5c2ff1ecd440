"""Forecasts from the queue in Redis, with a worker that has told what it measured."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from redis import Redis

from customedit.config.settings import Settings
from customedit.estimates import speed
from customedit.estimates.forecasts import FRESH_DRY_S, Forecasts
from customedit.estimates.workers import WorkerReport, Workers
from customedit.jobs.records import ImageRecord, JobRecord
from customedit.jobs.store import Jobs
from customedit.schemas import ids
from customedit.schemas.requests import EditRequest
from customedit.tenants.catalogue import Images

from .test_simulation import BASE, line

LINES = {
    speed.call(256): line((1, 0.02), (3, 0.04)),  # 0.01 + 0.01 a row
    "edit": line((1, 0.5), (2, 1.0)),
}
INVERT_S, DRAW_S = 50 * 0.02, 50 * 0.04 + 0.5


@pytest.fixture
def work(redis_client: Redis, settings: Settings) -> Callable[..., Forecasts]:
    """Forecasts with one worker of so many slots."""

    def begin(slots: int) -> Forecasts:
        report = WorkerReport(name="w", kinds=("edit",), slots=slots, base=BASE, speed=LINES)
        Workers(redis_client, settings).beat(report)
        return Forecasts(redis_client, settings)

    return begin


def record(**more: object) -> JobRecord:
    fields = {"image": "img_" + "0" * 64, "source_prompt": "a", "target_prompt": "b", **more}
    request = EditRequest.model_validate(fields).model_dump(mode="json", exclude_unset=True)
    now = time.time()
    return JobRecord(
        id=ids.new("job"), tenant="acme", kind="edit", request=request, created_at=now,
        queued_at=now, picture=(128, 128),
    )  # fmt: skip


def test_a_job_that_would_begin_now_takes_as_long_however_old_the_queue_is(
    work: Callable[..., Forecasts],
) -> None:
    forecasts = work(1)
    first = forecasts.would_be(record())
    assert first.wait_s == 0 and first.run_s == pytest.approx(INVERT_S + DRAW_S)
    assert forecasts._queue is not None
    forecasts._queue.read_at -= FRESH_DRY_S / 2
    assert forecasts.would_be(record()).run_s == first.run_s
    forecasts._queue.read_at -= FRESH_DRY_S  # too old: it is read again
    forecasts.would_be(record())
    assert time.monotonic() - forecasts._queue.read_at < FRESH_DRY_S


@pytest.mark.parametrize("slots", [1, 8])
def test_an_inversion_is_made_once_by_those_who_wait_and_by_each_of_those_who_do_not(
    work: Callable[..., Forecasts], redis_client: Redis, settings: Settings,
    picture: Callable[..., ImageRecord], slots: int,
) -> None:  # fmt: skip
    forecasts = work(slots)
    uploaded = picture(b"a picture")
    Images(redis_client, settings).put(uploaded)
    Jobs(redis_client, settings).submit(record(image=uploaded.id))
    told = forecasts.would_be(record(image=uploaded.id))
    if slots == 1:
        assert told.wait_s == pytest.approx(INVERT_S + DRAW_S, abs=0.3)
        assert told.run_s == pytest.approx(DRAW_S)  # the first one's inversion is kept
    else:
        assert told.wait_s == 0
        assert told.run_s == pytest.approx(50 * 0.03 + 50 * 0.07 + 0.5)
    other = forecasts.would_be(record(image=uploaded.id, steps=20))
    assert other.seconds is not None and told.seconds is not None
    assert other.seconds < told.seconds or slots == 1
