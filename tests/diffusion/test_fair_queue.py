"""Shares of one priority are served alike, however many methods each has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from customedit.diffusion.base import Base, Prediction
from customedit.diffusion.engine import Engine, Ticket
from customedit.diffusion.fair_queue import AGED, FairQueue, Share
from customedit.diffusion.method import Denoise, Method, Turn, ask


@dataclass(frozen=True)
class Waiting:
    """What a queue looks at of a ticket."""

    share: Share
    priority: int = 0


def one_round(queue: FairQueue, waiting: Sequence[Waiting], cost: int = 1) -> Waiting:
    """The one that is served where a forward takes one request."""
    queue.fill(cast(list[Ticket[Any]], list(waiting)))
    chosen = next(iter(queue))
    queue.charge(chosen, cost)
    return cast(Waiting, chosen)


methods_of_tenants = st.dictionaries(
    st.sampled_from("abcd"), st.integers(min_value=1, max_value=16), min_size=2
)


@given(methods_of_tenants)
def test_tenants_are_served_alike_whatever_they_ask_for(methods: dict[str, int]) -> None:
    waiting = [Waiting((t, f"job-of-{t}")) for t, count in methods.items() for _ in range(count)]
    queue = FairQueue()
    served = Counter(one_round(queue, waiting).share[0] for _ in range(12 * len(methods)))
    assert set(served.values()) == {12}


def test_jobs_of_a_tenant_are_served_alike_and_weigh_as_one_tenant() -> None:
    waiting = [Waiting(("a", "large"))] * 16 + [Waiting(("a", "small")), Waiting(("b", "other"))]
    queue = FairQueue()
    served = Counter(one_round(queue, waiting).share for _ in range(40))
    assert served == {("a", "large"): 10, ("a", "small"): 10, ("b", "other"): 20}


def test_what_a_request_costs_counts() -> None:
    queue, waiting = FairQueue(), [Waiting(("large",)), Waiting(("small",))]
    served: Counter[str] = Counter()
    for _ in range(50):
        queue.fill(cast(list[Ticket[Any]], waiting))
        chosen = next(iter(queue))
        queue.charge(chosen, 4 if chosen.share == ("large",) else 1)
        served[chosen.share[0]] += 1
    assert served == {"large": 10, "small": 40}


def test_who_comes_late_neither_waits_nor_catches_up() -> None:
    queue, early = FairQueue(), Waiting(("early",))
    for _ in range(100):
        one_round(queue, [early])
    late = Waiting(("late",))
    served = Counter(one_round(queue, [early, late]).share[0] for _ in range(10))
    assert served == {"early": 5, "late": 5}
    one_round(queue, [early])  # the late one has gone, and comes again
    served = Counter(one_round(queue, [early, late]).share[0] for _ in range(10))
    assert served == {"early": 5, "late": 5}


def test_priority_goes_before_fairness_until_the_other_was_passed_over_eight_times() -> None:
    urgent = [Waiting((tenant,)) for tenant in "ab"]
    patient = Waiting(("c",), priority=9)
    queue = FairQueue()
    order = [one_round(queue, [*urgent, patient]) for _ in range(3 * (AGED + 1))]
    assert [k for k, served in enumerate(order) if served is patient] == [8, 17, 26]


def test_long_use_of_low_priority_does_not_shut_it_out_later() -> None:
    queue, patient = FairQueue(), Waiting(("c",), priority=9)
    for _ in range(1000):
        one_round(queue, [patient])
    urgent = [Waiting((f"{k}",)) for k in range(20)]
    order = [one_round(queue, [*urgent, patient]) for _ in range(100)]
    assert order.count(patient) >= 4


def drawing(base: Base, steps: int, rows: int = 1) -> Method[int]:
    x = torch.zeros((rows, base.channels, 16, 16))
    for _ in range(steps):
        yield from ask(Denoise(x, 501, [base.text("a cup")] * rows))
    return steps


def test_an_edit_of_sixteen_pictures_leaves_half_the_calls_to_a_single_edit(base: Base) -> None:
    engine = Engine(base, max_rows=2)
    steps = 6
    many = [engine.submit(drawing(base, steps, 2), share=("a", "many")) for _ in range(16)]
    engine.tick()
    single = engine.submit(drawing(base, steps, 2), share=("b", "single"))
    ticks = 0
    while not single.done:
        engine.tick()
        ticks += 1
        assert ticks <= 2 * steps + 1
    assert not any(ticket.done for ticket in many[1:])
    for ticket in many:
        ticket.cancel()
    engine.tick()
    assert engine.idle


def test_work_with_gradients_is_shared_alike(base: Base) -> None:
    turns: Counter[str] = Counter()

    def training(tenant: str) -> Method[None]:
        while True:
            yield Turn()
            turns[tenant] += 1

    engine = Engine(base)
    tickets = [
        engine.submit(training(tenant), priority=10, share=(tenant, f"{tenant}-{k}"))
        for tenant, count in (("a", 12), ("b", 1))
        for k in range(count)
    ]
    for _ in range(40):
        engine.tick()
    assert turns == {"a": 20, "b": 20}
    for ticket in tickets:
        ticket.cancel()


def test_a_batch_that_takes_all_has_the_rows_in_the_order_of_their_methods(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the same methods give the same bits, whoever asks for them."""
    seen: list[list[float]] = []
    real = base.predict

    def predict(latents: Tensor, *args: Any, **named: Any) -> Prediction:
        seen.append(latents[:, 0, 0, 0].tolist())
        return real(latents, *args, **named)

    def marked(value: float) -> Method[None]:
        x = torch.full((1, base.channels, 16, 16), value)
        for _ in range(2):
            yield from ask(Denoise(x, 501, [base.text("a cup")]))

    monkeypatch.setattr(base, "predict", predict)
    engine = Engine(base)
    for value, share in enumerate(["a", "a", "b", "a", "c"]):
        engine.submit(marked(value / 10), share=(share,))
    while not engine.idle:
        engine.tick()
    assert [[round(v, 1) for v in rows] for rows in seen] == [[0.0, 0.1, 0.2, 0.3, 0.4]] * 2
