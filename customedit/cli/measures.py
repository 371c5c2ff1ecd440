"""The measures of ``edit`` and ``sweep``: which CLIP compares, and what else has weights."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from customedit.cli import console
from customedit.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

    from customedit.diffusion.base import Base
    from customedit.editing.edit import EditResult
    from customedit.metrics.similarity import Similarity

ClipOption = Annotated[
    str | None,
    typer.Option(help="The CLIP that measures; that of the base's profile if left out."),
]

AUTO_REMEDY: Final = "give --clip, or a number"
"""Against ``--change auto`` without a CLIP."""


def given_judge(clip: str | None) -> Similarity | None:
    """The CLIP that ``--clip`` names, None if it is left out.

    Raises InputError of ``clip``.
    """
    if clip is None:
        return None
    console.quiet_libraries()
    from customedit.metrics.similarity import Similarity

    with _model_option("clip", clip):
        return Similarity(clip)


def profile_judge(base: Base) -> Similarity | None:
    """The CLIP that the base's profile names, None if it names none.

    Raises InputError of ``clip`` for one that cannot be loaded.
    """
    if base.clip is None:
        return None
    from customedit.metrics.similarity import Similarity

    with _errors_of("clip"):
        return Similarity(base.clip)


def warn_without_judge(*, best: bool = False) -> None:
    """Say what is not measured. best: nor chosen."""
    chosen = ", and no edit is called the best" if best else ""
    console.warn(
        "the base's profile names no CLIP: similarities with source, references and text are not "
        f"measured{chosen}; give --clip"
    )


def more_measures(dino: str | None, lpips: Path | None) -> dict[str, Any]:
    """The measures whose weights are given."""
    console.quiet_libraries()
    from customedit.metrics.lpips import Lpips
    from customedit.metrics.similarity import Dino

    measures: dict[str, Any] = {}
    if dino is not None:
        with _model_option("dino", dino):
            measures["dino"] = Dino(dino)
    if lpips is not None:
        measures["lpips"] = Lpips(console.existing(lpips, "lpips"))
    return measures


def check_lpips_size(picture: Image.Image) -> None:
    """Raise InputError for a picture that LPIPS cannot measure."""
    from customedit.metrics.lpips import SMALLEST

    if min(picture.size) < SMALLEST:
        raise InputError(
            "lpips",
            f"cannot measure a picture of {picture.width} x {picture.height} pixels",
            f"use one whose sides have {SMALLEST} or more, or leave out --lpips",
        )


def measured(
    judge: Similarity | None,
    result: EditResult,
    references: Sequence[Image.Image],
    **more: Any,
) -> dict[str, float | None]:
    """The fields of ``Similarities``, rounded; None for what is not measured.

    judge: None leaves out what a CLIP compares; more: of ``more_measures``.
    """
    from customedit.editing.sweep import measure_edit
    from customedit.metrics.similarity import rounded, without_clip

    if judge is not None:
        return measure_edit(judge, result, references, **more).similarities.as_dict()
    others = without_clip(result.image, result.source, references, result.region, **more)
    return rounded({"source": None, "text": None, "reference": None, **others})


@contextmanager
def _model_option(option: str, name: str) -> Iterator[None]:
    """Loading the model ``name``, a folder or OWNER/NAME; an error names the ``option``."""
    if not os.path.isdir(name) and not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        problem = "is a file" if os.path.isfile(name) else "does not exist"
        raise InputError(option, f"{name} {problem}", "give a folder, or OWNER/NAME on the hub")
    with _errors_of(option):
        yield


@contextmanager
def _errors_of(option: str) -> Iterator[None]:
    """Inside, errors name the ``option``."""
    try:
        yield
    except InputError as error:
        raise InputError(option, error.problem, error.remedy) from None
