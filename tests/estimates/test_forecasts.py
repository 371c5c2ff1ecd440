"""Forecasts from the queue in Redis, with a worker that has told what it measured."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import Redis
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from customedit.config.settings import Settings
from customedit.estimates import speed
from customedit.estimates.forecasts import (
    ENDING,
    FRESH_DRY_S,
    JUST_BEGUN,
    JUST_QUEUED,
    NO_WORKER,
    TOO_FAR,
    Forecast,
    Forecasts,
)
from customedit.estimates.queue import OLD_S, REST, Queue, QueueReader
from customedit.estimates.simulation import Span
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
    read = forecasts._queue
    read.read_at -= FRESH_DRY_S / 2
    assert forecasts.would_be(record()).run_s == first.run_s
    read.played_at -= 60  # too old: it is read again
    assert forecasts.would_be(record()).run_s == first.run_s
    assert forecasts._queue is not read


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


@pytest.fixture
def submit(
    redis_client: Redis, settings: Settings, picture: Callable[..., ImageRecord]
) -> Callable[..., JobRecord]:
    """Submits an edit of a picture of its own."""
    images, jobs = Images(redis_client, settings), Jobs(redis_client, settings)
    numbers = itertools.count()

    def make(**more: object) -> JobRecord:
        uploaded = picture(b"picture %d" % next(numbers))
        images.put(uploaded)
        return jobs.submit(record(image=uploaded.id, **more)).record

    return make


def test_edits_do_not_wait_for_workers_that_take_none(
    work: Callable[..., Forecasts], submit: Callable[..., JobRecord], redis_client: Redis,
    settings: Settings,
) -> None:  # fmt: skip
    made = [submit() for _ in range(16)]
    alone = work(8).of(made[-1])
    trainer = WorkerReport(name="t", kinds=("customize",), slots=8, base=BASE, speed=LINES)
    Workers(redis_client, settings).beat(trainer)
    beside = Forecasts(redis_client, settings).of(made[-1])
    assert alone is not None and beside is not None and alone.wait_s is not None
    assert alone.wait_s > 1  # for the end of one of the eight before it
    assert beside.wait_s == pytest.approx(alone.wait_s, abs=0.2)
    assert (alone.workers, beside.workers) == (1, 1)


def test_each_job_is_told_the_speed_of_the_machine_that_will_take_it(
    submit: Callable[..., JobRecord], redis_client: Redis, settings: Settings
) -> None:
    slow = {name: quick.scaled(40) for name, quick in LINES.items()}
    for name, device, lines in (("a", "cuda", LINES), ("b", "cpu", slow)):
        base = BASE.model_copy(update={"device": device})
        report = WorkerReport(name=name, kinds=("edit",), slots=1, base=base, speed=lines)
        Workers(redis_client, settings).beat(report)
    made = [submit() for _ in range(3)]
    forecasts = Forecasts(redis_client, settings)
    told = [forecast for one in made if (forecast := forecasts.of(one)) is not None]
    alone = INVERT_S + DRAW_S
    assert [f.run_s for f in told] == pytest.approx([alone, 40 * alone, alone], abs=0.3)
    assert [f.wait_s for f in told] == pytest.approx([0, 0, alone], abs=0.3)


def test_a_job_that_was_claimed_since_the_queue_was_read_waits_no_more(
    work: Callable[..., Forecasts], submit: Callable[..., JobRecord], redis_client: Redis,
    settings: Settings,
) -> None:  # fmt: skip
    jobs, forecasts, alone = Jobs(redis_client, settings), work(1), INVERT_S + DRAW_S
    first, second = submit(), submit()
    read = forecasts.queue()
    read.took_s = 60.0  # so that it is good for long

    def told(record: JobRecord) -> Forecast:
        forecast = forecasts.of(record)
        assert forecast is not None
        return forecast

    assert told(second).position == 1
    assert told(second).wait_s == pytest.approx(alone, abs=0.3)
    claims = [jobs.claim(one.id, "w") for one in (first, second)]
    third = submit()
    assert jobs.claim(third.id, "w") is not None
    read.read_at -= 2
    running = jobs.peek(second.id)
    assert running is not None and running.started_at is not None
    now = told(running)
    assert (now.position, now.wait_s) == (None, 0)
    assert now.run_s == pytest.approx(alone, abs=0.3)  # it began this moment
    before = running.model_copy(update={"started_at": running.started_at - 1})
    assert told(before).run_s == pytest.approx(alone - 1, abs=0.3)
    lapsed = running.model_copy(update={"lease_until": 1.0})
    assert told(lapsed).position == 1  # it waits for the next worker
    unread = jobs.peek(third.id)
    assert unread is not None
    assert (told(unread).position, told(unread).unknown) == (None, JUST_BEGUN)

    read.played_at -= 60
    assert told(running).position is None and forecasts.queue() is not read
    assert claims[1] is not None and jobs.hand_back(claims[1])
    queued = jobs.peek(second.id)
    assert queued is not None
    again = told(queued)  # as it ran when the queue was read
    assert (again.position, again.seconds, again.unknown) == (0, None, JUST_QUEUED)


def test_jobs_of_a_worker_that_is_gone_take_no_slot_of_another(
    work: Callable[..., Forecasts], submit: Callable[..., JobRecord], redis_client: Redis,
    settings: Settings, lapse: Callable[[str], None],
) -> None:  # fmt: skip
    jobs = Jobs(redis_client, settings)
    lost = submit()
    assert jobs.claim(lost.id, "gone") is not None
    forecasts = work(1)
    assert forecasts.would_be(record()).wait_s == 0
    running = jobs.peek(lost.id)
    assert running is not None
    told = forecasts.of(running)
    assert told is not None and told.position is None and told.wait_s == 0
    lapse(lost.id)
    jobs.overdue()  # and it is in the queue again, once
    behind = Forecasts(redis_client, settings).would_be(record())
    assert behind.wait_s == pytest.approx(INVERT_S + DRAW_S, abs=0.3)


def test_a_job_of_a_worker_that_drains_has_a_worker_until_its_lease_is_over(
    submit: Callable[..., JobRecord], redis_client: Redis, settings: Settings,
    lapse: Callable[[str], None],
) -> None:  # fmt: skip
    jobs, forecasts = Jobs(redis_client, settings), Forecasts(redis_client, settings)
    made = submit()
    assert jobs.claim(made.id, "draining") is not None  # which has left, as a draining worker does

    def told() -> Forecast:
        record = jobs.peek(made.id)
        assert record is not None
        forecast = forecasts.of(record)
        assert forecast is not None and forecast.seconds is None
        return forecast

    assert (told().workers, told().unknown) == (1, ENDING)
    lapse(made.id)
    assert (told().workers, told().unknown) == (0, NO_WORKER)


def test_a_long_queue_takes_no_more_round_trips_than_a_short_one(
    work: Callable[..., Forecasts], submit: Callable[..., JobRecord], redis_client: Redis,
    settings: Settings, round_trips: Callable[[], int],
) -> None:  # fmt: skip
    work(1)
    submit()

    def asked() -> int:
        forecasts, before = Forecasts(redis_client, settings), round_trips()
        assert forecasts.base() is not None
        return round_trips() - before

    short = asked()
    for _ in range(12):
        submit()
    assert asked() == short


def test_a_silent_redis_is_waited_for_once(
    work: Callable[..., Forecasts], monkeypatch: pytest.MonkeyPatch
) -> None:
    forecasts, calls = work(1), list[int]()

    def silent() -> list[WorkerReport]:
        calls.append(1)
        raise RedisTimeoutError("says nothing")

    monkeypatch.setattr(forecasts.reader.workers, "alive", silent)
    for _ in range(3):
        with pytest.raises(RedisError):
            forecasts.of(record())
    assert len(calls) == 1
    monkeypatch.undo()
    monkeypatch.setattr("customedit.estimates.forecasts.AWAY_S", 0.0)
    assert forecasts.of(record()) is not None


def test_while_one_reads_the_queue_the_others_answer_from_the_one_before(
    work: Callable[..., Forecasts], submit: Callable[..., JobRecord],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    forecasts, made = work(1), submit()
    first = forecasts.queue()
    play, begun, go_on = forecasts._play, threading.Event(), threading.Event()

    def slow(queue: Queue) -> dict[str, Span]:
        begun.set()
        assert go_on.wait(60)
        return play(queue)

    monkeypatch.setattr(forecasts, "_play", slow)
    first.took_s = 0.0
    first.played_at -= 5  # no more fresh, and no answer of yesterday
    with ThreadPoolExecutor(2) as pool:
        reading = pool.submit(forecasts.queue)
        assert begun.wait(60)
        assert forecasts.queue() is first and forecasts.of(made) is not None
        first.played_at -= 60  # one of long ago is no answer: this waits
        waiting = pool.submit(forecasts.queue)
        go_on.set()
        assert reading.result() is waiting.result() is not first


def test_a_queue_that_took_long_is_read_less_often(work: Callable[..., Forecasts]) -> None:
    forecasts = work(1)
    first = forecasts.queue()
    first.took_s = 0.8
    first.played_at = time.monotonic() - 0.3 * REST
    assert forecasts.queue() is first
    first.played_at -= 0.6 * REST
    assert forecasts.queue() is not first
    second = forecasts.queue()
    second.took_s = 60.0  # as in a Redis that said nothing for long
    second.played_at = time.monotonic() - OLD_S - 1
    assert forecasts.queue() is not second


def test_waiting_jobs_of_many_tenants_are_read_once(
    work: Callable[..., Forecasts], client: Redis, settings: Settings,
    picture: Callable[..., ImageRecord], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Also where each has more than are played."""
    monkeypatch.setattr("customedit.estimates.queue.MOST_WAITING", 30)
    monkeypatch.setattr("customedit.estimates.forecasts.MOST_WAITING", 30)
    jobs, tenants, each = Jobs(client, settings), 20, 31
    names = [f"t{number:02}" for number in range(tenants)]
    images = [picture(b"a picture", tenant=name) for name in names]
    for image in images:
        Images(client, settings).put(image)
    made = [
        jobs.submit(record(image=image.id).model_copy(update={"tenant": image.tenant})).record
        for _ in range(each)
        for image in images
    ]
    read, read_bodies = list[int](), QueueReader._read_bodies

    def counted(reader: QueueReader, names: Sequence[str]) -> None:
        read.append(len(names))
        read_bodies(reader, names)

    monkeypatch.setattr(QueueReader, "_read_bodies", counted)
    forecasts = work(8)
    told = [forecasts.of(one) for one in made]
    assert 0 < sum(read) < len(made) / 2
    places = [forecast.position for forecast in told if forecast is not None]
    known = places[: 8 * tenants]
    assert known == list(range(len(known)))  # by turns, in the order in which they were submitted
    assert set(places[len(known) :]) == {len(made)}
    assert all(f is not None and f.seconds is not None for f in told[:30])
    last = forecasts.would_be(made[0].model_copy(update={"id": ids.new("job")}))
    assert (last.position, last.unknown) == (len(made), TOO_FAR)
    other = made[0].model_copy(update={"id": ids.new("job"), "tenant": "zz"})
    assert forecasts.would_be(other).position == tenants  # its first turn
    read.clear()
    forecasts.queue().played_at -= 60
    assert forecasts.of(made[0]) is not None
    assert sum(read) == 0


def test_no_place_is_told_where_jobs_that_were_not_read_may_come_before(
    work: Callable[..., Forecasts], client: Redis, settings: Settings,
    picture: Callable[..., ImageRecord], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("customedit.estimates.queue.MOST_WAITING", 5)
    jobs = Jobs(client, settings)

    def submitted(tenant: str, count: int, steps: int) -> list[JobRecord]:
        image = picture(b"a picture", tenant=tenant)
        Images(client, settings).put(image)
        one = record(image=image.id, steps=steps).model_copy(update={"tenant": tenant})
        made = (one.model_copy(update={"id": ids.new("job")}) for _ in range(count))
        return [jobs.submit(each).record for each in made]

    small, large = submitted("a", 9, steps=5), submitted("b", 2, steps=50)  # six of nine are read
    forecasts = work(1)
    told = [forecasts.of(one) for one in small + large]
    places = [forecast.position for forecast in told if forecast is not None]
    assert places == [0, 2, 3, 4, 5, 6, 11, 11, 11, 1, 11]
    next_one = small[0].model_copy(update={"id": ids.new("job")})
    assert forecasts.would_be(next_one).position == 11
    claims = [jobs.claim_next(["edit"], "w") for _ in range(7)]
    order = [*small[:1], *large[:1], *small[1:6]]
    assert [claim.id for claim in claims if claim is not None] == [one.id for one in order]


def test_a_job_that_was_just_submitted_asks_redis_nothing(
    work: Callable[..., Forecasts], submit: Callable[..., JobRecord],
    round_trips: Callable[[], int],
) -> None:  # fmt: skip
    forecasts, first = work(1), submit()
    read = forecasts.queue()
    read.took_s = 60.0  # so that it is good for long
    made = submit()
    before = round_trips()
    told = forecasts.of(made)
    assert told is not None and (told.position, told.unknown) == (1, JUST_QUEUED)
    assert round_trips() == before
    assert forecasts.of(first) is not None
    # queued long before the queue was read, and not among what was read of it
    old = made.model_copy(update={"queued_at": made.queued_at - 120})
    told = forecasts.of(old)
    assert told is not None and told.unknown == TOO_FAR
