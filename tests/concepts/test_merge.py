import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from customedit.concepts.concept import Concept
from customedit.concepts.merge import merge, solve_constrained
from customedit.diffusion.base import Base
from customedit.errors import InputError
from customedit.mini import vocabulary

LAYER = "mid_block.attentions.0.transformer_blocks.0.attn2"
OTHER = "up_blocks.0.attentions.0.transformer_blocks.0.attn2"
WIDTH = 8


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def base(dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    names = [f"{n}.{p}.weight" for n in (LAYER, OTHER) for p in ("to_k", "to_v")]
    return {n: random(k, 6, WIDTH).to(dtype) for k, n in enumerate(names)}


def concept(token: str, seed: int, dtype: torch.dtype = torch.float64, name: str = "ab") -> Concept:
    own = {n: w + 0.3 * random(seed, 6, WIDTH).to(dtype) for n, w in base(dtype).items()}
    return Concept(
        {token: random(seed, WIDTH).to(dtype)},
        {n: own[f"{n}.to_k.weight"] for n in (LAYER, OTHER)},
        {n: own[f"{n}.to_v.weight"] for n in (LAYER, OTHER)},
        noun="cat",
        base=name,
        prompts=(f"photo of a {token} cat",),
        recipe={"steps": seed},
        images=4,
    )


def optimum(
    weight: torch.Tensor, regular: torch.Tensor, targets: torch.Tensor, values: torch.Tensor
) -> np.ndarray:
    """W' of min |(W' - W) K^T| with W' c*^T = V^T, by the KKT system, one row of W' at a time."""
    w, k, c, v = (t.numpy() for t in (weight, regular, targets, values))
    m = len(c)
    system = np.block([[2 * k.T @ k, c.T], [c, np.zeros((m, m))]])
    rows = [
        np.linalg.solve(system, np.concatenate([2 * k.T @ k @ w[i], v[:, i]]))[: w.shape[1]]
        for i in range(len(w))
    ]
    return np.stack(rows)


@given(st.integers(0, 2**30), st.integers(1, 5), st.integers(1, WIDTH - 1), st.integers(0, 20))
def test_the_closed_form_is_the_constrained_optimum(
    seed: int, inner: int, m: int, more: int
) -> None:
    weight, regular = random(seed, inner, WIDTH), random(seed + 1, 3 * WIDTH + more, WIDTH)
    targets, values = random(seed + 2, m, WIDTH), random(seed + 3, m, inner)
    merged = solve_constrained(weight, regular, targets, values)
    expected = optimum(weight, regular, targets, values)
    np.testing.assert_allclose(merged.numpy(), expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose((targets @ merged.T).numpy(), values.numpy(), atol=1e-7)


@given(st.integers(0, 2**30))
def test_no_other_weight_that_keeps_the_constraints_is_nearer(seed: int) -> None:
    weight, regular = random(seed, 4, WIDTH), random(seed + 1, 30, WIDTH)
    targets, values = random(seed + 2, 3, WIDTH), random(seed + 3, 3, 4)
    merged = solve_constrained(weight, regular, targets, values)
    nearest = torch.linalg.norm((merged - weight) @ regular.T)
    free = torch.linalg.qr(targets.T, mode="complete")[0][:, 3:]  # c* does not see these
    moved = merged + 0.1 * random(seed + 4, 4, free.shape[1]) @ free.T
    torch.testing.assert_close(targets @ moved.T, values, rtol=1e-6, atol=1e-7)
    assert torch.linalg.norm((moved - weight) @ regular.T) > nearest


def test_targets_that_already_hold_change_nothing() -> None:
    weight, regular, targets = random(0, 4, WIDTH), random(1, 30, WIDTH), random(2, 3, WIDTH)
    merged = solve_constrained(weight, regular, targets, targets @ weight.T)
    torch.testing.assert_close(merged, weight)


def test_a_ridge_serves_few_captions_and_keeps_the_constraints() -> None:
    weight, regular = random(0, 4, WIDTH), random(1, 3, WIDTH)
    targets, values = random(2, 2, WIDTH), random(3, 2, 4)
    with pytest.raises(InputError, match=r"3 caption features do not span the width 8; .*ridge"):
        solve_constrained(weight, regular, targets, values)
    merged = solve_constrained(weight, regular, targets, values, ridge=1e-6)
    torch.testing.assert_close(targets @ merged.T, values, rtol=1e-6, atol=1e-6)


def test_features_of_real_spread_are_taken() -> None:
    """Text states have a large common part: C is far from round."""
    spread = torch.logspace(0, -4, WIDTH, dtype=torch.float64)
    regular = random(1, 200, WIDTH) * spread + 5
    weight, targets, values = random(0, 4, WIDTH), random(2, 3, WIDTH) * spread + 5, random(3, 3, 4)
    merged = solve_constrained(weight, regular, targets, values)
    torch.testing.assert_close(targets @ merged.T, values, rtol=1e-5, atol=1e-5)


# whole concepts


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_each_concept_keeps_what_its_words_gave(dtype: torch.dtype) -> None:
    parts = [concept(f"<c{k}>", 10 + k, dtype) for k in range(3)]
    features = [random(20 + k, 2, WIDTH) for k in range(3)]
    merged = merge(parts, base(dtype), random(5, 60, WIDTH), features)
    close = 1e-8 if dtype == torch.float64 else 1e-4
    for name, weight in merged.weights.items():
        assert weight.dtype == dtype
        for part, c in zip(parts, features, strict=True):
            own = c @ part.weights[name].double().T
            torch.testing.assert_close(c @ weight.double().T, own, rtol=close, atol=close)
    assert list(merged.tokens) == ["<c0>", "<c1>", "<c2>"]
    assert (merged.noun, merged.base, merged.images) == ("cat", "ab", 12)
    assert merged.prompts[1] == "photo of a <c1> cat"
    assert merged.recipe == {"merged": [{"steps": 10}, {"steps": 11}, {"steps": 12}]}


def test_the_order_does_not_matter() -> None:
    a, b = concept("<a>", 1), concept("<b>", 2)
    fa, fb, regular = random(3, 2, WIDTH), random(4, 2, WIDTH), random(5, 60, WIDTH)
    one, other = merge([a, b], base(), regular, [fa, fb]), merge([b, a], base(), regular, [fb, fa])
    for name, weight in one.weights.items():
        torch.testing.assert_close(other.weights[name], weight)


def test_a_layer_that_only_one_customises_is_the_bases_for_the_other() -> None:
    a, b = concept("<a>", 1), concept("<b>", 2)
    b = dataclasses.replace(b, keys={LAYER: b.keys[LAYER]}, values={LAYER: b.values[LAYER]})
    features = [random(3, 2, WIDTH), random(4, 2, WIDTH)]
    merged = merge([a, b], base(), random(5, 60, WIDTH), features)
    name = f"{OTHER}.to_k.weight"
    got = features[1] @ merged.weights[name].T
    torch.testing.assert_close(got, features[1] @ base()[name].T)


def test_what_is_said_twice_by_one_concept_counts_once() -> None:
    parts, regular = [concept("<a>", 1), concept("<b>", 2)], random(5, 60, WIDTH)
    features = [random(3, 2, WIDTH), random(4, 2, WIDTH)]
    once = merge(parts, base(), regular, features)
    twice = merge(parts, base(), regular, [features[0].repeat(2, 1), features[1]])
    for name, weight in once.weights.items():
        torch.testing.assert_close(twice.weights[name], weight)


def test_what_cannot_be_merged() -> None:
    a, b = concept("<a>", 1), concept("<b>", 2)
    fa, fb, regular = random(3, 2, WIDTH), random(4, 2, WIDTH), random(5, 60, WIDTH)
    with pytest.raises(InputError, match="concepts: are 1; give two"):
        merge([a], base(), regular, [fa])
    with pytest.raises(InputError, match="of 1 concepts, 2 are given"):
        merge([a, b], base(), regular, [fa])
    with pytest.raises(InputError, match="have <a> twice"):
        merge([a, concept("<a>", 3)], base(), regular, [fa, fb])
    with pytest.raises(InputError, match=r"several bases: \['ab', 'cd'\]"):
        merge([a, concept("<c>", 3, name="cd")], base(), regular, [fa, fb])
    with pytest.raises(InputError, match=r"linearly dependent.*before the concepts' tokens"):
        merge([a, b], base(), regular, [fa, torch.cat([fa[:1], fb])])
    with pytest.raises(InputError, match="linearly dependent"):
        merge([a, b], base(), regular, [random(3, 5, WIDTH), random(4, 5, WIDTH)])
    with pytest.raises(InputError, match=r"are \(2, 7\); .* width 8"):
        merge([a, b], base(), regular, [fa, fb[:, :7]])
    with pytest.raises(InputError, match="not finite"):
        merge([a, b], base(), regular * torch.nan, [fa, fb])
    with pytest.raises(InputError, match="do not span"):
        merge([a, b], base(), regular[:7], [fa, fb], ridge=0)
    with pytest.raises(InputError, match="base_weights: has no"):
        merge([a, b], {}, regular, [fa, fb])
    with pytest.raises(InputError, match="has shapes"):
        merge([a, b], {n: w[:5] for n, w in base().items()}, regular, [fa, fb])
    with pytest.raises(InputError, match="ridge: is -1"):
        merge([a, b], base(), regular, [fa, fb], ridge=-1)
    with pytest.raises(InputError, match="values: are"):
        solve_constrained(random(0, 4, 8), regular, fa, random(1, 3, 4))
    with pytest.raises(InputError, match="targets: are"):
        solve_constrained(random(0, 4, 7), regular, fa, random(1, 2, 4))


# on text states, which differ from random numbers: their layer norm leaves a direction nearly empty


def features(
    model: Base, prompt: str, vectors: dict[str, torch.Tensor], first: int
) -> torch.Tensor:
    """States of ``prompt`` from column ``first`` to the end token, without padding."""
    tokens = model.tokens(prompt, list(vectors))
    with torch.no_grad():
        states = model.states(tokens, vectors)
    return states[first : tokens.ids.index(model.tokenizer.eos_token_id) + 1]


def test_concepts_of_the_bundled_base_are_merged() -> None:
    model = Base.load()
    chance = np.random.default_rng(0)
    words = sorted(vocabulary.words())
    captions = [" ".join(chance.choice(words, 6, replace=False)) for _ in range(200)]
    regular = torch.cat([features(model, c, {}, 1) for c in captions])
    parts, targets = [], []
    for k, token in enumerate(("<a>", "<b>")):
        own = {n: w + 0.05 * random(7 * k, *w.shape).float() for n, w in model.weights.items()}
        vector = 0.02 * random(90 + k, model.width).float()
        parts.append(
            Concept(
                {token: vector},
                {n: own[f"{n}.to_k.weight"] for n in model.layers},
                {n: own[f"{n}.to_v.weight"] for n in model.layers},
            )
        )
        targets.append(features(model, f"{token} teapot", {token: vector}, 1))
    merged = merge(parts, model.weights, regular, targets)

    for name, weight in merged.weights.items():
        base = model.weights[name]
        for part, c in zip(parts, targets, strict=True):
            effect = (c @ (part.weights[name] - base).T).norm()
            for kept, most in ((weight, 1e-4), (weight.half().float(), 0.02)):
                assert (c @ (kept - part.weights[name]).T).norm() < most * effect
        summed = sum((p.weights[name] - base for p in parts), torch.zeros_like(base))
        # the concepts' words are among the captions', so that some must change
        assert (regular @ (weight - base).T).norm() < 0.7 * (regular @ summed.T).norm()
        assert (weight - base).abs().max() < 20
