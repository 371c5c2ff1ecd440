"""``customedit study``: the paper's comparison on the bundled base."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from customedit.cli import console, outputs
from customedit.errors import InputError

_OF_STUDY: Final = (
    r"cells|grids|concepts|inversions|classes|references|budgets|words|quick"
    r"|study\.(json|md)|study-[\w-]+\.(jpg|svg)"
)
"""The names in a study's folder."""


def study_command(
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", help="A folder for concepts, rows and grids, which a later run reuses."
        ),
    ] = Path("runs/study"),
    page: Annotated[
        Path | None, typer.Option(help="The file of the page; study.md in the folder if left out.")
    ] = None,
    looks: Annotated[
        list[str] | None, typer.Option("--look", help="A look by name; all eight if left out.")
    ] = None,
    sources: Annotated[
        int | None,
        typer.Option(min=1, max=24, help="Pictures of LookBench's public set; 12 if left out."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, max=99, help="Trainings of each look; 3 if left out.")
    ] = None,
    variants: Annotated[
        list[str] | None,
        typer.Option("--variant", help="A variant by name beside the first; all if left out."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, max=1000, help="DDIM steps; 50 if left out.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A few steps of everything: a check, not a result.")
    ] = False,
    force: outputs.ForceOption = False,
    as_json: console.JsonOption = False,
) -> None:
    """Compare the methods and their ablations; stops and resumes at any point (hours)."""
    if page is not None:
        outputs.check_file(page, force, field="page", suffixes=[".md"])
    outputs.check_folder(out, force, ours=_OF_STUDY, resumable=True)
    from customedit.experiments.study import study
    from customedit.experiments.variants import Plan
    from customedit.metrics.similarity import bundled

    size = {
        "look": looks, "sources": sources, "seeds": seeds, "variant": variants, "steps": steps
    }  # fmt: skip
    given = [name for name, value in size.items() if value]
    if quick and given:
        raise InputError(given[0], "has no effect with --quick", "leave one of them out")
    plan = Plan.quick() if quick else Plan.of(looks, sources, seeds, variants, steps)
    if quick:
        out = out / "quick"
    base = console.load_base("mini", "cpu", "float32")

    def on_cell(done: int, of: int, name: str) -> None:
        if not as_json:
            console.status(f"{done} of {of}: {name}")

    rows = study(base, bundled(), plan, out, page_file=page, on_cell=on_cell)
    written = page or out / "study.md"
    console.say(
        {"page": str(written), "rows": len(rows)}, [f"{written}: {len(rows)} edits"], as_json
    )
