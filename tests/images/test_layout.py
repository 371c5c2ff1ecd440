"""Which size a model works at, and sheets of pictures with labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from customedit import images
from customedit.images.layout import LINE, MARGIN, labelled, tiled, tiled_rows

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


def grey(level: int, size: tuple[int, int] = (3, 2)) -> Image.Image:
    return Image.new("RGB", size, (level, level, level))


def levels(sheet: Image.Image, *places: tuple[int, int]) -> list[int]:
    return [int(np.asarray(sheet)[y, x, 0]) for x, y in places]


def test_tiles_keep_their_order_on_white() -> None:
    sheet = tiled([grey(0), grey(1), grey(2), grey(0, (2, 2)), None, grey(1)], 2)
    assert sheet.size == (6, 6)
    places = (0, 0), (3, 0), (0, 2), (3, 2), (5, 2), (0, 4), (3, 4)
    assert levels(sheet, *places) == [0, 1, 2, 0, 255, 255, 1]
    for none in ([], [None]):
        with pytest.raises(ValueError, match="0 tiles"):
            tiled(none, 2)


def test_rows_of_tiles_may_have_different_lengths() -> None:
    sheet = tiled_rows([[grey(1)], [grey(2), grey(3)]])
    assert sheet.size == (6, 4)
    assert levels(sheet, (0, 0), (3, 0), (0, 2), (3, 2)) == [1, 255, 2, 3]
    with pytest.raises(ValueError, match="0 tiles"):
        tiled_rows([])


def test_a_label_stands_below_its_picture_and_leaves_it_whole() -> None:
    picture = Image.new("RGB", (128, 100), (200, 200, 200))
    tile = labelled(picture, ["a right line", "a wrong line"], wrong=[False, True])
    assert tile.size == (128 + 2 * MARGIN, 100 + 2 * MARGIN + 2 * LINE)
    pixels = np.asarray(tile).astype(int)
    below = 100 + 2 * MARGIN
    assert (pixels[MARGIN : MARGIN + 100, MARGIN : MARGIN + 128] == 200).all()
    red = (pixels[..., 0] > 150) & (pixels[..., 1] < 90)
    dark = pixels.max(-1) < 120
    assert red[below + LINE :].any() and not red[: below + LINE].any()
    assert dark[below : below + LINE].any() and not dark[:below].any()


def test_a_frame_is_around_the_picture() -> None:
    picture = Image.new("RGB", (40, 30), (200, 200, 200))
    framed = np.asarray(labelled(picture, ["best"], frame=(30, 140, 60)))
    plain = np.asarray(labelled(picture, ["best"]))
    green = (framed == (30, 140, 60)).all(-1)
    rows, columns = np.nonzero(green)
    assert (rows.min(), rows.max()) == (1, 30 + 2 * MARGIN - 2)
    assert (columns.min(), columns.max()) == (1, 40 + 2 * MARGIN - 2)
    assert (framed[~green] == plain[~green]).all()
