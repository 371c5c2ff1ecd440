"""Masks as users have them: what is read as inside, what is refused, and how it is resized."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from customedit.errors import InputError
from customedit.images.masks import MIN_SHARE, fit_mask, read_mask

from .conftest import FORMATS, noise, png, saved

SIZE = (48, 32)
BOX = (8, 4, 24, 20)
INSIDE = np.zeros((32, 48), np.float32)
INSIDE[4:20, 8:24] = 1


def painted(mode: str, inside: object, outside: object) -> Image.Image:
    image = Image.new(mode, SIZE, outside)  # type: ignore[arg-type]  # a colour of the mode
    image.paste(inside, BOX)  # type: ignore[arg-type]
    return image


def palette(colours: list[int], *, transparency: int | None = None) -> bytes:
    image = painted("P", 1, 0)
    image.putpalette(colours)
    return saved(image) if transparency is None else saved(image, transparency=transparency)


def deep(inside: int, outside: int = 0) -> bytes:
    return saved(Image.fromarray(np.where(INSIDE > 0, inside, outside).astype(np.uint16)))


PLAIN = {
    "L": saved(painted("L", 255, 0)),
    "1": saved(painted("1", 1, 0)),
    "RGB": saved(painted("RGB", "white", "black")),
    "P": palette([0, 0, 0, 255, 255, 255]),
    "16 bits": deep(65535),
    "white on transparent": saved(painted("RGBA", (255,) * 4, (0, 0, 0, 0))),
    "white on transparent white": saved(painted("RGBA", (255,) * 4, (255, 255, 255, 0))),
    "LA": saved(painted("LA", (255, 255), (255, 0))),
    "palette, transparent": palette([9, 9, 9, 255, 255, 255], transparency=0),
    "opaque alpha": saved(painted("RGBA", (255,) * 4, (0, 0, 0, 255))),
    "webp, transparent": saved(painted("RGBA", (255,) * 4, (0, 0, 0, 0)), "WEBP", lossless=True),
    "transparent key": saved(painted("L", 255, 7), transparency=7),
}
LABELS = {
    "0 and 1": saved(painted("L", 1, 0)),
    "0 and 1 of 16 bits": deep(1),
    "0 and 255 of 16 bits": deep(255),
    "palette of 0 and 1": palette([0, 0, 0, 1, 1, 1]),
    "0 and 1 of 2 bits": png(
        (16, 16), (b"\0\x55\x55\0\0" * 8) + (b"\0\0\0\0\0" * 8), depth=2, kind=0
    ),
    "red on black": palette([0, 0, 0, 128, 0, 0]),
    "red on transparent": saved(painted("RGBA", (255, 0, 0, 255), (0, 0, 0, 0))),
    "grey on transparent": saved(painted("LA", (90, 255), (0, 0))),
}


@pytest.mark.parametrize("data", PLAIN.values(), ids=PLAIN)
def test_white_is_inside_and_transparent_is_outside(data: bytes) -> None:
    found = read_mask(data)
    assert found.values.dtype == np.float32 and not found.warnings
    assert (found.values == INSIDE).all()


@pytest.mark.parametrize("data", LABELS.values(), ids=LABELS)
def test_labels_are_read_as_such_and_told(data: bytes) -> None:
    found = read_mask(data)
    assert set(np.unique(found.values)) == {0, 1}
    (warning,) = found.warnings
    assert "read as" in warning
    if found.values.shape == INSIDE.shape:
        assert (found.values == INSIDE).all()
    else:
        assert (found.values[:8, :8] == 1).all() and found.values.sum() == 64


@pytest.mark.parametrize("name", FORMATS)
def test_lossy_files_have_clean_sides(name: str) -> None:
    found = read_mask(saved(painted("L", 255, 0).convert("RGB"), name, quality=85))
    sure = np.abs(INSIDE - np.roll(INSIDE, (9, 9), (0, 1))) == 0  # away from the edge's ringing
    assert found.values.min() == 0 and found.values.max() == 1
    assert ((found.values > 0.5) == (INSIDE > 0.5)).mean() > 0.99
    far = np.ones_like(INSIDE, bool)
    far[:28, :] = False
    assert (found.values[far & sure] == 0).all()


def test_greys_and_alpha_are_degrees() -> None:
    ramp = np.tile(np.linspace(0, 255, 48).round().astype(np.uint8), (32, 1))
    assert np.allclose(read_mask(saved(Image.fromarray(ramp))).values, ramp / 255)
    veil = Image.new("L", SIZE, 255)
    veil.putalpha(Image.fromarray(ramp))
    assert np.allclose(read_mask(saved(veil)).values, ramp / 255)
    wide = ramp.astype(np.uint16) * 257
    assert np.allclose(read_mask(saved(Image.fromarray(wide))).values, ramp / 255)


def levels(*found: int) -> bytes:
    """A mask of vertical stripes."""
    stripes = np.repeat(np.array(found, np.uint8), 48 // len(found))[None].repeat(32, 0)
    return saved(Image.fromarray(stripes))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (saved(Image.new("L", SIZE, 0)), "is black everywhere"),
        (saved(Image.new("RGBA", SIZE, (0, 0, 0, 0))), "is black everywhere"),
        (saved(Image.new("L", SIZE, 255)), "covers the whole picture"),
        (saved(Image.new("L", SIZE, 200)), "covers the whole picture"),
        (saved(painted("L", 255, 160)), "covers the whole picture"),
        (saved(painted("L", 100, 0)), r"spans 0 to 100 of 255"),
        (levels(0, 1, 2, 3), r"spans 0 to 3 of 255 \(levels 0, 1, 2, 3\).*several labels"),
        (levels(0, 1, 255, 255), r"spans 0 to 255 of 255 \(levels 0, 1, 255\)"),
        (deep(255, 3), r"spans 3 to 255 of 65535"),
        (saved(painted("RGBA", (0, 0, 0, 255), (0, 0, 0, 0))), "is black on transparent"),
        (saved(painted("RGB", (255, 0, 0), (0, 255, 0))), "holds colours"),
        (palette([0, 90, 0, 128, 0, 0]), "holds colours"),
        (saved(noise(SIZE)), "holds colours"),
        (saved(noise(SIZE), "JPEG"), "holds colours"),
        (b"no picture", "is no PNG, JPEG or WebP"),
    ],
)
def test_masks_that_say_nothing_or_two_things_are_refused(
    data: bytes, says: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=f"mask: {says}"):
        read_mask(data)
    path = tmp_path / "mine.png"
    path.write_bytes(data)
    with pytest.raises(InputError, match=f"own: .*mine.png {says}"):
        read_mask(path, field="own")


def test_a_mask_of_less_than_a_cell_is_refused() -> None:
    side = 128  # 1/4096 of it are 4 pixels
    values = np.zeros((side, side), np.float32)
    values[5, 5:8] = 1
    with pytest.raises(InputError, match=r"covers 3 of 16384 pixels, the least is 4 \(1/4096"):
        fit_mask(values, (side, side))
    values[5, 8] = 1
    assert fit_mask(values, (side, side)) is values
    with pytest.raises(InputError, match="the least is 16"):
        fit_mask(values, (side, side), min_share=1 / 1024)
    assert MIN_SHARE == 1 / 64**2


@pytest.mark.parametrize(
    ("size", "fits"),
    [
        ((480, 320), True),
        ((4800, 3200), True),
        ((481, 320), True),
        ((47, 31), True),
        ((48, 33), True),
        ((50, 32), False),
        ((480, 340), False),
        ((32, 48), False),
        ((48, 48), False),
        ((512, 512), False),
    ],
)
def test_another_aspect_is_refused(size: tuple[int, int], fits: bool) -> None:
    """One per cent, or a pixel of the mask, is what rounding a size may do."""
    data = saved(painted("L", 255, 0))
    if fits:
        assert read_mask(data, size).values.shape == size[::-1]
    else:
        with pytest.raises(InputError, match=r"mask: is 48 x 32 pixels, an aspect of 1.500, the"):
            read_mask(data, size)


def test_a_turned_mask_is_asked_about() -> None:
    with pytest.raises(InputError, match=r"is it turned\?"):
        read_mask(saved(painted("L", 255, 0)), (32, 48))


def test_orientation_is_applied_to_masks() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    found = read_mask(saved(painted("L", 255, 0), exif=exif), (32, 48))
    assert (found.values == np.rot90(INSIDE, -1)).all()


@given(st.integers(16, 200), st.integers(16, 200), st.integers(0, 99))
def test_resizing_keeps_area_place_and_range(width: int, height: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.zeros((240, 320), np.float32)
    x, y = rng.integers(0, 160), rng.integers(0, 120)
    values[y : y + 120, x : x + 160] = 1
    size = (width, max(1, round(width * 0.75)))
    found = fit_mask(values, size)
    assert found.shape == size[::-1] and found.min() >= 0 and found.max() <= 1
    assert abs(found.mean() - values.mean()) < 0.03
    across, down = (
        np.average(np.arange(n) + 0.5, weights=found.sum(k)) / n for k, n in enumerate(size)
    )
    assert abs(across - (x + 80) / 320) < 0.03 and abs(down - (y + 60) / 240) < 0.03


def test_a_reduced_mask_is_antialiased() -> None:
    fine = np.indices((256, 256)).sum(0) % 2  # a chequerboard: half everywhere
    fine[:128] = 0
    found = fit_mask(fine.astype(np.float32), (32, 32))
    assert np.abs(found[20:30, 4:28] - 0.5).max() < 0.05 and not found[:10].any()


@pytest.mark.parametrize(
    "values",
    [np.ones((1, 2, 2)), np.ones((0, 3)), np.eye(4) * 2, np.eye(4) - 1, np.full((4, 4), np.nan)],
)
def test_numbers_that_are_no_mask_are_refused(values: np.ndarray) -> None:
    with pytest.raises(InputError, match="mask"):
        fit_mask(values.astype(np.float32), (4, 4))


def test_a_mask_without_a_picture_keeps_its_size() -> None:
    found = read_mask(saved(painted("L", 255, 0)))
    assert found.values.shape == (32, 48)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_may_mark_the_inside(mode: str) -> None:
    clear, full = ((9, 9, 9, 0), (9, 9, 9, 255)) if mode == "RGBA" else ((9, 0), (9, 255))
    mask = read_mask(saved(painted(mode, clear, full)), SIZE, marks="transparent")
    assert (mask.values == INSIDE).all()
    with pytest.raises(InputError, match="no transparency"):
        read_mask(PLAIN["L"], SIZE, marks="transparent")
    with pytest.raises(InputError, match="black everywhere"):
        read_mask(PLAIN["opaque alpha"], SIZE, marks="transparent")
