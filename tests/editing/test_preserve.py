"""A user's mask with ``preserve``: nothing beyond it and its feather changes, by either method."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from customedit import images
from customedit.diffusion.base import Base
from customedit.editing.editor import Editor
from customedit.schemas.methods import EditMethod

from .conftest import NOISE_METHODS

SIZES = [
    (128, 128), (333, 333), (640, 640), (64, 64), (641, 479), (479, 641),
    (300, 200), (200, 300), (1920, 1080), (1080, 1920), (1001, 401), (401, 1001),
    (97, 89), (512, 320), (320, 512), (255, 257), (257, 255), (800, 600),
    (1024, 256), (256, 1024), (2400, 1600), (1600, 2400), (4800, 3200), (3200, 4800),
]  # fmt: skip
"""24 sizes and aspects, the largest of 15 million pixels."""
FEW = [(333, 333), (641, 479), (200, 300), (1024, 256)]
CASES = [
    (FEW[(place + more) % len(FEW)], method)
    for place, method in enumerate(NOISE_METHODS)
    for more in (0, 2)
]
"""Two of the sizes for each method."""


def changed_beyond(size: tuple[int, int], method: EditMethod, base: Base, folder: Path) -> int:
    """How many pixels of a written edit differ from the source farther than the feather."""
    width, height = size
    levels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    source = Image.fromarray(levels)
    y, x = np.mgrid[0:height, 0:width]
    mask = ((x - 0.4 * width) ** 2 + (y - 0.6 * height) ** 2 < (0.23 * min(size)) ** 2).astype("f")
    session = Editor(base).open(source, "a photo of a red cup")
    result = session.edit(
        "a photo of a blue cup", method=method, steps=2, preserve=True, mask=torch.from_numpy(mask)
    )
    assert result.image.size == size
    box = ndimage.distance_transform_edt(mask == 0) > result.plan.feather
    counts = []
    for suffix in (".png", ".webp") if width * height < 2**20 else (".png",):
        images.write(result.image, folder / f"out{suffix}")
        limits = images.Limits(max_bytes=2**30)
        found = np.asarray(images.read(folder / f"out{suffix}", limits=limits).image)
        assert (found[mask > 0] != levels[mask > 0]).mean() > 0.9
        counts.append(int((found != levels).any(-1)[box].sum()))
    return max(counts)


@pytest.mark.parametrize(("size", "method"), CASES)
def test_beyond_mask_and_feather_no_pixel_changes(
    size: tuple[int, int], method: EditMethod, base: Base, tmp_path: Path
) -> None:
    assert changed_beyond(size, method, base, tmp_path) == 0


@pytest.mark.slow
@pytest.mark.parametrize("method", NOISE_METHODS)
@pytest.mark.parametrize("size", SIZES)
def test_of_all_sizes_and_aspects(
    size: tuple[int, int], method: EditMethod, base: Base, tmp_path: Path
) -> None:
    assert len(set(SIZES)) == 24
    assert changed_beyond(size, method, base, tmp_path) == 0
