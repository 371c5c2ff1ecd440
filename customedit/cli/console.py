"""What the commands share: options, progress bars, results and warnings, pictures read from files.

With ``--json`` a result is one JSON document on standard output, whose key ``warnings`` lists the
warnings if there are any; without it warnings are lines on standard error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.text import Text

from customedit.errors import InputError

if TYPE_CHECKING:  # seconds to import
    from PIL import Image
    from torch import Tensor

    from customedit.diffusion.base import Base
    from customedit.diffusion.method import Progress
    from customedit.diffusion.text import Weighted
    from customedit.images import Limits

BaseOption = Annotated[
    str, typer.Option("--base", help="A diffusers folder, a hub name, or mini (bundled).")
]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu, cuda, or cuda:N.")]
DtypeOption = Annotated[str, typer.Option("--dtype", help="float32, bfloat16 or float16.")]
JsonOption = Annotated[
    bool,
    typer.Option("--json", help="Print the result, warnings and errors as JSON; show no bars."),
]

errors = Console(stderr=True)

MAX_PIXELS: Final = "CUSTOMEDIT_MAX_PIXELS"
"""The environment variable that says how many pixels a picture may have, 200 million if unset."""

_warnings: ContextVar[list[str] | None] = ContextVar("warnings", default=None)
"""The warnings of a command that prints JSON; None where warnings are printed at once."""


@contextmanager
def warnings_in(as_json: bool) -> Iterator[list[str]]:
    """Collect warnings, for a JSON document, if ``as_json``; else each is printed at once."""
    collected: list[str] = []
    token = _warnings.set(collected if as_json else None)
    try:
        yield collected
    finally:
        _warnings.reset(token)


@contextmanager
def bars(quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """A listener that shows a method's progress with rate and time left, one bar per phase."""
    with Bars(
        TextColumn("{task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[facts]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=errors,
        disable=quiet,
    ) as shown:
        tasks: dict[str, Any] = {}

        def listen(progress: Progress) -> None:
            if progress.phase not in tasks:
                tasks[progress.phase] = shown.add_task(
                    progress.phase, total=progress.steps, facts="", rate=""
                )
            facts = "  ".join(f"{k} {v:.4f}" for k, v in progress.facts.items() if k == "loss")
            task = tasks[progress.phase]
            speed = shown.tasks[shown.task_ids.index(task)].speed
            rate = f"{speed:.1f}/s" if speed else ""
            shown.update(
                task, completed=progress.step, total=progress.steps, facts=facts, rate=rate
            )

        yield listen


def say(value: dict[str, Any], lines: list[str], as_json: bool) -> None:
    """Print the result on standard output: JSON with the warnings, or lines for people."""
    if as_json:
        collected = _warnings.get()
        json.dump(value | ({"warnings": collected} if collected else {}), sys.stdout, indent=2)
        print()
    else:
        for line in lines:
            print(line)


def quiet_libraries() -> None:
    """Let diffusers and transformers print errors alone: no notices, no bars of their own."""
    from customedit.mini.draw import hush

    hush()


def load_base(name: str, device: str, dtype: str) -> Base:
    """The base that the options name."""
    quiet_libraries()  # before diffusers is imported, which says what it misses

    import torch

    from customedit.diffusion.base import Base

    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype not in dtypes:
        raise InputError("dtype", f"{dtype!r} is not known", f"use one of {', '.join(dtypes)}")
    return Base.load(name, device=device, dtype=dtypes[dtype])


@dataclass(frozen=True)
class ConceptFile:
    """A concept as ``--concept`` names it: the file and the weight."""

    path: Path
    weight: float = 1.0

    @classmethod
    def read(cls, text: str) -> ConceptFile:
        """Read ``FILE`` or ``FILE:WEIGHT``, and check all of it that needs no base.

        Raises:
            InputError: for a weight out of range, and a file that is not a concept of ours; one of
                another kind is named, with the command that imports it.
        """
        from customedit.concepts.files.identify import refuse_for_editing
        from customedit.diffusion.text import WEIGHTS

        name, _, tail = text.rpartition(":")
        path, weight = Path(text), 1.0
        if name:
            with suppress(ValueError):  # else the colon is the path's own
                path, weight = Path(name), float(tail)
        low, high = WEIGHTS
        if not low <= weight <= high:  # also for nan
            raise InputError("concept", f"the weight {tail} is not from {low:g} to {high:g}")
        refuse_for_editing(path)
        return cls(path, weight)


def load_concepts(base: Base, files: list[ConceptFile]) -> list[Weighted]:
    """The concepts in ``files``, checked against ``base``."""
    from customedit.concepts.concept import Concept
    from customedit.diffusion.text import Weighted

    return [
        Weighted(Concept.load(file.path, base.weights).for_base(base), file.weight)
        for file in files
    ]


def existing(path: Path, field: str) -> Path:
    """``path`` if it is a file. Raises InputError."""
    try:
        if path.is_file():
            return path
        problem = "is a folder" if path.is_dir() else "does not exist"
    except OSError as error:  # such as a name that is too long
        problem = f"cannot be read ({error.strerror})"
    raise InputError(field, f"{path} {problem}", "give a file")


def read_image(path: Path, field: str) -> Image.Image:
    """The picture in ``path``, RGB; warns of what was passed over."""
    from customedit import images

    decoded = images.read(existing(path, field), field=field, limits=picture_limits())
    for warning in decoded.warnings:
        warn(f"{path} {warning}")
    return decoded.image


def read_mask(path: Path, size: tuple[int, int], field: str = "mask") -> Tensor:
    """The mask in ``path`` for a picture of ``size`` (width, height): [h, w] in [0, 1]."""
    import torch

    from customedit.images import masks

    mask = masks.read_mask(existing(path, field), size, field=field, limits=picture_limits())
    for warning in mask.warnings:
        warn(f"{path} {warning}")
    return torch.from_numpy(mask.values)


def picture_limits() -> Limits:
    """What a picture of one's own may have: 500 MiB, and pixels as ``CUSTOMEDIT_MAX_PIXELS`` says.

    Raises InputError for a value of the variable that is not a number of pixels.
    """
    import os

    from customedit.images import Limits

    text = os.environ.get(MAX_PIXELS, "").strip() or "200000000"
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= 2**31:
        raise InputError(MAX_PIXELS, f"is {text!r}", "set it to a number of pixels, at most 2^31")
    return Limits(max_bytes=500 * 2**20, max_pixels=int(text), setting=MAX_PIXELS)


def warn(text: str) -> None:
    """Warn of something that the user may not expect."""
    collected = _warnings.get()
    if collected is not None:
        collected.append(text)
    else:
        errors.print(Text.assemble(("warning:", "yellow"), " ", text), soft_wrap=True)


def status(line: str) -> None:
    """Print one line of what happens, on standard error."""
    errors.print(Text(line), soft_wrap=True)


def cache_folder() -> Path:
    """The folder of inversions and class images, which later commands read."""
    import os

    root = os.environ.get("CUSTOMEDIT_CACHE") or os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "customedit"
