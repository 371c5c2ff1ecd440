"""Which size a model works at."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from customedit import images

sides = st.integers(16, 5000)


@given(sides, sides, st.sampled_from([1, 8, 16, 64]), st.integers(64 * 64, 1024 * 1024))
def test_fit_keeps_area_aspect_and_multiple(width: int, height: int, m: int, area: int) -> None:
    w, h = images.fit((width, height), m, area)
    assert w % m == 0 == h % m and min(w, h) >= m
    scale = (area / (width * height)) ** 0.5
    ideal = width * scale, height * scale
    if min(ideal) >= m:
        assert abs(w - ideal[0]) <= m / 2 and abs(h - ideal[1]) <= m / 2
    assert w * h <= 2.25 * area  # both sides rounded up from 1.5 multiples at most


def test_fit_by_example() -> None:
    assert images.fit((4000, 3000), 8, 512 * 512) == (592, 440)
    assert images.fit((128, 128), 8, 128 * 128) == (128, 128)
    assert images.fit((100_000, 16), 8, 64 * 64) == (512, 8)
    with pytest.raises(ValueError, match="positive"):
        images.fit((0, 4), 8, 64)
