import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from transformers import CLIPModel, ViTConfig, ViTImageProcessor, ViTModel

from customedit import mini
from customedit.errors import InputError
from customedit.metrics import pixels, similarity
from customedit.metrics.similarity import Dino, Similarity

SAMPLES = Path(mini.__file__).parent / "samples"
CLIP = mini.path() / "clip"


def noise(seed: int, size: tuple[int, int] = (24, 16)) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def look(name: str) -> list[Image.Image]:
    return [Image.open(p) for p in sorted((SAMPLES / "looks" / name).glob("*.png"))]


@pytest.fixture(scope="module")
def clip() -> Similarity:
    return Similarity(CLIP)


def test_vectors_are_units_whatever_is_given(clip: Similarity) -> None:
    pictures = [noise(k, (20 + 9 * k, 16)) for k in range(35)]
    vectors = clip.images(pictures)
    assert vectors.shape == (35, 256) and vectors.dtype == torch.float32
    assert torch.allclose(vectors.norm(dim=1), torch.ones(35))
    # More than one batch, and none: each vector is its picture's own.
    assert torch.allclose(clip.images(pictures[33:34])[0], vectors[33], atol=1e-5)
    assert clip.images([]).shape == clip.texts([]).shape == (0, 256)
    texts = clip.texts(["a red cup", "a photo of a blue vase on a table", "a cup " * 50])
    assert torch.allclose(texts.norm(dim=1), torch.ones(3))
    assert torch.allclose(clip.texts(["a red cup"])[0], texts[0], atol=1e-5)


@torch.no_grad()
def test_cosines_are_those_of_the_whole_model(clip: Similarity) -> None:
    pictures, texts = look("waves")[:2], ["a photo of a cup", "a red vase on a table"]
    whole = CLIPModel.from_pretrained(CLIP, dtype=torch.float32).eval()
    tokens = clip._tokenizer(texts, padding=True, return_tensors="pt")
    out = whole(**tokens, pixel_values=clip._eye(pictures, return_tensors="pt").pixel_values)
    expected = out.logits_per_image / whole.logit_scale.exp()
    for i, picture in enumerate(pictures):
        for j, text in enumerate(texts):
            assert clip.text(picture, text) == pytest.approx(float(expected[i, j]), abs=1e-5)


def test_references_of_one_look_are_nearer_than_of_another(clip: Similarity) -> None:
    own, other = look("leopard"), look("plaid")
    assert clip.reference(own[0], own[1:]) > clip.reference(own[0], other)
    assert clip.source(own[0], own[0]) == pytest.approx(1, abs=1e-5)
    pairs = [clip.source(own[0], x) for x in other]
    assert clip.reference(own[0], other) == pytest.approx(np.mean(pairs), abs=1e-5)


def test_with_a_mask_only_the_object_counts(clip: Similarity) -> None:
    first, second = noise(1, (64, 64)), noise(2, (64, 64))
    mask = np.zeros((64, 64))
    mask[16:48, 20:44] = 1
    second.paste(first.crop((20, 16, 44, 48)), (20, 16))
    references = look("plaid")
    a, b = (clip.reference(x, references, mask=mask) for x in (first, second))
    assert a == pytest.approx(b, abs=1e-6)
    assert clip.reference(first, references) != pytest.approx(a, abs=1e-4)


def test_what_cannot_be_compared_is_refused(clip: Similarity) -> None:
    with pytest.raises(InputError, match="references: are none"):
        clip.reference(noise(0), [])
    with pytest.raises(InputError, match=r"nowhere above 0\.5"):
        clip.reference(noise(0), [noise(1)], mask=np.zeros((16, 24)))


def test_models_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model: .*is no folder"):
        Similarity(tmp_path / "none")
    with pytest.raises(InputError, match="cannot be loaded"):
        Similarity(tmp_path)
    with pytest.raises(InputError, match="is of type 'clip_text_model'"):
        Similarity(mini.path() / "text_encoder")
    with pytest.raises(InputError, match="is of type 'clip'; give one of type vit"):
        Dino(CLIP)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}))
    with pytest.raises(InputError, match="cannot be loaded"):
        Similarity(tmp_path)


def test_dino_compares_by_the_first_token(tmp_path: Path) -> None:
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        image_size=32, patch_size=8,
    )  # fmt: skip
    ViTModel(config).save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    dino = Dino(tmp_path)
    vectors = dino.images([noise(0), noise(1)])
    assert vectors.shape == (2, 16)
    assert dino.similarity(noise(0), noise(0)) == pytest.approx(1, abs=1e-5)
    assert dino.similarity(noise(0), noise(1)) == pytest.approx(
        float(vectors[0] @ vectors[1]), abs=1e-5
    )
    mean = (1 + float(vectors[0] @ vectors[1])) / 2
    assert dino.reference(noise(0), [noise(0), noise(1)]) == pytest.approx(mean, abs=1e-5)


def test_cutting_out_keeps_the_object_on_grey() -> None:
    image = Image.new("RGB", (40, 30), "red")
    mask = np.zeros((30, 40))
    mask[10:20, 5:25] = 1
    out = similarity.cut_out(image, mask)
    assert out.size == (20 + 4, 10 + 4)
    assert out.getpixel((1, 1)) == pixels.GREY and out.getpixel((2, 2)) == (255, 0, 0)
    mask[:] = 1
    assert similarity.cut_out(image, mask).tobytes() == image.tobytes()


seeds = st.integers(0, 10**6)


def arrays(*pictures: Image.Image) -> list[NDArray[np.uint8]]:
    return [np.asarray(x) for x in pictures]


@given(seeds, seeds)
def test_psnr_is_skimages(seed: int, other: int) -> None:
    a, b = noise(seed), noise(other + 10**7)
    expected = peak_signal_noise_ratio(*arrays(a, b), data_range=255)
    assert similarity.psnr(a, b) == pytest.approx(expected)
    assert similarity.psnr(a, a) == math.inf


@given(seeds, st.integers(1, 120))
def test_ssim_is_skimages(seed: int, change: int) -> None:
    a, shift = arrays(noise(seed), noise(seed + 1))
    b = (a * (1 - change / 128) + shift * (change / 128)).astype(np.uint8)
    score, full = structural_similarity(
        a, b, channel_axis=2, data_range=255, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, full=True,
    )  # fmt: skip
    one, two = Image.fromarray(a), Image.fromarray(b)
    assert similarity.ssim(one, two) == pytest.approx(score, abs=1e-9)
    mask = np.random.default_rng(seed).random((16, 24)) > 0.5
    inside = full.mean(2)[mask].mean()
    assert similarity.ssim(one, two, mask) == pytest.approx(inside, abs=1e-9)
    assert similarity.ssim(one, one) == pytest.approx(1)


@given(seeds)
def test_a_mask_of_ones_and_zeros_picks_pixels(seed: int) -> None:
    a, b = noise(seed), noise(seed + 1)
    mask = np.random.default_rng(seed).random((16, 24)) > 0.5
    first, second = (x.astype(float)[mask] for x in arrays(a, b))
    expected = 10 * math.log10(255**2 / ((first - second) ** 2).mean())
    assert similarity.psnr(a, b, mask) == pytest.approx(expected)
    assert similarity.psnr(a, b, np.ones((16, 24))) == pytest.approx(similarity.psnr(a, b))


def test_pixels_that_do_not_match_are_refused() -> None:
    a = noise(0)
    for measure in (similarity.psnr, similarity.ssim):
        with pytest.raises(InputError, match="24 x 16 and 16 x 24"):
            measure(a, noise(0, (16, 24)))
        with pytest.raises(InputError, match="mask: has shape"):
            measure(a, a, np.ones((24, 16)))
        with pytest.raises(InputError, match="mask: is all zeros"):
            measure(a, a, np.zeros((16, 24)))
        with pytest.raises(InputError, match="outside 0 to 1"):
            measure(a, a, np.full((16, 24), 2.0))
    with pytest.raises(InputError, match="11 x 11"):
        similarity.ssim(noise(0, (10, 30)), noise(1, (10, 30)))
