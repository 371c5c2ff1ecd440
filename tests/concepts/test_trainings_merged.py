"""Trainings of several tenants in one engine: merged, apart in everything but the forward."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from customedit.concepts import losses, training
from customedit.concepts.concept import Concept
from customedit.concepts.prompts import ConceptPrompts
from customedit.concepts.settings import TrainingSettings
from customedit.concepts.training import train_concept
from customedit.diffusion.base import Base
from customedit.diffusion.engine import Engine, Ticket, run
from customedit.diffusion.method import Denoise, Learn, Method, Progress, Turn, ask, learn
from customedit.diffusion.text import TextContext
from customedit.errors import Cancelled, TrainingError
from customedit.mini import samples

from ..diffusion import flow_folders, xl_folders

WAYS: list[dict[str, Any]] = [
    {},
    {"recipe": "contained"},
    {"rank": 2},
    {"way": "lora", "rank": 4},
    {"way": "textual-inversion"},
    {"rate_schedule": "linear", "ema": 0.9},
    {"way": "lora", "rank": 3, "train_text_encoder": True},
    {"columns": "token", "snr_gamma": 5.0},
]
"""Eight trainings of as many tenants."""


@pytest.fixture(scope="module")
def base() -> Base:
    return Base.load()


def learning(base: Base, number: int, steps: int) -> Method[Concept]:
    """Training ``number``: a look of its own, its own way, one row a step."""
    look = samples.looks()[number]
    references = [Image.open(p).convert("RGB") for p in look.images[:1]]
    options: dict[str, Any] = {"class_images": 0, "batch": 1, "crops": 1} | WAYS[number]
    if options.get("recipe") or options.get("columns"):
        del options["class_images"]
    settings = TrainingSettings.of(base, steps=steps, seed=number, **options)
    return train_concept(
        base, references, ConceptPrompts(look.token, look.noun, "patterned"), settings
    )


def ended(engine: Engine, tickets: list[Ticket[Any]]) -> None:
    while not all(t.done for t in tickets):
        engine.tick()


def furthest(a: Concept, b: Concept) -> float:
    """The largest difference of any trained number."""
    assert a.tensors.keys() == b.tensors.keys()
    return max(float((a.tensors[n] - b.tensors[n]).abs().max()) for n in a.tensors)


STEPS = 8


@pytest.mark.timeout(600)
def test_alone_and_among_seven_others_end_in_the_same_weights(base: Base) -> None:
    watched = (0, 3)
    alone = {k: run(base, learning(base, k, STEPS)) for k in watched}
    engine = Engine(base)
    tickets = [engine.submit(learning(base, k, STEPS)) for k in range(len(WAYS))]
    ended(engine, tickets)
    assert engine.steps < 1.5 * STEPS  # eight trainings in about as many forwards as one takes
    assert engine.step_rows == len(WAYS) * STEPS
    assert furthest(tickets[0].result(), alone[0]) <= 1e-5
    assert furthest(tickets[3].result(), alone[3]) <= 1e-5
    start = run(base, learning(base, 0, 1))
    assert furthest(start, alone[0]) > 1e-4  # eight steps change more than that


@pytest.mark.parametrize(("kind", "steps"), [("flux", STEPS), ("xl", 3)])
def test_in_float64_nothing_is_left_of_the_difference(kind: str, steps: int) -> None:
    """But the last bit of the float32 numbers that are trained: else merging changes nothing."""
    pipeline = xl_folders.xl() if kind == "xl" else flow_folders.flux()
    profile = flow_folders.profile(pipeline) if kind == "flux" else None
    exact = Base.wrap(pipeline, kind, dtype=torch.float64, profile=profile)
    ways: list[dict[str, Any]] = [
        {"rank": 2},
        {"way": "lora", "rank": 4, "train_text_encoder": True},
        {"way": "lora", "rank": 3, "lora_layers": "all"},
        {"way": "textual-inversion"},
    ]

    def tenant(number: int) -> Method[Concept]:
        way = {"rate": 1e-3, "class_images": 0, "crops": 1} | ways[number % len(ways)]
        references = [Image.open(samples.looks()[number].images[0]).convert("RGB")]
        settings = TrainingSettings.of(exact, steps=steps, seed=number, batch=2, **way)
        return train_concept(exact, references, ConceptPrompts("<a>", "cup"), settings)

    engine = Engine(exact)
    tickets = [engine.submit(tenant(number)) for number in range(8)]
    ended(engine, tickets)
    assert engine.step_rows == 8 * 2 * steps and engine.steps <= 1.5 * steps
    for number in range(len(ways)):
        alone = run(exact, tenant(number))
        assert furthest(tickets[number].result(), alone) <= 1e-7
        assert furthest(tickets[number + 4].result(), alone) > 1e-4  # another tenant's, same way


class Wanted(Exception):
    pass


def plain(
    base: Base, steps: int, seed: int = 0, bad: Callable[[int], Tensor] | None = None
) -> Method[list[float]]:
    """A training of a shift of the text states: its losses. bad: adds to the loss of a step."""
    shift = torch.zeros(base.width, requires_grad=True)
    states = base.text("a photo of a cup").states.detach()
    losses = []

    def texts(*_: object) -> list[TextContext]:
        return [base.context(states + shift)] * 2

    for number in range(steps):
        rng = torch.Generator().manual_seed(1000 * seed + number)
        latents = torch.randn(2, base.channels, 8, 8, generator=rng)

        def loss(output: Tensor, number: int = number) -> tuple[Tensor, dict[str, Tensor]]:
            found = output.square().mean()
            if bad is not None:
                found = found + bad(number)
            return found, {"loss": found}

        request = Learn(
            base, latents, torch.tensor([300, 600]),
            list, texts, loss, [shift],
        )  # fmt: skip
        answer = yield from learn(request)
        with torch.no_grad():
            shift -= 0.01 * answer.of[0]
        losses.append(float(answer.figures["loss"].detach()))
        yield Progress("train", number + 1, steps)
    return losses


def test_what_is_not_finite_or_fails_in_one_never_reaches_the_rest(base: Base) -> None:
    def nan(number: int) -> Tensor:
        return torch.tensor(float("nan") if number == 1 else 0.0)

    def raises(number: int) -> Tensor:
        if number == 2:
            raise Wanted
        return torch.tensor(0.0)

    straight = [run(base, plain(base, 4, seed)) for seed in range(4)]
    engine = Engine(base)
    good = [engine.submit(plain(base, 4, seed)) for seed in range(4)]
    broken = engine.submit(plain(base, 4, 5, raises))
    spoilt = engine.submit(plain(base, 4, 6, nan))
    cancelled = engine.submit(plain(base, 4, 7), on_progress=lambda p: cancelled.cancel())
    ended(engine, [*good, broken, spoilt, cancelled])
    for ticket, wanted in zip(good, straight, strict=True):
        assert ticket.result() == pytest.approx(wanted, rel=1e-5)
    with pytest.raises(Wanted):
        broken.result()
    with pytest.raises(Cancelled):
        cancelled.result()
    found = spoilt.result()
    assert found[1] != found[1] and found[0] == found[0]  # NaN from the second step on


def test_a_diverged_training_ends_alone(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    real = losses.batch_loss

    def poisoned(settings: Any, batch: Any, output: Tensor) -> Any:
        loss, facts = real(settings, batch, output)
        if settings.seed == 1 and output.requires_grad:  # not when the base is looked at
            loss = loss * float("inf")
        return loss, facts | {"loss": loss}

    alone = run(base, learning(base, 0, 3))
    monkeypatch.setattr(training, "batch_loss", poisoned)
    engine = Engine(base)
    one, two = (engine.submit(learning(base, k, 3)) for k in (0, 1))
    ended(engine, [one, two])
    assert furthest(one.result(), alone) <= 1e-5
    with pytest.raises(TrainingError, match="The loss became"):
        two.result()


def test_memory_that_does_not_suffice_halves_the_rows(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, seen = base.output, []

    def small(latents: Tensor, *args: Any) -> Any:
        seen.append(len(latents))
        if len(latents) > 4:
            raise torch.OutOfMemoryError("too many rows")
        return real(latents, *args)

    monkeypatch.setattr(base, "output", small)
    engine = Engine(base)
    tickets = [engine.submit(plain(base, 3, seed)) for seed in range(4)]
    ended(engine, tickets)
    assert seen[0] == 8 and max(seen[3:]) <= 4 and engine.max_step_rows == 4
    assert engine.max_rows == 32  # edits, which take less memory, keep theirs


@pytest.mark.parametrize("kind", ["mini", "xl", "sd3", "flux"])
def test_without_activations_the_gradients_are_the_same(
    kind: str, base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that does not fit is made again, each block computed anew in its backward."""
    if kind != "mini":
        pipeline = xl_folders.xl() if kind == "xl" else getattr(flow_folders, kind)()
        profile = None if kind == "xl" else flow_folders.profile(pipeline)
        base = Base.wrap(pipeline, kind, profile=profile)
    references = [Image.open(samples.looks()[0].images[0]).convert("RGB")]
    tickets, checkpointed = [], []
    real = base.output

    def small(latents: Tensor, *args: Any) -> Any:
        if not base.denoiser.is_gradient_checkpointing:
            raise torch.OutOfMemoryError("too little")
        checkpointed.append(len(latents))
        return real(latents, *args)

    for way in ({"rank": 2}, {"way": "lora", "rank": 2, "lora_layers": "all"}):
        common: dict[str, Any] = {"steps": 2, "class_images": 0, "crops": 1, "rate": 1e-3}
        settings = TrainingSettings.of(base, **common | way)
        alone, tight = Engine(base), Engine(base)
        for engine in (alone, tight):
            with monkeypatch.context() as patch:
                if engine is tight:
                    patch.setattr(base, "output", small)
                words = ConceptPrompts("<a>", "cup")
                tickets.append(engine.submit(train_concept(base, references, words, settings)))
                ended(engine, tickets)
        assert furthest(tickets[-1].result(), tickets[-2].result()) <= 1e-6
        assert alone.checkpointed > tight.checkpointed
        base.family.keep_activations(True)
    assert len(checkpointed) == 4  # two steps, two ways


def test_rows_of_other_shapes_and_bases_and_too_many_do_not_go_together(base: Base) -> None:
    engine = Engine(base, max_rows=4)
    tickets = [engine.submit(plain(base, 2, seed)) for seed in range(3)]
    ended(engine, tickets)
    assert engine.steps == 3 and engine.step_rows == 12  # 4 rows each, in rotation
    small = Engine(base)
    other = small.submit(plain(base, 1))
    latents = torch.randn(1, base.channels, 16, 16)
    text = base.text("a photo of a cup")

    def larger() -> Method[int]:
        leaf = torch.zeros(1, requires_grad=True)

        def loss(output: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            return output.mean() * leaf.sum(), {}

        request = Learn(base, latents, torch.tensor([5]), list, lambda *_: [text], loss, [leaf])
        yield from learn(request)
        return 1

    ended(small, [other, small.submit(larger())])
    assert small.steps == 2


def test_one_text_too_few_is_its_own_fault(base: Base) -> None:
    text = base.text("a photo of a cup")
    leaf = torch.zeros(1, requires_grad=True)

    def wrong() -> Method[None]:
        latents = torch.randn(2, base.channels, 8, 8)
        yield from learn(
            Learn(
                base,
                latents,
                torch.tensor([5, 5]),
                list,
                lambda *_: [text],
                lambda o: (o.mean(), {}),
                [leaf],
            )
        )

    engine = Engine(base)
    good, bad = engine.submit(plain(base, 2)), engine.submit(wrong())
    ended(engine, [good, bad])
    assert len(good.result()) == 2
    with pytest.raises(ValueError, match="2 rows of latents, 1 of text"):
        bad.result()


def test_an_edit_waits_for_one_training_at_a_time(base: Base) -> None:
    """On a processor, where merged rows take more time; the trainings share what is left."""
    text, latents = base.text("a photo of a cup"), torch.randn(1, base.channels, 8, 8)
    rows: list[int] = []

    def editing() -> Method[None]:
        for _ in range(6):
            yield from ask(Denoise(latents, 500, [text]))
            rows.append(engine.step_rows)

    engine = Engine(base)
    tickets: list[Ticket[Any]] = [engine.submit(plain(base, 6, seed)) for seed in range(4)]
    tickets.append(engine.submit(editing()))
    ended(engine, tickets)
    gaps = [b - a for a, b in itertools.pairwise(rows)]
    assert max(gaps) <= 2
    turn = Engine(base)

    def heavy() -> Method[None]:
        yield Turn()

    tickets = [turn.submit(plain(base, 2)), turn.submit(heavy()), turn.submit(plain(base, 2, 1))]
    ended(turn, tickets)
    assert turn.steps == 2 and turn.step_rows == 8
