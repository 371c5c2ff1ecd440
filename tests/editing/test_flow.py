"""Edits with bases of flow matching: Prompt-to-Prompt, SDEdit, DirectEdit and FlowEdit against
their equations, exact sources, and what these families refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from customedit.diffusion.attention_control import AttentionControl
from customedit.diffusion.base import Base
from customedit.diffusion.engine import run
from customedit.diffusion.text import TextContext
from customedit.editing.editor import Editor
from customedit.editing.flow_edit import flow_edit
from customedit.editing.inversion import invert, reconstruct
from customedit.editing.method_settings import FlowEditSettings, P2PSettings
from customedit.editing.prompt_to_prompt import prompt_to_prompt
from customedit.errors import InputError
from customedit.schemas.methods import EditMethod, P2POptions

from ..diffusion import flow_folders as folders

SOURCE, TARGET = "a photo of a cup on a table", "a photo of a red cup on a table"
STEPS, GUIDANCE = 4, 3.0
KINDS = ("sd3", "flux")


@pytest.fixture(scope="module")
def bases() -> dict[str, Base]:
    return {
        "sd3": folders.wrapped(folders.sd3()),
        "flux": folders.wrapped(folders.flux()),
    }


@pytest.fixture
def latents() -> Tensor:
    return torch.randn(1, 4, 16, 24, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    levels = np.random.default_rng(0).integers(0, 255, (8, 12, 3), np.uint8)
    return Image.fromarray(levels).resize((48, 32), Image.Resampling.BICUBIC)


def times_of(base: Base, latents: Tensor) -> list[tuple[float, float]]:
    pairs = base.schedule.sized(*latents.shape[-2:]).downwards(STEPS)
    return [(high / 1000, max(low, 0) / 1000) for high, low in pairs]


def velocity(base: Base, x: Tensor, sigma: float, rows: list[TextContext], **more: Any) -> Tensor:
    with torch.no_grad():
        return base.predict(x, 1000 * sigma, rows, **more).noise


def guided(base: Base, x: Tensor, sigma: float, text: TextContext, scale: float) -> Tensor:
    """The plain reference: two forwards, or one that is told."""
    import dataclasses

    if base.family.guided(text, text, scale) != (text, text):
        return velocity(base, x, sigma, [dataclasses.replace(text, guidance=scale)])
    none, worded = (velocity(base, x, sigma, [t]) for t in (base.text(""), text))
    return none + scale * (worded - none)


@pytest.mark.parametrize("kind", KINDS)
def test_an_inversion_goes_up_by_eulers_steps(
    kind: str, bases: dict[str, Base], latents: Tensor
) -> None:
    base = bases[kind]
    inversion = run(base, invert(base, latents, SOURCE, steps=STEPS))
    x, text = latents, base.text(SOURCE)
    assert torch.equal(inversion.trajectory[:1], latents)
    for k, (high, low) in enumerate(reversed(times_of(base, latents))):
        x = x + (high - low) * velocity(base, x, high, [text])
        torch.testing.assert_close(inversion.trajectory[k + 1][None], x, atol=1e-4, rtol=0)
    assert run(base, reconstruct(base, inversion)) is not None


@pytest.mark.parametrize("kind", KINDS)
def test_prompt_to_prompt_takes_the_sources_image_queries_and_keys(
    kind: str, bases: dict[str, Base], latents: Tensor
) -> None:
    base = bases[kind]
    inversion = run(base, invert(base, latents, SOURCE, steps=STEPS))
    source, target = base.text(SOURCE), base.text(TARGET)
    settings = P2PSettings(strength=0.5)
    edit = prompt_to_prompt(base, inversion, source, target, settings=settings, guidance=GUIDANCE)
    result = run(base, edit)
    assert torch.equal(result.source, inversion.picture)  # the source row is exact
    x = inversion.noise
    for k, (high, low) in enumerate(times_of(base, latents)):
        own = base.text("")
        rows = base.family.guided(target, own, GUIDANCE)
        control = AttentionControl.none(len(rows) + 1, 0)
        if k < 2:
            control.self_source[-1] = 0
        stacked = torch.cat([inversion.at(k), *[x] * len(rows)])
        noise = velocity(base, stacked, high, [source, *rows], control=control)[1:]
        if len(rows) == 2:
            noise = noise[:1] + GUIDANCE * (noise[1:] - noise[:1])
        x = x + (low - high) * noise
    torch.testing.assert_close(result.latents, x, atol=1e-4, rtol=0)
    plain = run(
        base,
        prompt_to_prompt(
            base, inversion, source, target, settings=P2PSettings(strength=0), guidance=GUIDANCE
        ),
    )
    assert (plain.latents - result.latents).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("samples", [1, 2])
def test_flow_edit_is_its_algorithm(
    kind: str, samples: int, bases: dict[str, Base], latents: Tensor
) -> None:
    base = bases[kind]
    source, target = base.text(SOURCE), base.text(TARGET)
    settings = FlowEditSettings(strength=0.75, source_guidance=1.5, samples=samples)
    found = run(
        base,
        flow_edit(
            base, latents, source, target, settings=settings, steps=STEPS, guidance=GUIDANCE, seed=9
        ),
    )
    g = torch.Generator().manual_seed(9)
    z = latents
    for high, low in times_of(base, latents)[1:]:
        differences = []
        for noise in torch.randn(samples, *latents.shape[1:], generator=g).split(1):
            z_source = (1 - high) * latents + high * noise
            z_target = z + z_source - latents
            differences.append(
                guided(base, z_target, high, target, GUIDANCE)
                - guided(base, z_source, high, source, 1.5)
            )
        z = z + (low - high) * torch.cat(differences).mean(0, keepdim=True)
    torch.testing.assert_close(found.latents, z, atol=1e-4, rtol=0)
    assert torch.equal(found.source, latents)
    assert (found.latents - latents).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_flow_edit_to_the_same_prompt_is_the_source(
    kind: str, bases: dict[str, Base], latents: Tensor
) -> None:
    base = bases[kind]
    text = base.text(SOURCE)
    settings = FlowEditSettings(source_guidance=GUIDANCE)
    edit = flow_edit(base, latents, text, text, settings=settings, steps=STEPS, guidance=GUIDANCE)
    torch.testing.assert_close(run(base, edit).latents, latents, atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", ["p2p", "sdedit", "flowedit", "directedit"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_method_edits_inside_its_mask_alone(
    kind: str, method: Any, bases: dict[str, Base], picture: Image.Image
) -> None:
    session = Editor(bases[kind]).open(picture, SOURCE)
    mask = torch.zeros(32, 48)
    mask[:, 24:] = 1
    result = session.edit(TARGET, method=method, steps=STEPS, mask=mask, seed=3)
    before, after = (np.asarray(p, np.int16) for p in (picture, result.image))
    assert (before[:, :12] == after[:, :12]).all()
    latents = bases[kind].encode(picture)
    assert torch.equal(result.drawing.latents[..., :10], latents[..., :10]) or method == "sdedit"
    torch.testing.assert_close(
        result.drawing.latents[..., :10], latents[..., :10], atol=1e-5, rtol=0
    )
    assert (result.drawing.latents - latents)[..., 12:].abs().max() > 1e-3


@pytest.mark.parametrize("method", ["p2p", "flowedit", "sdedit"])
@pytest.mark.parametrize("kind", KINDS)
def test_regions_are_read_from_image_to_text_maps(
    kind: str, method: Any, bases: dict[str, Base], picture: Image.Image
) -> None:
    base = bases[kind]
    session = Editor(base).open(picture, SOURCE)
    result = session.edit(TARGET, method=method, steps=STEPS, record=True)
    assert result.region_words == ("cup",)
    maps = result.drawing.maps
    assert maps is not None
    width, height = base.size(*picture.size)
    assert maps.shape == (2, height // 4, width // 4, len(base.text(SOURCE).states))
    assert float(maps.sum(-1).max()) <= STEPS * 1.001  # shares of attention, of image and text
    columns = base.tokens(SOURCE).columns(4)
    heat = torch.nn.functional.max_pool2d(maps[0][..., columns].sum(-1)[None, None], 3, 1, 1)
    grown = torch.nn.functional.interpolate(heat, size=(height // 2, width // 2))[0, 0]
    inside = grown > 0.3 * heat.max()
    assert result.drawing.mask is not None
    assert torch.equal(result.drawing.mask.bool(), inside)


@pytest.mark.parametrize(
    ("options", "field", "why"),
    [
        ({"inversion": "null-text"}, "inversion", "move through the blocks"),
        ({"method": "masactrl"}, "method", "blocks of a UNet"),
        ({"method": "pnp"}, "method", "blocks of a UNet"),
        ({"method": "ddpm"}, "method", "flow matching"),
        ({"p2p": P2POptions(cross_steps=0.3)}, "p2p.cross_steps", "cross maps"),
        ({"p2p": P2POptions(reweight={"red": 2.0})}, "p2p.reweight", "cross maps"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_what_the_family_lacks_is_refused_with_the_reason(
    kind: str, options: dict[str, Any], field: str, why: str, bases: dict[str, Base],
    picture: Image.Image,
) -> None:  # fmt: skip
    session = Editor(bases[kind]).open(picture, SOURCE)
    with pytest.raises(InputError, match=why) as refused:
        session.plan(TARGET, steps=STEPS, **options)
    assert refused.value.field == field
    assert "is not in this family" in str(refused.value)


@pytest.mark.parametrize("kind", KINDS)
def test_strengths_act_by_the_pictures_queries_and_keys_alone(
    kind: str, bases: dict[str, Base], picture: Image.Image
) -> None:
    """There are no cross maps that could follow a strength beside ``self_steps``."""
    session = Editor(bases[kind]).open(picture, SOURCE)
    own = P2POptions(self_steps=0.4)
    with pytest.raises(InputError, match=r"have no effect: p2p\.self_steps is given"):
        session.plan(TARGET, steps=STEPS, p2p=own, strengths=[0.2, 0.8])
    with pytest.raises(InputError, match=r"change: is 0\.8, and has no effect above 0\.5"):
        session.plan(TARGET, steps=STEPS, p2p=own, change=0.8)
    assert session.plan(TARGET, steps=STEPS, p2p=own)


@pytest.mark.parametrize("method", ["p2p", "directedit", "flowedit", "sdedit"])
def test_a_change_of_nearly_nothing_takes_a_step(
    method: EditMethod, bases: dict[str, Base], picture: Image.Image
) -> None:
    session = Editor(bases["sd3"]).open(picture, SOURCE)
    result = session.edit(TARGET, method=method, steps=STEPS, change=1e-12)
    assert result.image.size == picture.size
    assert result.region is not None


def test_one_family_alone_lacks_an_inversion(bases: dict[str, Base], picture: Image.Image) -> None:
    options: dict[str, Any] = {"inversion": "negative-prompt", "steps": STEPS}
    with pytest.raises(InputError, match="no row is unconditional"):
        Editor(bases["flux"]).open(picture, SOURCE).plan(TARGET, **options)
    assert Editor(bases["sd3"]).open(picture, SOURCE).plan(TARGET, **options)


def test_flow_edit_is_not_for_bases_that_predict_noise(picture: Image.Image) -> None:
    session = Editor(Base.load()).open(picture, SOURCE)
    with pytest.raises(InputError, match="needs velocities"):
        session.plan(TARGET, method="flowedit")


def test_a_picture_too_narrow_for_the_positions_is_refused(bases: dict[str, Base]) -> None:
    narrow = Image.new("RGB", (4, 400))
    with pytest.raises(InputError, match="has positions for 24") as refused:
        Editor(bases["sd3"]).open(narrow, SOURCE).plan(TARGET, steps=STEPS)
    assert refused.value.field == "picture"
    assert Editor(bases["flux"]).open(narrow, SOURCE).plan(TARGET, steps=STEPS)
