"""Many methods on one base: the same as alone; cancel, deadline, memory, bad neighbours, turns."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor

from customedit.diffusion import engine as engine_module
from customedit.diffusion.attention_control import AttentionControl
from customedit.diffusion.base import Base, Prediction
from customedit.diffusion.engine import Engine, run
from customedit.diffusion.method import Denoise, Method, Progress, Turn, ask
from customedit.diffusion.text import TextContext, Weighted
from customedit.errors import Cancelled, DeadlineExceeded

from .conftest import change


def draw(base: Base, text: TextContext, steps: int, seed: int) -> Method[Tensor]:
    x = torch.randn((1, base.channels, 16, 16), generator=torch.Generator().manual_seed(seed))
    for k, (time, to) in enumerate(base.schedule.downwards(steps)):
        found = yield from ask(Denoise(x, time, [text]))
        x = base.schedule.step(x, found.noise, time, to)
        yield Progress("draw", k + 1, steps)
    return x


def pair(base: Base, steps: int, seed: int) -> Method[Tensor]:
    """Two rows, the second with the first's self-attention, one recorded."""
    x = torch.randn((2, base.channels, 16, 16), generator=torch.Generator().manual_seed(seed))
    texts = [base.text("a photo of a cup"), base.text("a photo of a ball")]
    control = AttentionControl.none(2, base.length)
    control.self_source[1] = 0
    control.record[0] = True
    for time, to in base.schedule.downwards(steps):
        found = yield from ask(Denoise(x, time, texts, control))
        assert found.maps is not None and found.maps.shape[0] == 1
        x = base.schedule.step(x, found.noise, time, to)
    return x


def test_a_mix_of_methods_gives_what_each_gives_alone(base: Base) -> None:
    a = change(base, "<a>", 1)
    texts = [base.text("a photo of a red cup"), base.text("a <a> vase", [Weighted(a)])]

    def methods() -> list[Method[Tensor]]:
        return [draw(base, texts[0], 4, 0), pair(base, 6, 1), draw(base, texts[1], 5, 2)]

    alone = [run(base, m) for m in methods()]
    engine = Engine(base)
    tickets = [engine.submit(m) for m in methods()]
    while not engine.idle:
        engine.tick()
    for ticket, wanted in zip(tickets, alone, strict=True):
        assert (ticket.result() - wanted).abs().max() <= 1e-4
    assert engine.calls < 4 + 6 + 5
    assert engine.rows == 4 + 2 * 6 + 5


def test_more_rows_than_a_forward_takes_wait_their_turn(base: Base) -> None:
    engine = Engine(base, max_rows=2)
    text = base.text("a cup")
    tickets = [engine.submit(draw(base, text, 2, k)) for k in range(5)]
    while not engine.idle:
        engine.tick()
    assert all(t.result().shape[0] == 1 for t in tickets)
    assert engine.rows == 10 and engine.calls >= 5


def test_a_processor_is_given_no_more_than_it_gains_from(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that fill it are not merged, however many wait; small ones are."""
    assert engine_module.CPU_POSITIONS == 2 * 64 * 64
    monkeypatch.setattr(engine_module, "CPU_POSITIONS", 2 * 16 * 16)  # a fraction of the seconds
    text = base.text("a cup")

    def one(side: int) -> Method[Tensor]:
        x = torch.zeros((1, base.channels, side, side))
        return (yield from ask(Denoise(x, 501, [text]))).noise

    def calls(side: int, count: int) -> int:
        engine = Engine(base)
        tickets = [engine.submit(one(side)) for _ in range(count)]
        while not engine.idle:
            engine.tick()
        assert all(t.result().shape[-1] == side for t in tickets)
        return engine.calls

    assert calls(4, 8) == 1
    assert calls(16, 4) == 2
    assert calls(24, 2) == 2


def test_cancel_and_deadline_end_at_a_yield_and_close_the_method(base: Base) -> None:
    closed: list[str] = []

    def forever(name: str) -> Method[None]:
        try:
            while True:
                yield Turn()
        finally:
            closed.append(name)

    engine = Engine(base)
    stopped, late = engine.submit(forever("a")), engine.submit(forever("b"), timeout=0.0)
    engine.tick()
    stopped.cancel()
    engine.tick()
    with pytest.raises(Cancelled):
        stopped.result()
    with pytest.raises(DeadlineExceeded):
        late.result()
    assert engine.idle and "a" in closed


def test_a_bad_job_harms_no_neighbour(base: Base) -> None:
    def raises() -> Method[None]:
        yield Progress("before", 0, 1)
        raise ZeroDivisionError("mine alone")

    def malformed() -> Method[None]:
        x = torch.zeros((1, base.channels, 16, 16))
        yield Denoise(x, 501, [])  # no text for its row
        return None

    engine = Engine(base)
    good = engine.submit(draw(base, base.text("a cup"), 3, 0))
    bad, worse = engine.submit(raises()), engine.submit(malformed())
    while not engine.idle:
        engine.tick()
    assert torch.equal(good.result(), run(base, draw(base, base.text("a cup"), 3, 0)))
    with pytest.raises(ZeroDivisionError):
        bad.result()
    with pytest.raises(ValueError, match="rows of latents"):
        worse.result()


def test_out_of_memory_splits_the_batch_and_goes_on(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, sizes = base.predict, []

    def small(latents: Tensor, *args: Any, **kw: Any) -> Prediction:
        sizes.append(len(latents))
        if len(latents) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory (injected)")
        return real(latents, *args, **kw)

    monkeypatch.setattr(base, "predict", small)
    engine = Engine(base)
    tickets = [engine.submit(draw(base, base.text("a cup"), 2, k)) for k in range(5)]
    while not engine.idle:
        engine.tick()
    assert all(t.result() is not None for t in tickets)
    assert max(sizes) > 2 and sizes[-1] <= 2  # it learnt


def test_edits_overtake_training_and_training_is_not_starved(base: Base) -> None:
    order: list[str] = []

    def training(steps: int) -> Method[int]:
        for _ in range(steps):
            order.append("train")
            yield Turn()
        return steps

    engine = Engine(base)
    slow = engine.submit(training(6), priority=10)
    engine.tick()
    text = base.text("a cup")
    fast = engine.submit(draw(base, text, 5, 0), on_progress=lambda p: order.append("edit"))
    while not fast.done:
        engine.tick()
    assert order.index("edit") <= 4
    assert order.count("train") >= 4  # a turn in each tick beside the edit
    while not engine.idle:
        engine.tick()
    assert slow.result() == 6


def test_many_threads_may_submit(base: Base) -> None:
    engine = Engine(base)
    text = base.text("a cup")
    results: list[Tensor] = []

    def client(seed: int) -> None:
        results.append(engine.submit(draw(base, text, 2, seed)).result(timeout=60))

    threads = [threading.Thread(target=client, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    while any(t.is_alive() for t in threads):
        engine.tick()
    assert len(results) == 4
