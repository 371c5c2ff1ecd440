"""Whether a concept fits a base: its fingerprint, shapes, and numbers in the base's dtype."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from customedit.concepts.checks import check_concept
from customedit.concepts.concept import Concept
from customedit.concepts.effect import measure_effect
from customedit.diffusion.adapters import UNET, LowRank
from customedit.diffusion.base import Base
from customedit.diffusion.engine import run
from customedit.diffusion.text import Weighted
from customedit.errors import InputError


@pytest.fixture(scope="module")
def base() -> Base:
    return Base.load()


def changed(base: Base, factor: float) -> Concept:
    layer = base.layers[0]
    keys = {layer: base.weights[f"{layer}.to_k.weight"] * factor}
    values = {layer: base.weights[f"{layer}.to_v.weight"] * factor}
    return Concept({"<a>": torch.ones(base.width)}, keys, values, base=base.concept_fingerprint)


def test_a_concept_of_the_base_fits(base: Base) -> None:
    check_concept(changed(base, 2.0), base)
    check_concept(dataclasses.replace(changed(base, 2.0), base=""), base)
    with pytest.raises(InputError, match="was made for the base other, this is"):
        check_concept(dataclasses.replace(changed(base, 2.0), base="other"), base)


@pytest.mark.parametrize("factor", [1e37, 1e39])
def test_finite_numbers_that_overflow_are_refused(base: Base, factor: float) -> None:
    """They would give keys that are not finite, and a black picture."""
    made = changed(base, 1.0)
    made.keys[base.layers[0]] = made.keys[base.layers[0]].double() * factor
    with pytest.raises(InputError, match=r"its .*to_k\.weight has .*, more than torch\.float32"):
        check_concept(made, base)


def test_the_dtype_of_the_base_decides(base: Base) -> None:
    made = changed(base, 1e4)
    check_concept(made, base)
    half = dataclasses.replace(base, dtype=torch.float16)
    with pytest.raises(
        InputError, match=r"more than torch\.float16 .* base in bfloat16 or float32"
    ):
        check_concept(made, half)
    vector = Concept({"<a>": torch.full((base.width,), 1e5)})
    check_concept(vector, base)
    with pytest.raises(InputError, match=r"its token\.<a> has 100000, more than"):
        check_concept(vector, half)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_numbers_that_are_not_finite(base: Base, bad: float) -> None:
    made = changed(base, 2.0)
    made.values[base.layers[0]][0, 0] = bad
    with pytest.raises(InputError, match="not finite"):
        check_concept(made, base)


def test_adapters_of_another_base(base: Base) -> None:
    path = f"{UNET}mid_block.resnets.0.conv1"
    made = Concept(
        {"<a>": torch.zeros(0, base.width)},
        adapters={path: LowRank(torch.ones(3, 1), torch.ones(1, 3, 3, 3))},
    )
    with pytest.raises(InputError, match=r"it changes .*conv1 by 3 x 3 x 3 x 3, .* is 192 x 192"):
        check_concept(made, base)
    other = dataclasses.replace(made, adapters={f"{UNET}x": made.adapters[path]})
    with pytest.raises(InputError, match=r"another base: unet\.x is not in it"):
        check_concept(other, base)


@pytest.mark.parametrize("weight", [math.nan, math.inf, -math.inf, -0.1, 2.1, 1e9])
def test_weights_are_bounded_wherever_they_are_given(base: Base, weight: float) -> None:
    with pytest.raises(InputError, match=r"weight.* 0 to 2"):
        Weighted(changed(base, 2.0), weight)


def test_the_effect_is_that_of_the_weights(base: Base) -> None:
    assert run(base, measure_effect(base, changed(base, 1.0))) == 0
    small, large = (run(base, measure_effect(base, changed(base, f))) for f in (1.1, 2.0))
    assert 1e-4 < small < large
    assert run(base, measure_effect(base, Concept({"<a>": torch.ones(base.width)}))) == 0
