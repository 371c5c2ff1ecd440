import re

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from customedit.mini import captions, grounding
from customedit.mini.scenes import training_scene

SIDE, TOKENS = 16, 40
REGIONS = ("thing", "table", "wall")


def said(caption: str) -> dict[str, str]:
    words = re.findall(r"\w+|,", caption)
    return {words[position - 1]: place for position, place in grounding.regions(caption)}


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a photo of a cup", {"cup": "thing"}),
        (
            "a photo of a red vase on a wooden table by a blue wall",
            {"red": "thing", "vase": "thing", "wooden": "table", "table": "table",
             "blue": "wall", "wall": "wall"},
        ),
        (
            "a close up photo of a glossy cup striped in red and white in front of a brick wall",
            {"glossy": "thing", "cup": "thing", "striped": "thing", "red": "thing",
             "white": "thing", "brick": "wall", "wall": "wall"},
        ),
        (
            "a green jug with pink dots on a marble table",
            {"green": "thing", "jug": "thing", "pink": "thing", "dots": "thing",
             "marble": "table", "table": "table"},
        ),
        (
            "a red, white and blue patterned cup on a gray table",
            {"red": "thing", "white": "thing", "blue": "thing", "patterned": "thing",
             "cup": "thing", "gray": "table", "table": "table"},
        ),
        ("", {}),
    ],
)  # fmt: skip
def test_each_word_has_its_region(caption: str, expected: dict[str, str]) -> None:
    assert said(caption) == expected


@given(st.integers(0, 10**6))
def test_words_of_any_caption_have_their_region(seed: int) -> None:
    scene = training_scene(seed)
    caption = captions.describe(scene, np.random.default_rng(seed))
    found = said(caption)
    assert found[scene.noun] == "thing"
    for place in ("table", "wall"):
        assert (place in found) == (place in caption.split())
        assert found.get(place, place) == place


def scenes_masks(seed: int, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(rows, SIDE, SIDE, generator=generator)
    horizon = 0.4 + 0.2 * torch.rand(rows, generator=generator)
    return mask, horizon, torch.ones(rows, dtype=torch.bool)


@given(st.integers(0, 2**31), st.integers(1, 3))
def test_regions_share_every_cell(seed: int, rows: int) -> None:
    mask, horizon, whole = scenes_masks(seed, rows)
    shares = grounding.region_masks(mask, horizon, whole)
    assert shares.shape == (rows, 3, SIDE, SIDE)
    assert shares.min() >= 0
    torch.testing.assert_close(shares.sum(1), torch.ones(rows, SIDE, SIDE))
    torch.testing.assert_close(shares[:, 0], mask)


def test_of_a_framed_picture_only_the_things_place_is_known() -> None:
    mask, horizon, _ = scenes_masks(3, 2)
    shares = grounding.region_masks(mask, horizon, torch.tensor([True, False]))
    torch.testing.assert_close(shares[:, 0], mask)
    assert shares[1, 1:].abs().max() == 0
    assert shares[0, 1:].sum() > 0


def test_the_table_lies_below_the_horizon() -> None:
    shares = grounding.region_masks(
        torch.zeros(1, SIDE, SIDE), torch.tensor([0.53125]), torch.tensor([True])
    )
    table = shares[0, 1, :, 0]
    assert table[:8].sum() == 0 and table[9:].min() == 1
    assert table[8] == pytest.approx(0.5)


CAPTION = "a red vase on a wooden table by a blue wall"


def maps_of(masks: Tensor, regions: dict[int, str]) -> Tensor:
    """Maps [1, cells, TOKENS] in which each word of ``regions`` looks at that region, evenly."""
    maps = torch.full((1, SIDE * SIDE, TOKENS), 1e-3)
    for position, name in regions.items():
        region = masks[0, REGIONS.index(name)].flatten()
        maps[0, :, position] = region / region.sum()
    return maps


def test_the_loss_is_nought_when_each_word_sees_its_region_and_positive_otherwise() -> None:
    masks = grounding.region_masks(*scenes_masks(0, 1))
    right = dict(grounding.regions(CAPTION))
    wrong = {position: REGIONS[REGIONS.index(name) - 1] for position, name in right.items()}
    weight = torch.ones(1)

    def loss(maps: Tensor, weight: Tensor = weight) -> float:
        return grounding.loss([maps], [CAPTION], masks, weight).item()

    assert loss(maps_of(masks, right)) == pytest.approx(0, abs=1e-5)
    assert loss(maps_of(masks, wrong)) > 0.05
    assert loss(maps_of(masks, wrong), weight * 0) == 0


@given(st.integers(0, 2**31))
def test_the_loss_is_never_negative_and_has_a_gradient(seed: int) -> None:
    masks = grounding.region_masks(*scenes_masks(seed, 2))
    generator = torch.Generator().manual_seed(seed)
    maps = torch.rand(2, SIDE * SIDE, TOKENS, generator=generator).requires_grad_()
    loss = grounding.loss([maps, maps * 0.5], [CAPTION, "a cup"], masks, torch.ones(2))
    assert loss.item() > 0
    loss.backward()
    assert maps.grad is not None and maps.grad.abs().sum() > 0


def test_without_words_there_is_no_loss() -> None:
    masks = grounding.region_masks(*scenes_masks(0, 1))
    loss = grounding.loss([torch.rand(1, SIDE * SIDE, TOKENS)], [""], masks, torch.ones(1))
    assert loss.item() == 0


def test_a_region_that_is_not_in_the_picture_is_passed_over() -> None:
    masks = torch.zeros(1, 3, SIDE, SIDE)
    loss = grounding.loss([torch.rand(1, SIDE * SIDE, TOKENS)], ["a cup"], masks, torch.ones(1))
    assert loss.item() == 0


def test_attention_is_diffusers_own_and_keeps_the_maps_of_its_size() -> None:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=SIDE, in_channels=4, out_channels=4, block_out_channels=(32, 64),
        layers_per_block=1, cross_attention_dim=24, attention_head_dim=2,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    ).eval()  # fmt: skip
    x, states = torch.randn(2, 4, SIDE, SIDE), torch.randn(2, 7, 24)
    with torch.no_grad():
        expected = unet(x, 500, states).sample
        maps = grounding.watch(unet)
        got = unet(x, 500, states).sample
    assert (got - expected).abs().max() <= 1e-5
    assert [tuple(m.shape) for m in maps] == [(2, SIDE * SIDE, 7)] * 3  # one down, two up
    for m in maps:
        torch.testing.assert_close(m.sum(2), torch.ones(2, SIDE * SIDE))
