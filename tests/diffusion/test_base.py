"""Rows of the base and of concepts in one forward; pictures and words in and out; bad bases."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor
from PIL import Image
from torch import Tensor

from customedit import mini
from customedit.concepts.concept import Concept
from customedit.diffusion.base import Base
from customedit.diffusion.text import Weighted
from customedit.errors import InputError, NumericalError
from customedit.mini.draw import load

from .conftest import Change, change

TIMES = torch.tensor([981, 501, 41])


def _customised(base: Base, concept: Change | None) -> object:
    """A copy of the base's UNet with the concept's weights put in and diffusers' own attention."""
    unet = copy.deepcopy(base.denoiser)
    unet.set_attn_processor(AttnProcessor())
    if concept is not None:
        state = {f"{n}.to_k.weight": w for n, w in concept.keys.items()}
        state |= {f"{n}.to_v.weight": w for n, w in concept.values.items()}
        unet.load_state_dict(state, strict=False)
    return unet


@torch.no_grad()
def test_base_and_two_concepts_in_one_forward_are_three_models(base: Base, latents: Tensor) -> None:
    a, b = change(base, "<a>", 1), change(base, "<b>", 2)
    texts = [
        base.text("a photo of a cup"),
        base.text("a photo of a <a> cup", [Weighted(a)]),
        base.text("a photo of a <b> vase on a red table", [Weighted(b)]),
    ]
    together, _ = base.output(latents, TIMES, texts)
    effects = []
    for k, concept in enumerate([None, a, b]):
        unet = _customised(base, concept)
        alone = unet(latents[k : k + 1], TIMES[k], texts[k].states[None]).sample  # type: ignore[operator]
        assert (together[k] - alone[0]).abs().max() <= 1e-5
        plain, _ = base.output(latents[k : k + 1], TIMES[k], [base.context(texts[k].states)])
        effects.append(float((plain[0] - alone[0]).abs().max()))
    assert effects[0] <= 1e-5 and min(effects[1:]) > 0.01  # the concepts do change something


@torch.no_grad()
def test_weight_is_a_knob_from_base_to_concept_and_beyond(base: Base) -> None:
    a = change(base, "<a>", 1)
    prompt = "a photo of a <a> cup"
    texts = [base.text(prompt, [Weighted(a, w)]) for w in (0.0, 0.5, 1.0, 2.0)]
    plain = base.context(texts[0].states)
    for k in range(len(base.layers)):
        zero, half, whole, double = (t.keys[k] for t in texts)
        assert torch.allclose(zero, plain.keys[k], atol=1e-5)
        assert torch.allclose(half - zero, (whole - zero) / 2, atol=1e-4)
        assert torch.allclose(double - zero, 2 * (whole - zero), atol=1e-4)


def test_a_concept_that_a_prompt_does_not_name_does_nothing(base: Base) -> None:
    a, b = change(base, "<a>", 1), change(base, "<b>", 2)
    with_b = base.text("a photo of a <a> cup", [Weighted(a), Weighted(b)])
    without = base.text("a photo of a <a> cup", [Weighted(a)])
    assert all(torch.equal(x, y) for x, y in zip(with_b.keys, without.keys, strict=True))


def test_two_concepts_in_one_prompt(base: Base) -> None:
    a, b = change(base, "<a>", 1), change(base, "<b>", 2)
    both = base.text("a <a> cup on a <b> table", [Weighted(a), Weighted(b)])
    assert both.tokens is not None
    assert list(both.tokens.concepts.values()) == ["<a>", "<b>"]
    assert [both.tokens.ids[c] for c in both.tokens.concepts] == [
        len(base.tokenizer),
        len(base.tokenizer) + 1,
    ]


def test_plain_text_is_that_of_the_stock_encoder(base: Base) -> None:
    prompt = "a photo of a glossy cup striped in red and white"
    ids = base.tokenizer(prompt, padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        wanted = base.pipeline.text_encoder(ids).last_hidden_state[0]
    got = base.text(prompt)
    assert got.tokens is not None and got.tokens.ids == ids[0].tolist()
    assert torch.equal(got.states, wanted)


def test_a_concepts_vector_stands_where_its_token_is(base: Base) -> None:
    """The vector of "red" under a concept's name reads like the word "red"."""
    table = base.pipeline.text_encoder.get_input_embeddings().weight
    red = base.tokenizer("red", add_special_tokens=False).input_ids[0]
    stand_in = Change({"<r>": table[red].detach()}, {}, {})
    got = base.text("a photo of a <r> cup", [Weighted(stand_in)])
    assert torch.allclose(got.states, base.text("a photo of a red cup").states, atol=1e-6)


def test_prompts_that_cannot_be_read_are_refused(base: Base) -> None:
    with pytest.raises(InputError, match=r"target_prompt: names <b>.*given: <a>"):
        base.text("a <b> cup", [Weighted(change(base, "<a>", 1))], field="target_prompt")
    long = " ".join(["red"] * base.length)
    with pytest.raises(InputError, match=rf"prompt: takes {base.length + 2} tokens.*{base.length}"):
        base.text(long)


def test_pictures_of_any_aspect_keep_it(base: Base) -> None:
    for size in [(128, 128), (640, 360), (200, 600)]:
        image = Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8))
        latents = base.encode(image)
        back = base.decode(latents)[0]
        assert back.width % base.multiple == 0 and back.height % base.multiple == 0
        assert back.size == base.size(*size)
        assert abs(back.width / back.height / (size[0] / size[1]) - 1) < 0.25
        with torch.no_grad():  # the UNet takes it
            base.predict(latents, 501, [base.text("a cup")])


def test_drawing_with_ours_is_drawing_with_the_stock_pipeline(base: Base) -> None:
    stock = load(mini.path())
    states = base.text("a photo of a red vase").states[None]
    x = torch.randn((1, base.channels, 16, 16), generator=torch.Generator().manual_seed(3))
    got = x.clone()
    with torch.no_grad():
        for time, to in base.schedule.downwards(50)[:6]:
            noise = base.predict(got, time, [base.context(states[0])]).noise
            got = base.schedule.step(got, noise, time, to)
        stock.scheduler.set_timesteps(50)
        for time in stock.scheduler.timesteps[:6]:
            x = stock.scheduler.step(stock.unet(x, time, states).sample, time, x).prev_sample
    assert (got - x).abs().max() <= 1e-4


def test_a_device_that_is_not_available() -> None:
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="device: cuda is not available"):
            Base.load(device="cuda")


def test_latents_that_are_not_finite_are_no_picture(base: Base, latents: Tensor) -> None:
    for value in (float("nan"), float("inf"), -float("inf")):
        broken = latents[:2].clone()
        broken[1, 3, 2, 1] = value
        with pytest.raises(NumericalError, match=r"the result's latents are not finite.*mini"):
            base.decode(broken)
    assert len(base.decode(latents[:2])) == 2


@pytest.mark.parametrize(("size", "dtype"), [(1e38, torch.float32), (3e4, torch.float16)])
def test_a_concept_whose_keys_overflow_is_named(size: float, dtype: torch.dtype) -> None:
    base = Base.load(dtype=dtype)
    a = change(base, "<a>", 1)
    large = dataclasses.replace(a, keys={n: w.sign() * size for n, w in a.keys.items()})
    with pytest.raises(NumericalError, match=r"the concept <a> gives keys or values.*float(32|16)"):
        base.text("a photo of a <a> cup", [Weighted(large)])
    base.text("a photo of a cup", [Weighted(large)])  # does not name it
    base.text("a photo of a <a> cup", [Weighted(a)])


def test_a_concept_beyond_the_bases_dtype_is_refused(base: Base) -> None:
    a = change(base, "<a>", 1)
    layer = base.layers[2]
    a.keys[layer][3, 5] = -1e6
    concept = Concept(a.tokens, a.keys, a.values)
    concept.for_base(base)
    half = dataclasses.replace(base, dtype=torch.float16)
    with pytest.raises(InputError, match=r"to_k.weight has 1e\+06, more than torch.float16"):
        concept.for_base(half)


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), -0.1, 2.1, 1e9])
def test_weights_of_a_concept_out_of_range_are_refused(base: Base, weight: float) -> None:
    with pytest.raises(InputError, match=r"weight: .* is not from 0 to 2"):
        Weighted(change(base, "<a>", 1), weight)


def test_what_looks_like_a_token_is_refused_when_it_is_read(base: Base) -> None:
    with pytest.raises(InputError, match=r"target_prompt: contains <A>.*write <a>"):
        base.text("a <A> cup", [Weighted(change(base, "<a>", 1))], "target_prompt")


@torch.no_grad()
def test_weights_with_channels_last_predict_the_same(latents: Tensor) -> None:
    """As ``loading.place`` lays them on a GPU."""
    base = Base.load()
    context = [base.text("a photo of a cup")] * len(latents)
    expected = base.predict(latents, 501, context).noise
    digest = base.fingerprint
    base.denoiser.to(memory_format=torch.channels_last)
    assert base.denoiser.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(base.predict(latents, 501, context).noise, expected)
    base.read_weights()
    assert base.fingerprint == digest
