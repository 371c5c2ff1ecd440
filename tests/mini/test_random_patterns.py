"""Random patterns close round the thing, show the colours they are given, and are no look."""

from __future__ import annotations

import functools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from customedit.mini import random_patterns
from customedit.mini.random_patterns import FAMILIES, LEAST_SHARE, paint
from customedit.mini.random_patterns.tools import Family, Levels
from customedit.mini.vocabulary import LOOKS

from . import near_twins


def _counted(
    drawn: Counter[str], name: str, family: Family, rng: np.random.Generator, count: int
) -> Levels:
    drawn[name] += 1
    return family(rng, count)


SEEDS = st.integers(0, 2**31)
COUNTS = st.integers(2, 4)
PALETTE = np.eye(4, 3, dtype=np.float32)
T, S = (
    a.ravel().astype(np.float32)
    for a in np.meshgrid(np.linspace(0, 0.62, 64), (np.arange(96) + 0.5) / 96, indexing="ij")
)
every_family = pytest.mark.parametrize("family", FAMILIES)
quick = settings(max_examples=15)


def painted(s: np.ndarray, t: np.ndarray, seed: int, count: int, family: str) -> np.ndarray:
    return paint(s, t, np.random.default_rng(seed), PALETTE[:count], family)


@every_family
@quick
@given(seed=SEEDS, count=COUNTS)
def test_patterns_meet_where_they_close(family: str, seed: int, count: int) -> None:
    """From the last column to the first no more changes than between two others somewhere.

    A pattern with upright edges may have one there.
    """
    columns, rows = 360, 60
    s = np.tile((np.arange(columns, dtype=np.float32) + 0.5) / columns, rows)
    t = np.repeat(np.linspace(0, 0.6, rows, dtype=np.float32), columns)
    sheet = painted(s, t, seed, count, family).reshape(rows, columns, 3)
    jumps = (np.abs(sheet - np.roll(sheet, 1, axis=1)).max(axis=2) > 0.2).mean(axis=0)
    if jumps[1:].max() < 0.2:
        assert jumps[0] <= 1.5 * jumps[1:].max() + 0.08


@every_family
@quick
@given(seed=SEEDS, count=COUNTS)
def test_every_colour_is_there_and_the_first_covers_most(
    family: str, seed: int, count: int
) -> None:
    shares = painted(S, T, seed, count, family).mean(0)
    found = np.append(shares[:3], 1 - shares.sum())[:count]  # the fourth colour is black
    assert found.min() > LEAST_SHARE / 2
    assert found[0] >= found.max() - 0.3  # of a coarse pattern a body shows but a part


@every_family
@quick
@given(seed=SEEDS, count=COUNTS)
def test_equal_seeds_paint_equal_patterns(family: str, seed: int, count: int) -> None:
    one, two = (painted(S, T, seed, count, family) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert one.shape == (len(S), 3) and one.dtype == np.float32
    assert one.min() >= 0 and one.max() <= 1
    part = painted(S[100:140], T[100:140], seed, count, family)
    np.testing.assert_allclose(part, one[100:140], atol=1e-5)


def test_every_family_is_drawn() -> None:
    drawn: Counter[str] = Counter()
    with pytest.MonkeyPatch.context() as patch:
        for name in FAMILIES:
            counted = functools.partial(_counted, drawn, name, FAMILIES[name])
            patch.setitem(random_patterns.FAMILIES, name, counted)
        for seed in range(400):
            random_patterns.draw(np.random.default_rng(seed), 2 + seed % 3)
    assert set(drawn) == set(FAMILIES)


def test_a_family_that_can_not_show_its_colours_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        random_patterns.FAMILIES, "bare", lambda rng, count: lambda s, t: np.zeros_like(s)
    )
    with pytest.raises(ValueError, match="bare shows 3 colours in none of"):
        random_patterns.draw(np.random.default_rng(0), 3, "bare")


@pytest.fixture(scope="module")
def apart() -> dict[str, dict[str, float]]:
    draws: dict[str, near_twins.Draw] = {
        name: functools.partial(near_twins.family, name) for name in FAMILIES
    }
    draws |= {f"twin of {n}": functools.partial(near_twins.twin, n) for n in LOOKS}
    return near_twins.measured(draws)


@pytest.mark.parametrize("look", LOOKS)
def test_no_family_is_a_near_twin_of_a_look(look: str, apart: dict[str, dict[str, float]]) -> None:
    """Every family stays further from the look than a twin does that was made by hand."""
    twin = apart[f"twin of {look}"][look]
    nearest = min(FAMILIES, key=lambda family: apart[family][look])
    assert apart[nearest][look] > 1.3 * twin, nearest


@pytest.mark.parametrize("look", LOOKS)
def test_the_measure_finds_a_twin_among_those_of_all_looks(
    look: str, apart: dict[str, dict[str, float]]
) -> None:
    """Terrazzo and leopard are both made of random cells: their twins may stand close."""
    twins = {other: apart[f"twin of {other}"][look] for other in LOOKS}
    assert twins[look] <= 1.15 * min(twins.values())
