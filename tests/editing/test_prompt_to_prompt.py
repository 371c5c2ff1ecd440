"""Prompt-to-Prompt against a plain reference; direct inversion's source row; bad settings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image

from customedit.diffusion.base import Base
from customedit.diffusion.engine import run
from customedit.editing.inversion import Inversion, invert
from customedit.editing.method_settings import P2PSettings
from customedit.editing.prompt_to_prompt import prompt_to_prompt
from customedit.errors import InputError

from .reference import PlainEdit, plain_edit

STEPS, GUIDANCE = 6, 5.0
SOURCE = "a photo of a red cup on a wooden table"


@pytest.fixture(scope="module")
def inversion(base: Base, picture: Image.Image) -> Inversion:
    return run(base, invert(base, base.encode(picture), SOURCE, kind="ddim", steps=STEPS))


# Columns count the start token: a1 photo2 of3 a4 red5 cup6 on7 a8 wooden9 table10 end11.
_INSERTED = "a photo of a glossy red cup on a wooden table"  # glossy at 5, the rest one later
_SWAPPED = "a photo of a blue ball on a wooden table"


def _refined(length: int) -> dict[int, list[tuple[int, float]]]:
    before = {j: j for j in range(5)} | {j: j - 1 for j in range(6, 13)}
    padding = {j: j for j in range(13, length)}
    return {j: [(i, 1.0)] for j, i in (before | padding).items()}


def _cases(length: int) -> dict[str, tuple[str, P2PSettings, PlainEdit]]:
    same = {j: [(j, 1.0)] for j in range(length)}
    return {
        "refine": (
            _INSERTED,
            P2PSettings(cross_steps=0.8, self_steps=0.5),
            PlainEdit(_refined(length), cross=5, own=3),  # int(0.8 x 7)
        ),
        "replace": (
            _SWAPPED,
            P2PSettings(way="replace", strength=0.5),
            PlainEdit(same, cross=3, own=3),
        ),
        "reweight": (
            _INSERTED,
            P2PSettings(strength=0.67, reweight={"glossy": 3.0, "cup": 0.5}),
            PlainEdit(_refined(length), cross=4, own=4, factors={5: 3.0, 7: 0.5}),
        ),
        "per-word steps": (
            _SWAPPED,
            P2PSettings(way="replace", strength=1.0, words={"ball": (0.5, 0.84)}),
            PlainEdit(same, cross=6, own=6, spans={6: (3, 5)}),
        ),
        "blend by the source": (
            _SWAPPED,
            P2PSettings(strength=0.5, blend_over="source", blend_words=("cup",), blend_start=0.34),
            PlainEdit(
                {k: v for k, v in same.items() if k not in (5, 6)},
                cross=3, own=3, blend=[[6]], blend_from=2,
            ),
        ),
        "blend by both": (
            _SWAPPED,
            P2PSettings(
                strength=0.5, blend_over="union", blend_words=("cup",),
                blend_target_words=("ball",), blend_start=0.0,
            ),
            PlainEdit(
                {k: v for k, v in same.items() if k not in (5, 6)},
                cross=3, own=3, blend=[[6], [6]], blend_from=0,
            ),
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", list(_cases(40)))
def test_equals_the_plain_reference(name: str, base: Base, inversion: Inversion) -> None:
    prompt, settings, plain = _cases(base.length)[name]
    texts = [base.text(SOURCE), base.text(prompt)]
    got = run(
        base,
        prompt_to_prompt(base, inversion, *texts, settings=settings, guidance=GUIDANCE),
    )
    empty = base.text("").states
    schedule = base.schedule
    wanted = plain_edit(
        base.denoiser,
        schedule.step,
        schedule.downwards(STEPS),
        schedule.noise,
        inversion.noise,
        torch.stack([empty, empty, texts[0].states, texts[1].states]),
        plain,
        GUIDANCE,
    )
    assert (got.source - wanted[:1]).abs().max() <= 1e-4
    assert (got.latents - wanted[1:]).abs().max() <= 1e-4
    assert (got.latents - got.source).abs().max() > 0.1  # it is an edit


def test_direct_inversion_puts_the_source_row_back(base: Base, picture: Image.Image) -> None:
    latents = base.encode(picture)
    inversion = run(base, invert(base, latents, SOURCE, steps=STEPS))
    texts = base.text(SOURCE), base.text(_SWAPPED)
    got = run(base, prompt_to_prompt(base, inversion, *texts, record=True))
    assert (got.source - latents).abs().max() <= 1e-5
    assert got.maps is not None and got.maps.shape == (2, 16, 16, base.length)


def test_outside_the_blend_the_source_stays(base: Base, picture: Image.Image) -> None:
    latents = base.encode(picture)
    inversion = run(base, invert(base, latents, SOURCE, steps=STEPS))
    settings = P2PSettings(blend_over="source", blend_words=("cup",))
    texts = base.text(SOURCE), base.text(_SWAPPED)
    got = run(base, prompt_to_prompt(base, inversion, *texts, settings=settings))
    assert got.mask is not None
    outside = got.mask == 0
    assert 0.2 < outside.float().mean() < 1
    assert (got.latents - latents)[0][:, outside].abs().max() <= 1e-5


def test_a_users_own_mask_and_subtracted_words(base: Base, picture: Image.Image) -> None:
    inversion = run(base, invert(base, base.encode(picture), SOURCE, steps=STEPS))
    texts = base.text(SOURCE), base.text(_SWAPPED)
    mask = torch.zeros(128, 128)
    mask[:, 64:] = 1
    settings = P2PSettings(blend_over="mask")
    got = run(base, prompt_to_prompt(base, inversion, *texts, settings=settings, mask=mask))
    assert got.mask is not None and torch.equal(got.mask[:, 8:], torch.ones(16, 8))
    whole = P2PSettings(blend_over="source", blend_words=("cup", "table"))
    less = P2PSettings(blend_over="source", blend_words=("cup", "table"), subtract=("table",))
    areas = [
        run(base, prompt_to_prompt(base, inversion, *texts, settings=s)).mask for s in (whole, less)
    ]
    assert areas[0] is not None and areas[1] is not None
    assert areas[1].sum() < areas[0].sum()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"blend_over": "source", "blend_words": ("jug",)}, "source_prompt: has no word 'jug'"),
        ({"reweight": {"green": 2.0}}, "target_prompt: has no word 'green'"),
        ({"words": {"jug": (0.0, 1.0)}}, "target_prompt: has no word 'jug'"),
        ({"blend_over": "mask"}, "mask: is missing"),
        ({"blend_over": "union", "blend_words": ("cup",)}, "blend_target_words"),
    ],
)
def test_settings_that_do_not_fit_the_prompts(
    settings: dict[str, Any], says: str, base: Base, inversion: Inversion
) -> None:
    texts = base.text(SOURCE), base.text(_SWAPPED)
    with pytest.raises(InputError, match=says):
        run(base, prompt_to_prompt(base, inversion, *texts, settings=P2PSettings(**settings)))


def test_word_swap_of_prompts_of_other_lengths_is_refused(base: Base, inversion: Inversion) -> None:
    texts = base.text(SOURCE), base.text(_INSERTED)
    with pytest.raises(InputError, match=r"11 words.*10"):
        run(base, prompt_to_prompt(base, inversion, *texts, settings=P2PSettings(way="replace")))


def test_settings_out_of_range() -> None:
    with pytest.raises(InputError, match=r"strength: 1\.5"):
        P2PSettings(strength=1.5)
    with pytest.raises(InputError, match="blend_words: are missing"):
        P2PSettings(blend_over="source")
