"""Numbers that are not finite never become a picture: a black one would look like a result."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from customedit.concepts.class_images import ClassImages
from customedit.concepts.concept import Concept
from customedit.concepts.effect import prove_effect
from customedit.diffusion.base import Base
from customedit.diffusion.engine import run
from customedit.editing.editor import Editor
from customedit.editing.inversion import Inversion
from customedit.editing.sdedit import portrait
from customedit.errors import InputError, NumericalError
from customedit.schemas.methods import P2POptions

from ..diffusion.conftest import change

SOURCE = "a photo of a white cup on a table"
TARGET = "a photo of a red cup on a table"


@pytest.fixture(scope="module")
def broken() -> Base:
    """A base whose UNet predicts numbers that are none."""
    base = Base.load()
    with torch.no_grad():
        base.denoiser.conv_out.bias[1] = float("nan")
    return base


EDITS: dict[str, dict[str, Any]] = {
    "p2p": {},
    "null-text": {"inversion": "null-text"},
    "negative-prompt": {"inversion": "negative-prompt"},
    "ddim": {"inversion": "ddim"},
    "union": {"p2p": P2POptions(blend_over="union", blend_words=["cup"])},
    "mask": {"mask": torch.eye(128), "preserve": True},
    "sdedit": {"method": "sdedit"},
    "sdedit with a mask": {"method": "sdedit", "mask": torch.eye(128)},
}


@pytest.mark.parametrize("name", EDITS)
def test_a_unet_with_nan_gives_no_edit_and_keeps_no_inversion(
    name: str, broken: Base, picture: Image.Image, tmp_path: Path
) -> None:
    session = Editor(broken, inversions=tmp_path).open(picture, SOURCE)
    with pytest.raises(NumericalError, match=r"(result|inversion)'s latents are not finite"):
        session.edit(TARGET, steps=2, **EDITS[name])
    assert not list(tmp_path.iterdir())


def concept_of(base: Base) -> Concept:
    made = change(base, "<a>", 1)
    return Concept(made.tokens, keys=made.keys, values=made.values, noun="cup")


def test_a_unet_with_nan_gives_no_portrait_and_blames_no_concept(broken: Base) -> None:
    concept = concept_of(broken)
    with pytest.raises(NumericalError, match="the result's latents are not finite"):
        run(broken, portrait(broken, concept, "a <a> cup", 2))
    with pytest.raises(NumericalError, match="the base's own predictions are not finite"):
        run(broken, prove_effect(broken, concept))


def overflowing(base: Base) -> Concept:
    """Weights that are finite, as are the keys and values made of them, but not what follows."""
    made = concept_of(base)
    values = {name: weight.sign() * 1e33 for name, weight in made.values.items()}
    return dataclasses.replace(made, values=values)


@pytest.mark.parametrize("name", EDITS)
def test_a_concept_that_overflows_gives_no_edit(
    name: str, base: Base, picture: Image.Image
) -> None:
    concept = overflowing(base)
    concept.for_base(base)  # its own numbers are in range
    session = Editor(base).open(picture, SOURCE)
    with pytest.raises(NumericalError, match="not finite"):
        session.edit("a photo of a <a> cup on a table", concepts=[concept], steps=2, **EDITS[name])


@pytest.mark.parametrize("field", ["trajectory", "nulls"])
def test_a_kept_inversion_with_nan_is_made_again(
    field: str, base: Base, picture: Image.Image, tmp_path: Path
) -> None:
    def edit() -> torch.Tensor:
        session = Editor(base, inversions=tmp_path).open(picture, SOURCE)
        return session.edit(TARGET, steps=2, inversion="null-text").drawing.latents

    first = edit()
    (kept,) = tmp_path.iterdir()
    inversion = Inversion.load(kept)
    tensor = getattr(inversion, field).clone()
    tensor[1] = float("nan")
    dataclasses.replace(inversion, **{field: tensor}).save(kept)
    with pytest.raises(InputError, match="not finite"):
        Inversion.load(kept)
    assert torch.equal(edit(), first)


def test_class_images_with_nan_are_not_kept(broken: Base, tmp_path: Path) -> None:
    with pytest.raises(NumericalError, match="the class images' latents are not finite"):
        run(broken, ClassImages("a cup", 2, 2).draw(broken, tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "method",
    [lambda base, concept: portrait(base, concept, "a <a> cup", 2), prove_effect],
    ids=["portrait", "import"],
)
def test_a_concept_that_overflows_is_not_shown_or_imported(
    method: Callable[[Base, Concept], Any], base: Base
) -> None:
    with pytest.raises((NumericalError, InputError), match="not finite"):
        run(base, method(base, overflowing(base)))
