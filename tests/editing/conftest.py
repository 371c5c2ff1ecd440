"""The bundled base, and a source picture of the samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, get_args

import pytest
import torch
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


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Sums are in one order whatever the machine has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
