"""The bundled base, and a source picture of the samples."""

from __future__ import annotations

from typing import Final, get_args

import pytest
from PIL import Image

from customedit.diffusion.base import Base
from customedit.mini import samples
from customedit.schemas.methods import EditMethod

NOISE_METHODS: Final[tuple[EditMethod, ...]] = tuple(
    method for method in get_args(EditMethod) if method != "flowedit"
)
"""The methods of bases that predict noise, such as the bundled one."""


@pytest.fixture(scope="session")
def base() -> Base:
    return Base.load()


@pytest.fixture(scope="session")
def source() -> samples.Source:
    return samples.sources()[3]


@pytest.fixture(scope="session")
def picture(source: samples.Source) -> Image.Image:
    return Image.open(source.image).convert("RGB")
