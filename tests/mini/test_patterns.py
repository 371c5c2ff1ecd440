import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from customedit.mini import patterns
from customedit.mini.vocabulary import LOOKS, PATTERNS

RED, WHITE = np.array([[0.8, 0.1, 0.1], [0.95, 0.95, 0.95]], np.float32)
HEIGHTS = np.linspace(0.0, 0.6, 200, dtype=np.float32)
SEEDS = st.integers(0, 2**31)


def paint(name: str, s: np.ndarray, t: np.ndarray, seed: int) -> np.ndarray:
    return patterns.PAINTS[name](s, t, np.random.default_rng(seed), RED, WHITE)


def beside_the_seam(name: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The pattern just after s = 0 and just before s = 1, at many heights."""
    near = np.full_like(HEIGHTS, 1e-5)
    both = paint(name, np.concatenate([near, 1 - near]), np.tile(HEIGHTS, 2), seed)
    return both[: len(HEIGHTS)], both[len(HEIGHTS) :]


def test_every_word_for_a_pattern_can_be_painted() -> None:
    # textures are added by those who bring looks of their own
    assert {n for n in patterns.PAINTS if not n.startswith("texture")} == {*PATTERNS, *LOOKS}


@pytest.mark.parametrize("name", [n for n in patterns.PAINTS if n != "checkered"])
@given(seed=SEEDS)
def test_patterns_meet_where_they_close(name: str, seed: int) -> None:
    after, before = beside_the_seam(name, seed)
    apart = np.abs(after - before).max(axis=1) > 0.05
    assert apart.mean() <= 0.01  # a height may fall on an edge of the pattern itself


@given(seed=SEEDS)
def test_checks_alternate_where_they_close(seed: int) -> None:
    after, before = beside_the_seam("checkered", seed)
    np.testing.assert_allclose(after + before, np.tile(RED + WHITE, (len(HEIGHTS), 1)), atol=1e-6)


@pytest.mark.parametrize("name", patterns.PAINTS)
@given(seed=SEEDS)
def test_reflectance_is_of_the_right_shape_and_range(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    s, t = rng.random(300, np.float32), rng.random(300, np.float32) * np.float32(0.6)
    painted = paint(name, s, t, seed)
    assert painted.shape == (300, 3)
    assert np.all((painted >= 0) & (painted <= 1))
    np.testing.assert_array_equal(painted, paint(name, s, t, seed))


@pytest.mark.parametrize("name", [n for n in patterns.PAINTS if n != "plain"])
def test_a_pattern_shows_more_than_one_colour(name: str) -> None:
    s, t = (a.ravel().astype(np.float32) for a in np.mgrid[0:1:64j, 0:0.6:40j])
    assert paint(name, s, t, 0).std(axis=0).max() > 0.1
