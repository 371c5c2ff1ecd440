"""MasaCtrl, Plug-and-Play, edit-friendly DDPM, DirectEdit and the guidance interval against plain
references; what all editors promise."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from customedit.diffusion.attention_control import AttentionControl
from customedit.diffusion.base import Base, Prediction
from customedit.diffusion.ddim import DDIMSchedule
from customedit.diffusion.engine import Engine, run
from customedit.diffusion.method import Denoise, Method
from customedit.diffusion.schedule import CLEAN, Time
from customedit.diffusion.text import TextContext
from customedit.editing.direct_edit import direct_edit
from customedit.editing.edit_friendly import edit_friendly
from customedit.editing.editor import Editor, Session
from customedit.editing.guidance import Guidance
from customedit.editing.inversion import Inversion, invert
from customedit.editing.masactrl import masactrl
from customedit.editing.method_settings import (
    DirectEditSettings,
    EditFriendlySettings,
    MasaCtrlSettings,
    P2PSettings,
    PlugAndPlaySettings,
    SDEditSettings,
    first_drawn_step,
    strength_of_change,
)
from customedit.editing.plug_and_play import plug_and_play
from customedit.editing.prompt_to_prompt import prompt_to_prompt
from customedit.editing.sdedit import sdedit
from customedit.errors import InputError
from customedit.schemas.methods import EditMethod

from . import written_out as plain
from .conftest import NOISE_METHODS

STEPS, GUIDANCE = 5, 5.0
SOURCE = "a photo of a red cup on a wooden table"
TARGET = "a photo of a blue ball on a wooden table"
METHODS = NOISE_METHODS
Noise = Callable[[int, Time, Tensor, Tensor], Tensor]


@pytest.fixture(scope="module")
def inversion(base: Base, picture: Image.Image) -> Inversion:
    return run(base, invert(base, base.encode(picture), SOURCE, steps=STEPS))


@pytest.fixture(scope="module")
def texts(base: Base) -> tuple[TextContext, TextContext]:
    return base.text(SOURCE), base.text(TARGET)


@pytest.fixture(scope="module")
def order(base: Base, inversion: Inversion) -> list[str]:
    found = plain.depths(base.denoiser, lambda: base.output(inversion.noise, 500, [base.text("")]))
    assert [f"{name}.processor" for name in base.self_layers] == found
    return found


@torch.no_grad()
def beside(base: Base, inversion: Inversion, noise: Noise, keep: Tensor | None = None) -> Tensor:
    """The target beside a source on its trajectory: DDIM with guidance, kept to ``keep``."""
    path = list(inversion.trajectory.flip(0)[:, None])
    x = path[0]
    for k, (time, to) in enumerate(base.schedule.downwards(STEPS)):
        none, worded = noise(k, time, path[k], x)[1:].split(1)
        x = base.schedule.step(x, none + GUIDANCE * (worded - none), time, to)
        if keep is not None and k >= 1:  # from 0.2 of the steps on
            x = path[k + 1] + keep * (x - path[k + 1])
    return x


def asked(base: Base, texts: tuple[TextContext, TextContext]) -> Noise:
    """What the stock UNet says to rows of source, unconditional and target."""
    states = torch.stack([texts[0].states, base.text("").states, texts[1].states])

    def noise(step: int, time: Time, source: Tensor, x: Tensor) -> Tensor:
        rows = torch.cat([source, x, x])
        return base.schedule.noise(base.denoiser(rows, time, states).sample, rows, time)

    return noise


def test_masactrl_equals_the_equations(
    base: Base, inversion: Inversion, texts: tuple[TextContext, TextContext], order: list[str]
) -> None:
    settings = MasaCtrlSettings(strength=0.6, layer=0.5)  # from step 2, from layer 3 of 7
    got = run(base, masactrl(base, inversion, *texts, settings=settings, guidance=GUIDANCE))
    ask = asked(base, texts)

    def noise(step: int, *rest: Any) -> Tensor:
        rule = plain.taking("kv", [1, 2], 3) if step >= 2 else plain.plain
        with plain.writing_out(base.denoiser, order, rule):
            return ask(step, *rest)

    wanted = beside(base, inversion, noise)
    assert (got.latents - wanted).abs().max() <= 1e-4
    assert (got.latents - inversion.picture).abs().max() > 0.1


def test_masactrl_within_a_region_equals_the_equations(
    base: Base, inversion: Inversion, texts: tuple[TextContext, TextContext], order: list[str]
) -> None:
    mask = torch.zeros(128, 128)
    mask[16:112, 32:96] = 1
    settings = MasaCtrlSettings(strength=0.8, layer=0.0, blend_over="mask")
    method = masactrl(base, inversion, *texts, settings=settings, guidance=GUIDANCE, mask=mask)
    got = run(base, method)
    ask = asked(base, texts)
    cells = torch.nn.functional.avg_pool2d(mask[None], 8)[0]

    def noise(step: int, *rest: Any) -> Tensor:
        rule = plain.mutual_within(cells, 0) if step >= 1 else plain.plain
        with plain.writing_out(base.denoiser, order, rule):
            return ask(step, *rest)

    wanted = beside(base, inversion, noise, keep=cells)
    assert (got.latents - wanted).abs().max() <= 1e-4
    free = MasaCtrlSettings(strength=0.8, layer=0.0, blend_over="mask", within_region=False)
    method = masactrl(base, inversion, *texts, settings=free, guidance=GUIDANCE, mask=mask)
    assert (run(base, method).latents - wanted).abs().max() > 1e-3


def test_plug_and_play_equals_the_equations(
    base: Base, inversion: Inversion, texts: tuple[TextContext, TextContext], order: list[str]
) -> None:
    settings = PlugAndPlaySettings(strength=0.8, attention_steps=0.4, block=0.5, layer=0.5)
    got = run(base, plug_and_play(base, inversion, *texts, settings=settings, guidance=GUIDANCE))
    ask = asked(base, texts)
    resnet = base.denoiser.up_blocks[1].resnets[0]  # block 2 of 4

    def noise(step: int, *rest: Any) -> Tensor:
        rule = plain.taking("qk", [1, 2], 3) if step < 2 else plain.plain
        features = plain.features_of_row_0(resnet) if step < 4 else contextlib.nullcontext()
        with plain.writing_out(base.denoiser, order, rule), features:
            return ask(step, *rest)

    wanted = beside(base, inversion, noise)
    assert (got.latents - wanted).abs().max() <= 1e-4


def test_direct_edit_equals_the_equations(
    base: Base, inversion: Inversion, texts: tuple[TextContext, TextContext], order: list[str]
) -> None:
    settings = DirectEditSettings(strength=0.4)
    got = run(base, direct_edit(base, inversion, *texts, settings=settings, guidance=GUIDANCE))
    ask, path = asked(base, texts), list(inversion.trajectory.flip(0)[:, None])

    def noise(step: int, time: Time, source: Tensor, x: Tensor) -> Tensor:
        rule = plain.taking("v", [2], 0) if step < 2 else plain.plain
        shift = path[step + 1] - path[step]
        with plain.writing_out(base.denoiser, order, rule):
            found = ask(step, time, source + shift, x + shift)
        replayed = base.schedule.step(
            source, found[:1], time, base.schedule.downwards(STEPS)[step][1]
        )
        assert (replayed - path[step + 1]).abs().max() <= 1e-4  # the inversion's step, reversed
        return found

    wanted = beside(base, inversion, noise)
    assert (got.latents - wanted).abs().max() <= 1e-4


@torch.no_grad()
@pytest.mark.parametrize("source_guidance", [3.5, 1.0])
def test_edit_friendly_equals_the_equations(
    base: Base, picture: Image.Image, texts: tuple[TextContext, TextContext], source_guidance: float
) -> None:
    latents, schedule = base.encode(picture), base.schedule
    assert isinstance(schedule, DDIMSchedule)
    settings = EditFriendlySettings(strength=0.4, source_guidance=source_guidance)
    method = edit_friendly(
        base, latents, *texts, settings=settings, steps=STEPS, guidance=GUIDANCE, seed=3
    )
    got = run(base, method)
    noise = torch.randn((STEPS, *latents.shape[1:]), generator=torch.Generator().manual_seed(3))
    alphas: dict[Any, float] = {
        t: float(schedule.alpha(int(t))) for t in [*schedule.times(STEPS), CLEAN]
    }
    times = schedule.downwards(STEPS)
    xs = [alphas[t] ** 0.5 * latents + (1 - alphas[t]) ** 0.5 * noise[k : k + 1]
          for k, (t, _) in enumerate(times)] + [latents]  # fmt: skip

    def mean_and_deviation(x: Tensor, time: Time, to: Time, text: TextContext, w: float) -> Any:
        rows = torch.cat([x, x])
        none, worded = base.predict(rows, time, [base.text(""), text]).noise.split(1)
        e = none + w * (worded - none)
        clean = (x - (1 - alphas[time]) ** 0.5 * e) / alphas[time] ** 0.5
        variance = (1 - alphas[to]) / (1 - alphas[time]) * (1 - alphas[time] / alphas[to])
        mean = alphas[to] ** 0.5 * clean + (1 - alphas[to] - variance) ** 0.5 * e
        return mean, variance**0.5

    x = xs[2]  # two of five steps are skipped
    for k, (time, to) in list(enumerate(times))[2:]:
        mean, deviation = mean_and_deviation(xs[k], time, to, texts[0], source_guidance)
        z = (xs[k + 1] - mean) / deviation
        mean, deviation = mean_and_deviation(x, time, to, texts[1], GUIDANCE)
        x = mean + deviation * z
    assert (got.latents - x).abs().max() <= 1e-4
    assert torch.equal(got.source, latents)
    same = edit_friendly(
        base, latents, texts[0], texts[0], settings=settings, steps=STEPS,
        guidance=source_guidance, seed=3,
    )  # fmt: skip
    assert (run(base, same).latents - latents).abs().max() <= 1e-4  # the source by its own prompt


@torch.no_grad()
def test_guidance_acts_in_its_interval(base: Base, picture: Image.Image) -> None:
    latents, text, empty = base.encode(picture), base.text(TARGET), base.text("")
    guidance = Guidance(GUIDANCE, 0.4, 0.8)  # steps 4 to 7 of 10
    engine = Engine(base)
    settings = SDEditSettings(strength=0.7)
    ticket = engine.submit(
        sdedit(base, latents, text, settings=settings, steps=10, guidance=guidance, seed=3)
    )
    while not ticket.done:
        engine.tick()
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(3))
    pairs = base.schedule.downwards(10)[3:]
    x = base.schedule.add_noise(latents, noise, pairs[0][0])
    for k, (time, to) in enumerate(pairs, 3):
        none, worded = base.predict(torch.cat([x, x]), time, [empty, text]).noise.split(1)
        w = GUIDANCE if 4 <= k < 8 else 1.0
        x = base.schedule.step(x, none + w * (worded - none), time, to)
    assert (ticket.result().latents - x).abs().max() <= 1e-4
    assert engine.rows == 3 * 1 + 4 * 2  # a row less at the steps without guidance


@pytest.mark.parametrize("kind", ["direct", "ddim"])
def test_an_unguided_step_of_prompt_to_prompt_is_the_conditional_one(
    base: Base, picture: Image.Image, texts: tuple[TextContext, TextContext], kind: Any
) -> None:
    inversion = run(base, invert(base, base.encode(picture), SOURCE, kind=kind, steps=4))
    engine = Engine(base)

    def edited(guidance: Guidance | float) -> Tensor:
        method = prompt_to_prompt(
            base, inversion, *texts, settings=P2PSettings(strength=0.5), guidance=guidance
        )
        ticket = engine.submit(method)
        while not ticket.done:
            engine.tick()
        return ticket.result().latents

    assert (edited(Guidance(GUIDANCE, 0.0, 1e-3)) - edited(1.0)).abs().max() <= 1e-4
    rows = 3 if kind == "direct" else 4
    assert engine.rows == 4 * 2 + 4 * rows
    halves = edited(Guidance(GUIDANCE, 0.0, 0.5)), edited(Guidance(GUIDANCE, 0.5, 1.0))
    assert all((half - edited(GUIDANCE)).abs().max() > 1e-3 for half in halves)


# what all editors promise


def drawn(session: Session, method: EditMethod, **more: Any) -> Method[Any]:
    from customedit.editing.edit import draw

    (plan,) = session.plan(TARGET, method=method, steps=STEPS, **_everywhere(method), **more)
    inversion = None
    if plan.inverts:
        session.editor.edit_all([])  # nothing to draw
        inversion = run(
            session.editor.base,
            invert(session.editor.base, session.editor.base.encode(session.picture), SOURCE,
                   steps=STEPS),
        )  # fmt: skip
    return draw(session.editor.base, plan, session.picture, inversion=inversion)


def _everywhere(method: EditMethod) -> dict[str, Any]:
    return {method: {"blend_over": "none"}}


def test_rows_of_all_methods_mix(base: Base, picture: Image.Image) -> None:
    session = Editor(base).open(picture, SOURCE)
    mask = torch.zeros(128, 128)
    mask[:, :64] = 1

    def methods() -> list[Method[Any]]:
        from customedit.editing.edit import draw

        (masked,) = session.plan(TARGET, method="masactrl", steps=STEPS, mask=mask)
        inverted = run(base, invert(base, base.encode(picture), SOURCE, steps=STEPS))
        within = draw(base, masked, picture, mask=mask, inversion=inverted)
        (worded,) = session.plan(TARGET, method="sdedit", steps=STEPS)
        beside = draw(base, worded, picture)
        return [*(drawn(session, method) for method in METHODS), within, beside]

    alone = [run(base, method) for method in methods()]
    engine = Engine(base)
    tickets = [engine.submit(method) for method in methods()]
    while not engine.idle:
        engine.tick()
    assert engine.calls < len(tickets) * STEPS
    for ticket, solo in zip(tickets, alone, strict=True):
        assert (ticket.result().latents - solo.latents).abs().max() <= 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_equal_plans_give_equal_bits_and_no_change_the_source(
    base: Base, picture: Image.Image, method: EditMethod
) -> None:
    session = Editor(base).open(picture, SOURCE)
    options: dict[str, Any] = {"method": method, "steps": 3, "seeds": [5]}
    plans = session.plan(TARGET, **options)
    first, again = session.run(plans)[0], Editor(base).replay(plans[0], picture)
    assert torch.equal(first.drawing.latents, again.drawing.latents)
    assert first.image.tobytes() == again.image.tobytes()
    assert first.image.tobytes() != picture.tobytes()
    (still,) = session.run(session.plan(TARGET, **options, change=0.0))
    assert still.image.tobytes() == picture.tobytes()
    if method in ("ddpm", "sdedit"):
        (other,) = session.run(session.plan(TARGET, **options | {"seeds": [6]}))
        assert not torch.equal(first.drawing.latents, other.drawing.latents)


def controls(method: Method[Any]) -> list[AttentionControl]:
    """What ``method`` asks of attention at each step, where the model's answer is 0."""
    seen: list[AttentionControl] = []
    answer: Prediction | None = None
    with contextlib.suppress(StopIteration):
        while True:
            request = method.send(answer)
            answer = None
            if isinstance(request, Denoise):
                assert request.control is not None
                seen.append(request.control)
                answer = Prediction(torch.zeros_like(request.latents))
    return seen


@pytest.mark.parametrize(
    ("editor", "large"),
    [(prompt_to_prompt, False), (masactrl, True), (plug_and_play, True), (direct_edit, True)],
)
def test_prompt_to_prompt_alone_leaves_large_self_maps(
    base: Base, inversion: Inversion, texts: tuple[TextContext, TextContext], editor: Any,
    large: bool,
) -> None:  # fmt: skip
    """It replaces those of up to 32 x 32 positions; the others' papers know no such limit."""
    found = []
    for control in controls(editor(base, inversion, *texts, guidance=GUIDANCE)):
        moved = control.self_source != torch.arange(control.rows)
        found += control.self_large[moved].tolist()
    assert found and set(found) == {large}


@pytest.mark.parametrize("method", METHODS)
def test_a_change_of_nearly_nothing_takes_a_step(
    base: Base, picture: Image.Image, method: EditMethod
) -> None:
    """And gives a picture with its region: only a change of 0 is the source itself."""
    session = Editor(base).open(picture, SOURCE)
    target = SOURCE.replace("red", "blue")
    (plan,) = session.plan(target, method=method, steps=50, change=1e-12)
    (result,) = session.run([plan])
    assert not plan.unchanged and result.image.size == picture.size
    assert plan.preserve and result.region is not None
    knobs = strength_of_change(method, 1e-12)
    assert first_drawn_step(method, knobs, 50) == 49


@pytest.mark.parametrize("method", METHODS)
def test_words_make_a_region_in_every_method(
    base: Base, picture: Image.Image, method: EditMethod
) -> None:
    source = "a photo of a red cup on a table"
    session = Editor(base).open(picture, source)
    result = session.edit("a photo of a blue cup on a table", method=method, steps=5, record=True)
    assert result.region_words == ("cup",) and result.plan.preserve
    assert result.drawing.mask is not None and result.region is not None
    outside = result.drawing.mask == 0
    assert 0.1 < outside.float().mean() < 1
    source_latents = base.encode(picture)
    assert (result.drawing.latents - source_latents)[0][:, outside].abs().max() <= 1e-4
    assert result.drawing.maps is not None and len(result.drawing.maps) == 2


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"method": "masactrl", "pnp": {}}, "pnp"),
        ({"method": "pnp", "inversion": "ddim"}, "inversion"),
        ({"method": "masactrl", "masactrl": {"within_region": True, "blend_over": "none"}},
         "masactrl.within_region"),
        ({"method": "ddpm", "strengths": [1.0]}, "strengths"),
        ({"method": "directedit", "seeds": [1, 2]}, "seeds"),
        ({"method": "pnp", "pnp": {"block": 1.0}}, "pnp.block"),
        ({"method": "ddpm", "ddpm": {"source_guidance": 51}}, "ddpm.source_guidance"),
        ({"method": "masactrl", "masactrl": {"blend_words": ["jug"]}}, "source_prompt"),
        ({"guidance_start": 0.5, "guidance_end": 0.5}, "guidance_start"),
        ({"preset": "paper", "method": "sdedit"}, "method"),
        ({"preset": "paper", "inversion": "direct"}, "inversion"),
        ({"preset": "paper", "preserve": True}, "preserve"),
    ],
)  # fmt: skip
def test_options_without_effect_are_refused(
    base: Base, picture: Image.Image, options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InputError) as caught:
        Editor(base).open(picture, SOURCE).plan(SOURCE.replace("red", "blue"), **options)
    assert caught.value.field == field


def test_the_preset_paper_is_the_paper(base: Base, picture: Image.Image) -> None:
    session = Editor(base).open(picture, SOURCE)
    (plan,) = session.plan(SOURCE.replace("red", "blue"), preset="paper")
    assert (plan.method, plan.inversion, plan.preserve) == ("p2p", "null-text", False)
    assert plan.p2p is not None and plan.p2p.way == "refine" and plan.p2p.blend_over == "source"
