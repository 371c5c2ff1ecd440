"""Whole edits: defaults from the prompts, preserved pixels, recipes that give the same again."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from PIL import Image

from customedit.diffusion.base import Base
from customedit.diffusion.engine import run
from customedit.diffusion.text import Weighted
from customedit.editing.edit import EditSettings, default_p2p, edit, edited_word
from customedit.editing.prompt_to_prompt import P2PSettings
from customedit.errors import InputError

SOURCE, TARGET = "a photo of a red cup on a table", "a photo of a blue cup on a table"


class Word:
    """A concept that trains nothing but its embedding."""

    def __init__(self, base: Base, token: str) -> None:
        self.tokens = {token: torch.randn(base.width, generator=torch.Generator().manual_seed(0))}
        self.keys: dict[str, torch.Tensor] = {}
        self.values: dict[str, torch.Tensor] = {}


def test_defaults_follow_from_the_prompts(base: Base) -> None:
    before = base.tokens("a photo of a Cup, on a table")
    after = base.tokens("a photo of a <a> patterned cup on a table", ["<a>"])
    assert edited_word(before, after) == "cup"
    settings = default_p2p(before, after, 0.7)
    assert (settings.blend_over, list(settings.blend_words)) == ("source", ["cup"])
    assert settings.cross == settings.own == 0.7
    assert edited_word(before, base.tokens(TARGET)) is None
    assert default_p2p(before, base.tokens(TARGET), None).blend_over == "none"


def test_preserved_pixels_are_the_sources_own(base: Base, picture: Image.Image) -> None:
    large = picture.resize((500, 400))
    settings = EditSettings(
        SOURCE, TARGET, steps=5, preserve=True, feather=4.0,
        p2p=P2PSettings(blend_over="source", blend_words=["cup"]),
    )  # fmt: skip
    got = run(base, edit(base, large, settings))
    assert got.image.size == (500, 400) and got.mask is not None
    changed = (np.asarray(got.image) != np.asarray(large)).any(2)
    assert 0 < changed.mean() < 0.9
    with pytest.raises(InputError, match="preserve: needs a mask"):
        run(base, edit(base, large, EditSettings(SOURCE, TARGET, steps=2, preserve=True)))


@pytest.mark.parametrize("method", ["p2p", "sdedit"])
def test_a_recipe_gives_the_same_again(method: str, base: Base, picture: Image.Image) -> None:
    settings = EditSettings(SOURCE, TARGET, method=method, steps=4, seed=7)  # type: ignore[arg-type]  # of the Literal
    first = run(base, edit(base, picture, settings))
    kept = dict(first.recipe["settings"])
    if kept["p2p"] is not None:
        kept["p2p"] = P2PSettings(**kept["p2p"])
    again = run(base, edit(base, picture, EditSettings(**kept)))
    assert torch.equal(first.latents, again.latents)
    assert first.recipe["base"]["fingerprint"] == base.fingerprint


def test_a_users_mask_holds_the_edit(base: Base, picture: Image.Image) -> None:
    mask = torch.zeros(128, 128)
    mask[:, :64] = 1
    got = run(base, edit(base, picture, EditSettings(SOURCE, TARGET, steps=4), mask=mask))
    outside = got.latents[..., 8:] - base.encode(picture)[..., 8:]
    assert outside.abs().max() <= 1e-5


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"target_prompt": " "}, "target_prompt: is empty"),
        ({"source_prompt": ""}, "source_prompt: is empty"),
        ({"strength": 2.0}, r"strength: 2\.0"),
        ({"guidance": -1.0}, "guidance"),
        ({"seed": -1}, "seed"),
        ({"method": "magic"}, "method: 'magic'"),
    ],
)
def test_settings_that_are_none(changes: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        EditSettings(**({"source_prompt": SOURCE, "target_prompt": TARGET} | changes))  # type: ignore[arg-type]  # what is tested


def test_an_unknown_concept_is_named(base: Base, picture: Image.Image) -> None:
    settings = EditSettings(SOURCE, "a photo of a <b> cup", steps=2)
    with pytest.raises(InputError, match=r"target_prompt: names <b>.*given: <a>"):
        run(base, edit(base, picture, settings, [Weighted(Word(base, "<a>"))]))


@pytest.mark.parametrize("method", ["p2p", "sdedit"])
def test_everywhere_is_the_whole_model_customised(
    method: str, base: Base, picture: Image.Image
) -> None:
    """A concept that changes weights acts without its token, and as a customised model would."""
    word = Word(base, "<a>")
    layer = base.layers[0]
    for part, name in ((word.keys, "to_k"), (word.values, "to_v")):
        weight = base.weights[f"{layer}.{name}.weight"]
        part[layer] = weight + 0.2 * torch.randn(
            weight.shape, generator=torch.Generator().manual_seed(1)
        )
    common = {"method": method, "steps": 4, "seed": 3}
    plain = run(base, edit(base, picture, EditSettings(SOURCE, TARGET, **common), [Weighted(word)]))
    settings = EditSettings(SOURCE, TARGET, everywhere=True, **common)
    acted = run(base, edit(base, picture, settings, [Weighted(word)]))
    unnamed = run(base, edit(base, picture, EditSettings(SOURCE, TARGET, **common)))
    assert torch.equal(plain.latents, unnamed.latents)
    assert not torch.allclose(acted.latents, plain.latents, atol=1e-3)
    if method == "sdedit":  # and the like of a base with these weights put in
        other = copy.deepcopy(base)
        for part, name in ((word.keys, "to_k"), (word.values, "to_v")):
            other.weights[f"{layer}.{name}.weight"].data.copy_(part[layer])
        whole = run(other, edit(other, picture, EditSettings(SOURCE, TARGET, **common)))
        assert torch.allclose(acted.latents, whole.latents, atol=1e-4)
