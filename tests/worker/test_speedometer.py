"""What a worker measures of itself: lines over rows, at the pace of the machine as it is now."""

from __future__ import annotations

import itertools

import pytest

from customedit.estimates import speed
from worker.speedometer import SETTLED, Speedometer

CALL = speed.call(256)


def measure(meter: Speedometer, calls: int, slower: float = 1.0) -> None:
    """Calls of 1 and 3 rows by turns, of 0.01 s and 0.01 s a row, times ``slower``."""
    for rows in itertools.islice(itertools.cycle((1, 3)), calls):
        meter.call(rows, 256, slower * (0.01 + 0.01 * rows))


def told(meter: Speedometer, rows: int) -> float:
    found = meter.lines()[CALL].seconds(rows)
    assert found is not None
    return found


def test_a_machine_that_slows_down_is_told_so_within_a_job_or_two() -> None:
    meter = Speedometer()
    measure(meter, 2000)
    assert told(meter, 9) == pytest.approx(0.1)
    measure(meter, 250, slower=2)
    assert told(meter, 9) == pytest.approx(0.2, rel=0.1)  # the line alone: 0.12
    measure(meter, 250)
    assert told(meter, 9) == pytest.approx(0.1, rel=0.1)
    measure(meter, 6000, slower=2)  # what lasts becomes the line, and the pace is as usual
    assert told(meter, 9) == pytest.approx(0.2, rel=0.05)
    assert meter.pace() == pytest.approx(1, rel=0.05)


def test_the_first_calls_set_no_pace_and_jobs_have_their_own_seconds() -> None:
    meter = Speedometer()
    measure(meter, SETTLED)
    assert meter.pace() == 1
    meter.turn("", 5.0)  # is no step of a training
    meter.turn("t", 0.5)
    meter.job("edit", 1, 0.7, alone=True)
    measure(meter, 1000, slower=3)
    lines = meter.lines()
    assert lines["edit"].seconds(1) == pytest.approx(0.7)
    assert set(lines) == {CALL, speed.turn("t"), "edit"}
    assert meter.accounted == pytest.approx(0.5 + SETTLED * 0.03 + 3000 * 0.03)
