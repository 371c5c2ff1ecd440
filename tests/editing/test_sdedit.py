"""SDEdit against a plain loop on diffusers' scheduler; what strength means; its region."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from customedit.diffusion.attention_control import AttentionControl
from customedit.diffusion.base import Base
from customedit.diffusion.engine import Engine, run
from customedit.diffusion.method import Denoise, Method, ask
from customedit.diffusion.schedule import CLEAN
from customedit.diffusion.text import TextContext
from customedit.editing.edit import draw
from customedit.editing.editor import Editor, Session
from customedit.editing.method_settings import SDEditSettings
from customedit.editing.plan import EditPlan
from customedit.editing.region import Blend, word_columns
from customedit.editing.sdedit import first_step, sdedit
from customedit.errors import InputError
from customedit.images.masks import read_mask
from customedit.mini import samples

SOURCE = "a photo of a cup on a table"
TARGET = "a photo of a blue cup on a table"


def edited(
    base: Base, latents: Tensor, text: TextContext, strength: float, **options: Any
) -> Tensor:
    """The latents of an edit of the whole picture."""
    settings = SDEditSettings(strength=strength)
    return run(base, sdedit(base, latents, text, settings=settings, **options)).latents


def test_equals_a_plain_loop(base: Base, picture: Image.Image) -> None:
    latents, text = base.encode(picture), base.text("a photo of a blue cup")
    got = edited(base, latents, text, 0.5, steps=10, guidance=5.0, seed=3)
    scheduler = type(base.pipeline.scheduler).from_config(base.pipeline.scheduler.config)
    scheduler.set_timesteps(10)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(3))
    times = scheduler.timesteps[5:]
    x = scheduler.add_noise(latents, noise, times[:1])
    contexts = [base.text(""), text]
    with torch.no_grad():
        for time in times:
            none, worded = base.output(torch.cat([x, x]), int(time), contexts)[0].chunk(2)
            x = scheduler.step(none + 5.0 * (worded - none), time, x).prev_sample
    assert (got - x).abs().max() <= 1e-4


def test_more_strength_is_further_from_the_source(base: Base, picture: Image.Image) -> None:
    latents, text = base.encode(picture), base.text("a photo of a blue ball on a red table")
    away = [
        float((edited(base, latents, text, s, steps=10) - latents).square().mean())
        for s in (0.1, 0.5, 1.0)
    ]
    assert away[0] < away[1] < away[2]


def test_equal_seeds_give_equal_edits(base: Base, picture: Image.Image) -> None:
    latents, text = base.encode(picture), base.text("a photo of a blue cup")
    one, same, other = (edited(base, latents, text, 0.6, steps=4, seed=s) for s in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


@given(st.integers(1, 200), st.integers(1, 1000))
def test_strength_is_rounded_to_whole_steps_half_upwards(steps: int, thousandths: int) -> None:
    drawn = steps - first_step(thousandths / 1000, steps)
    exact = Decimal(thousandths) * steps / 1000
    assert drawn == max(1, int(exact.quantize(Decimal(1), ROUND_HALF_UP)))


@pytest.mark.parametrize(
    ("strength", "steps", "drawn"),
    [(0.25, 10, 3), (0.24, 10, 2), (0.35, 10, 4), (0.5, 3, 2), (0.5, 5, 3), (0.04, 10, 1),
     (0.99, 50, 50), (0.98, 50, 49), (0.61, 50, 31)],
)  # fmt: skip
def test_how_many_steps_a_strength_draws(strength: float, steps: int, drawn: int) -> None:
    assert steps - first_step(strength, steps) == drawn


def test_a_mask_keeps_the_source_at_each_steps_noise(base: Base, picture: Image.Image) -> None:
    """Against the loop written out: outside the mask each step starts from the noised source."""
    latents, text = base.encode(picture), base.text("a photo of a blue cup")
    mask = torch.zeros(128, 128)
    mask[:, :64] = 1
    kept_to = SDEditSettings(strength=0.5, blend_over="mask")
    method = sdedit(base, latents, text, settings=kept_to, steps=4, seed=3, mask=mask)
    got = run(base, method).latents
    inside = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    inside[..., :8] = True
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(3))
    times = base.schedule.times(4)[2:]
    x = base.schedule.add_noise(latents, noise, times[0])
    with torch.no_grad():
        for time, to in ((times[0], times[1]), (times[1], CLEAN)):
            none, worded = base.predict(torch.cat([x, x]), time, [base.text(""), text]).noise
            x = base.schedule.step(x, none[None] + 7.5 * (worded - none)[None], time, to)
            kept = latents if to == CLEAN else base.schedule.add_noise(latents, noise, to)
            x = torch.where(inside, x, kept)
    assert torch.allclose(got, x, atol=1e-4)
    assert torch.equal(got[..., 8:], latents[..., 8:])


def test_strength_has_its_limits() -> None:
    assert first_step(1.0, 50) == 0 and first_step(0.6, 50) == 20 and first_step(0.001, 50) == 49
    for bad in (0.0, 1.1, -1.0):
        with pytest.raises(InputError, match="strength"):
            first_step(bad, 50)


# the region of words


@pytest.fixture(scope="module")
def session(base: Base, picture: Image.Image) -> Session:
    return Editor(base).open(picture, SOURCE)


def maps_of(base: Base, latents: Tensor, time: Any, text: TextContext) -> Method[Tensor]:
    """The model's maps of ``latents`` under ``text`` alone, [1, rows, columns, tokens]."""
    control = AttentionControl.none(1, base.family.mapped_tokens)
    control.record[0] = True
    answer = yield from ask(Denoise(latents, time, [text], control))
    assert answer.maps is not None
    return answer.maps


def test_words_hold_the_edit_where_the_noised_source_has_them(
    base: Base, picture: Image.Image
) -> None:
    """Against the loop written out: the source under the same noise is read at each step."""
    latents, steps, seed = base.encode(picture), 4, 3
    source, target = base.text(SOURCE), base.text(TARGET)
    settings = SDEditSettings(strength=0.75, blend_over="source", blend_words=("cup",))
    method = sdedit(
        base, latents, target, source=source, settings=settings, steps=steps, guidance=5.0,
        seed=seed, record=True,
    )  # fmt: skip
    got = run(base, method)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))
    pairs = base.schedule.downwards(steps)[1:]
    x = base.schedule.add_noise(latents, noise, pairs[0][0])
    assert source.tokens is not None
    columns, blend = [word_columns(source.tokens, "cup", "")], Blend((16, 16))
    for time, to in pairs:
        noised = base.schedule.add_noise(latents, noise, time)
        blend.accumulate(run(base, maps_of(base, noised, time, source)).flatten(1, 2))
        none, worded = base.predict(torch.cat([x, x]), time, [base.text(""), target]).noise.split(1)
        x = base.schedule.step(x, none + 5.0 * (worded - none), time, to)
        kept = latents if to == CLEAN else base.schedule.add_noise(latents, noise, to)
        mask = blend.mask(columns, (16, 16))
        x = torch.where(mask.bool(), x, kept)
    assert (got.latents - x).abs().max() <= 1e-4
    assert got.mask is not None and torch.equal(got.mask, mask[0, 0])
    assert got.maps is not None and len(got.maps) == 2
    outside = mask[0].expand(latents.shape[1], -1, -1) == 0
    assert outside.any() and torch.equal(got.latents[0][outside], latents[0][outside])


def test_the_region_of_words_lies_on_their_thing(base: Base) -> None:
    """And every pixel beyond it is the upload's own."""
    source = samples.sources()[3]
    picture = Image.open(source.image).convert("RGB")
    thing = read_mask(source.mask).values >= 0.5
    session = Editor(base).open(picture, source.prompt)
    target = source.prompt.replace(source.noun, f"blue {source.noun}")
    result = session.edit(target, method="sdedit", steps=8)
    assert result.region_words == (source.noun,) and result.plan.preserve and result.plan.outline
    assert result.region is not None
    inside = result.region.numpy() >= 0.5
    assert (inside & thing).sum() / (inside | thing).sum() > 0.5
    changed = (np.asarray(picture) != np.asarray(result.image)).any(2)
    reach = int(result.plan.feather) + 1
    near = F.max_pool2d(result.region[None], 2 * reach + 1, 1, reach)[0].numpy() > 0
    assert changed.any() and not near.all() and not changed[~near].any()


def test_without_words_of_the_picture_all_of_it_may_change(
    base: Base, picture: Image.Image, session: Session
) -> None:
    """As with words and ``blend_over`` none, to the same bits."""
    unsaid = Editor(base).open(picture).edit(TARGET, method="sdedit", steps=3)
    free = session.edit(TARGET, method="sdedit", steps=3, sdedit={"blend_over": "none"})
    worded = session.edit(TARGET, method="sdedit", steps=3)
    assert unsaid.region is None and free.region is None and not unsaid.plan.preserve
    assert torch.equal(unsaid.drawing.latents, free.drawing.latents)
    assert not torch.equal(unsaid.drawing.latents, worded.drawing.latents)


def test_a_mask_is_kept_to_from_the_first_step_on_with_words_and_without(
    base: Base, picture: Image.Image, session: Session
) -> None:
    """Whoever paints a mask says more than the prompts; named words and a mask both hold."""
    mask = torch.zeros(128, 128)
    mask[:, :64] = 1
    common: dict[str, Any] = {"method": "sdedit", "strength": 1.0, "steps": 3, "mask": mask}
    masked = session.edit(TARGET, **common)
    unsaid = Editor(base).open(picture).edit(TARGET, **common)
    assert torch.equal(masked.drawing.latents, unsaid.drawing.latents)
    assert masked.plan.sdedit is not None and masked.plan.sdedit.blend_start == 0
    both = session.edit(TARGET, **common, sdedit={"blend_words": ["cup"]}).drawing.mask
    assert both is not None and masked.drawing.mask is not None
    assert 0 < both.sum() < masked.drawing.mask.sum() and both[:, 8:].sum() == 0


def test_strengths_share_what_they_can_and_come_out_as_alone(
    base: Base, picture: Image.Image, session: Session
) -> None:
    plans = session.plan(TARGET, method="sdedit", strengths=[0.5, 1.0], steps=2)
    engine = Engine(base)
    tickets = [
        engine.submit(draw(base, plan, picture))
        for plan in [*plans, *session.plan(TARGET, method="ddpm", steps=2)]
    ]
    while not engine.idle:
        engine.tick()
    shared = session.run(plans)
    for plan, ticket, result in zip(plans, tickets, shared, strict=False):
        (alone,) = session.run([plan])
        for drawn in (ticket.result(), result.drawing):
            assert torch.equal(drawn.latents, alone.drawing.latents)
            assert drawn.mask is not None and alone.drawing.mask is not None
            assert torch.equal(drawn.mask, alone.drawing.mask)


def test_a_recipe_of_an_earlier_version_is_what_it_was(base: Base, picture: Image.Image) -> None:
    """There SDEdit had no settings, whatever words it was given."""
    session = Editor(base).open(picture, SOURCE)
    mask = torch.zeros(128, 128)
    mask[:, :64] = 1
    free = session.plan(TARGET, method="sdedit", steps=2, sdedit={"blend_over": "none"})[0]
    masked = session.plan(TARGET, method="sdedit", steps=2, strengths=[1.0], mask=mask)[0]
    for plan, held in ((free, None), (masked, mask)):
        recipe = {name: v for name, v in plan.as_json().items() if name != "sdedit"}
        old = EditPlan.read(recipe)
        assert old.sdedit is None and old.settings.blend_over == plan.settings.blend_over
        again = Editor(base).replay(old, picture, mask=held)
        (wanted,) = session.run([plan], mask=held)
        assert torch.equal(again.drawing.latents, wanted.drawing.latents)
    with pytest.raises(InputError, match=r"recipe\.p2p: is missing"):
        EditPlan.read(free.as_json() | {"method": "p2p"})
