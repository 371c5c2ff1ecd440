"""Pictures as tensors and back, and the source's own pixels around an edit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from customedit import pixels
from customedit.errors import InputError


def picture(size: tuple[int, int] = (40, 24)) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    return Image.fromarray((np.stack([x, y, x / 2], -1) * 255).astype(np.uint8))


@given(st.integers(0, 10**6))
def test_tensors_and_images_are_each_others_inverse(seed: int) -> None:
    levels = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    tensor = pixels.to_tensor(Image.fromarray(levels), (7, 5))
    assert tensor.shape == (1, 3, 5, 7) and tensor.dtype == torch.float32
    assert float(tensor.abs().max()) <= 1
    assert (np.asarray(pixels.to_image(tensor[0])) == levels).all()


def test_tensors_are_resized_and_clipped() -> None:
    assert pixels.to_tensor(picture(), (8, 16)).shape == (1, 3, 16, 8)
    tensor = torch.stack([torch.full((2, 2), x) for x in (-7.0, 0.0, 7.0)])
    assert pixels.to_image(tensor).getpixel((0, 0)) == (0, 128, 255)
    with pytest.raises(ValueError, match=r"\[3, h, w\]"):
        pixels.to_image(tensor[None])


def test_a_users_mask_is_the_region_as_it_is() -> None:
    mask = torch.zeros(24, 40)
    mask[3:9, 5:31] = 1
    region = pixels.source_region(picture(), mask=mask)
    assert torch.equal(region, mask)
    larger = pixels.source_region(picture((400, 240)), mask=mask)
    assert larger.shape == (240, 400)
    assert (larger[40:80, 60:300] == 1).all() and not larger[100:].any()
    with pytest.raises(InputError, match="mask: is 40 x 24 pixels, an aspect"):
        pixels.source_region(picture((100, 100)), mask=mask)


def test_a_coarse_region_is_refined_to_the_source() -> None:
    source = Image.new("RGB", (160, 96), (20, 40, 60))
    source.paste((220, 180, 30), (93, 0, 160, 96))  # inside a cell of 10 pixels
    coarse = torch.zeros(10, 16, dtype=torch.float16)
    coarse[:, 9:] = 1
    region = pixels.source_region(source, coarse=coarse)
    assert region.shape == (96, 160) and region.dtype == torch.float32
    assert (region[:, 94:] > 0.9).all() and (region[:, :92] < 0.2).all()


def test_one_of_mask_and_region_is_given() -> None:
    ones = torch.ones(2, 2)
    for mask, coarse in ((None, None), (ones, ones)):
        with pytest.raises(ValueError, match="mask or a coarse"):
            pixels.source_region(picture(), mask=mask, coarse=coarse)


def test_the_edit_is_pasted_at_the_sources_size() -> None:
    source = picture((160, 96))
    region = torch.zeros(96, 160)
    region[20:60, 30:90] = 1
    out = np.asarray(pixels.paste_preserved(source, Image.new("RGB", (16, 8)), region, feather=4))
    kept = np.asarray(source)
    assert not out[20:60, 30:90].any()
    outside = np.ones((96, 160), bool)
    outside[16:64, 26:94] = False
    assert (out[outside] == kept[outside]).all()
