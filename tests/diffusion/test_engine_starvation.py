"""Methods of low priority are served in the end, whatever else is asked for."""

from __future__ import annotations

import torch

from customedit.diffusion.base import Base
from customedit.diffusion.engine import Engine
from customedit.diffusion.method import Denoise, Method, Turn, ask

AGED = 8
"""Ticks after which a request goes before those of higher priority."""


def one_forward(base: Base) -> Method[None]:
    x = torch.zeros((1, base.channels, 16, 16))
    yield from ask(Denoise(x, 501, [base.text("a cup")]))


def endless(base: Base) -> Method[None]:
    while True:
        yield from one_forward(base)


def one_turn() -> Method[None]:
    yield Turn()


def endless_turns() -> Method[None]:
    while True:
        yield Turn()


def test_a_forward_of_low_priority_waits_for_eight_others_at_most(base: Base) -> None:
    engine = Engine(base, max_rows=1)  # one row in a forward: whoever is chosen keeps others out
    urgent = engine.submit(endless(base), priority=0)
    engine.tick()
    patient = engine.submit(one_forward(base), priority=9)
    served = 0
    while not patient.done:
        engine.tick()
        served += 1
        assert served <= AGED + 3
    assert served > AGED  # until then priority decides
    urgent.cancel()


def test_a_turn_of_low_priority_waits_for_eight_others_at_most(base: Base) -> None:
    engine = Engine(base)
    urgent = [engine.submit(endless_turns(), priority=0) for _ in range(3)]
    patient = engine.submit(one_turn(), priority=9)
    ticks = 0
    while not patient.done:
        engine.tick()
        ticks += 1
        assert ticks <= 4 * (AGED + 1)
    assert ticks > AGED
    for ticket in urgent:
        ticket.cancel()


def test_equal_priorities_are_served_in_rotation(base: Base) -> None:
    turns = {k: 0 for k in range(3)}

    def counting(number: int) -> Method[None]:
        while True:
            yield Turn()
            turns[number] += 1

    engine = Engine(base)
    tickets = [engine.submit(counting(k)) for k in turns]
    for _ in range(12):
        engine.tick()
    assert max(turns.values()) - min(turns.values()) <= 1
    for ticket in tickets:
        ticket.cancel()
