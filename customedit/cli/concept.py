"""``customedit concept``: look into concept files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from customedit.cli import console

app = typer.Typer(help="Concept files.", no_args_is_help=True)


@app.callback()
def concept_callback() -> None:
    """Concept files."""


@app.command("show")
def show_command(
    file: Annotated[Path, typer.Argument(help="A concept file.")],
    as_json: console.JsonOption = False,
) -> None:
    """Tell what a concept file holds."""
    with console.mendable():
        from customedit.concepts.concept import Concept

        concept = Concept.load(console.existing(file, "file"))
    about: dict[str, Any] = {
        "file": str(file),
        "bytes": file.stat().st_size,
        "tokens": sorted(concept.tokens),
        "noun": concept.noun,
        "attribute": concept.attribute,
        "base": concept.base,
        "layers": len(concept.keys),
        "numbers": sum(
            t.numel()
            for part in (concept.tokens, concept.keys, concept.values)
            for t in part.values()
        ),
        "images": concept.images,
        "prompts": list(concept.prompts),
        "recipe": dict(concept.recipe),
    }
    console.say(about, [f"{k:<10} {v}" for k, v in about.items()], as_json)
