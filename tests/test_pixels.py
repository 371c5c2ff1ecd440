import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from customedit import pixels
from customedit.errors import InputError


def picture(size: tuple[int, int] = (40, 24), seed: int = 0) -> Image.Image:
    """Smooth colours, so that lossy formats keep them closely."""
    x, y = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    return Image.fromarray((np.stack([x, y, (x + seed) / 2 % 1], -1) * 255).astype(np.uint8))


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


@given(st.integers(0, 10**6), st.sampled_from([0.0, 1.0, 4.0, 7.5]))
def test_outside_the_feathered_mask_every_byte_is_the_sources(seed: int, feather: float) -> None:
    rng = np.random.default_rng(seed)
    source = Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8))
    edited = Image.new("RGB", (40, 30), (1, 2, 3))
    mask = torch.zeros(60, 80)
    mask[20:40, 30:60] = 1
    before = np.asarray(source).copy()
    out = np.asarray(pixels.paste_preserved(source, edited, mask, feather=feather))
    reach = int(np.ceil(feather)) + 1
    outside = np.ones((60, 80), bool)
    outside[20 - reach : 40 + reach, 30 - reach : 60 + reach] = False
    assert (out[outside] == before[outside]).all()
    assert (np.asarray(source) == before).all()
    inner = slice(20 + reach, 40 - reach), slice(30 + reach, 60 - reach)
    assert (out[inner] == (1, 2, 3)).all()


def test_a_coarse_mask_is_stretched_over_the_source() -> None:
    source, edited = picture((160, 96)), Image.new("RGB", (16, 16), "black")
    mask = torch.tensor([[0.0, 0.0, 0.0, 1.0]])
    out = np.asarray(pixels.paste_preserved(source, edited, mask, feather=2))
    assert (out[:, :90] == np.asarray(source)[:, :90]).all()
    assert (out[:, 150:] == 0).all()
    nothing = pixels.paste_preserved(source, edited, torch.zeros(3, 3))
    assert nothing.tobytes() == source.tobytes()
    assert not np.asarray(pixels.paste_preserved(source, edited, torch.ones(3, 3))).any()


@pytest.mark.parametrize("mask", [torch.ones(1, 2, 2), torch.ones(2, 2) * 2, torch.ones(0, 3)])
def test_a_mask_that_is_none_is_refused(mask: torch.Tensor) -> None:
    with pytest.raises(InputError, match="mask"):
        pixels.paste_preserved(picture(), picture(), mask)
    with pytest.raises(InputError, match="feather"):
        pixels.paste_preserved(picture(), picture(), torch.ones(2, 2), feather=-1)
