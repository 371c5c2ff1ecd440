"""``customedit study``: the paper's comparison on the bundled base."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from customedit.cli import console


def study_command(
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Concepts, rows and grids; kept between runs.")
    ] = Path("runs/study"),
    page: Annotated[
        Path | None, typer.Option(help="Where the page goes; study.md in the folder if left out.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A few steps of everything: a check, not a result.")
    ] = False,
    as_json: console.JsonOption = False,
) -> None:
    """Compare the methods and their ablations; stops and resumes at any point (hours)."""
    with console.mendable():
        from customedit.experiments.study import study
        from customedit.experiments.variants import Plan
        from customedit.metrics.similarity import bundled

        base = console.load_base("mini", "cpu", "float32")
        plan = Plan.quick() if quick else Plan.whole()
        if quick:
            out = out / "quick"

        def on_cell(done: int, of: int, name: str) -> None:
            if not as_json:
                console.errors.print(f"{done} of {of}: {name}")

        rows = study(base, bundled(), plan, out, page_file=page, on_cell=on_cell)
    written = page or out / "study.md"
    console.say(
        {"page": str(written), "rows": len(rows)}, [f"{written}: {len(rows)} edits"], as_json
    )
