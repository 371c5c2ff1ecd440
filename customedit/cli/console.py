"""What the commands share: errors in one line, progress bars, results for people or machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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

from customedit.errors import InputError, TrainingError

if TYPE_CHECKING:  # seconds to import
    from PIL import Image

    from customedit.diffusion.base import Base
    from customedit.diffusion.engine import Progress
    from customedit.diffusion.text import Weighted

BaseOption = Annotated[
    str, typer.Option("--base", help="A diffusers folder, a hub name, or mini (bundled).")
]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu, cuda, or cuda:N.")]
DtypeOption = Annotated[str, typer.Option("--dtype", help="float32, bfloat16 or float16.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON, no bars.")]

errors = Console(stderr=True)


@contextmanager
def mendable() -> Iterator[None]:
    """Errors that the user can mend as one line and status 2; a stop by Ctrl-C as status 130."""
    try:
        yield
    except (InputError, TrainingError) as error:
        errors.print(f"[red]error:[/red] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        errors.print("stopped")
        raise typer.Exit(130) from None


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

        def heard(progress: Progress) -> None:
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

        yield heard


def say(value: dict[str, Any], lines: list[str], as_json: bool) -> None:
    """The result: JSON on stdout for machines, lines for people."""
    if as_json:
        json.dump(value, sys.stdout, indent=2)
        print()
    else:
        for line in lines:
            print(line)


def load_base(name: str, device: str, dtype: str) -> Base:
    """The base that the options name."""
    import torch

    from customedit.diffusion.base import Base
    from customedit.mini.draw import hush

    hush()
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype not in dtypes:
        raise InputError("dtype", f"{dtype!r} is none", f"take one of {', '.join(dtypes)}")
    return Base.load(name, device=device, dtype=dtypes[dtype])


def load_concepts(base: Base, given: list[str]) -> list[Weighted]:
    """Concepts as ``FILE`` or ``FILE:WEIGHT``, checked against ``base``."""
    from customedit.concepts.checks import check_concept
    from customedit.concepts.concept import Concept
    from customedit.diffusion.text import Weighted

    found = []
    for text in given:
        name, _, tail = text.rpartition(":")
        weight = 1.0
        if name:
            with suppress(ValueError):  # else the colon is the path's own
                weight, text = float(tail), name
        concept = Concept.load(Path(text), base_weights=base.weights)
        check_concept(concept, base)
        found.append(Weighted(concept, weight))
    return found


def existing(path: Path, field: str) -> Path:
    """``path`` if it is a file. Raises InputError."""
    if not path.is_file():
        raise InputError(field, f"{path} is no file", "mend the path")
    return path


def read_image(path: Path, field: str) -> Image.Image:
    """The picture in ``path``, RGB."""
    from customedit import images

    return images.read(existing(path, field), field=field).image


def keeping() -> Path:
    """Where inversions and class images are kept between commands."""
    import os

    root = os.environ.get("CUSTOMEDIT_CACHE") or os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "customedit"
