"""Which row of an edit's requests a preview shows: the target's, as its method orders them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from PIL import Image, ImageChops

from customedit.diffusion.base import Base
from customedit.diffusion.engine import run
from customedit.diffusion.method import Denoise
from worker import outputs


@pytest.fixture(scope="module")
def base() -> Iterator[Base]:
    yield Base.load()


@pytest.mark.parametrize(("rows", "shown"), [(3, 2), (4, 2), (2, 1)])
def test_a_preview_shows_the_row_of_the_target(base: Base, rows: int, shown: int) -> None:
    """The method says which: of Prompt-to-Prompt's source, none, target (and source's none)."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn((rows, base.channels, 16, 16), generator=generator)
    noise = torch.randn(latents.shape, generator=generator)
    request = Denoise(latents, 501, [base.text("a cup")] * rows, shown=shown)
    preview = run(base, outputs._glimpse(base, request, noise))
    pictures: list[Image.Image] = base.decode(base.schedule.clean(latents, noise, 501))
    different = [ImageChops.difference(preview, p).getbbox() is not None for p in pictures]
    assert different == [k != shown for k in range(rows)]
