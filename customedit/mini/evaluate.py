"""Measure the bundled base: ``python -m customedit.mini.evaluate``.

Every figure is judged from pixels, by the judge (a classifier trained on renders alone) or by true
masks; the model's own CLIP judges only itself. Everything is seeded. What is written: all rows in
``evaluation.json``; ``sheet.png`` and on, what was drawn; ``patterned.png``, any pattern as drawn
and as rendered; ``vae.png``, originals over their reconstructions; ``attention.png``, where the
noun looks.

How the colours of a drawn picture are judged: the thing's is the palette colour of most pixels
within the judge's mask. Of a checkered thing, half and half by construction, either named colour
counts. Where the judge sees no thing, colour, class and pattern are wrong. The same readings on the
prompts' own renders stand beside them.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import customedit
from customedit import mini
from customedit.mini import draw
from customedit.mini.figures import Row
from customedit.mini.measures import PARTS, Bench


def machine() -> dict[str, Any]:
    """What this runs on."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        name = lines[0].partition(":")[2].strip() if lines else name
    return {
        "cpu": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "customedit": customedit.__version__,
        **{p: version(p) for p in ("torch", "diffusers", "transformers", "numpy")},
    }


def table_of(rows: Sequence[Row]) -> Table:
    """The rows for a terminal."""
    table = Table("what", "value", "95 %", "bar", "n", title="The bundled base, measured")
    for row in rows:
        ends = " to ".join(row.show(x) for x in row.interval) if row.interval else ""
        bar = "" if row.bar is None else f"{'≤' if row.at_most else '≥'} {row.show(row.bar)}"
        style = {True: "green", False: "red", None: ""}[row.met]
        table.add_row(row.name, row.show(row.value), ends, bar, str(row.n), style=style)
    return table


def main(
    out: Annotated[Path, typer.Option(help="Where the figures and sheets go.")] = Path(
        "runs/evaluation"
    ),
    prompts: Annotated[
        int,
        typer.Option(min=4, help="Prompts; other counts follow."),
    ] = 256,
    steps: Annotated[int, typer.Option(min=1, max=1000, help="DDIM steps.")] = draw.STEPS,
    guidance: Annotated[float, typer.Option(min=0, help="Of all prompts.")] = draw.GUIDANCE,
    weights: Annotated[Path | None, typer.Option(help="Instead of the bundled base.")] = None,
    only: Annotated[str, typer.Option(help=f"Some of: {','.join(PARTS)}.")] = ",".join(PARTS),
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
) -> None:
    """Measure the bundled base; write evaluation.json and picture sheets."""
    chosen = [part.strip() for part in only.split(",")]
    if unknown := [part for part in chosen if part not in PARTS]:
        raise typer.BadParameter(f"no part {unknown[0]!r}; parts are {', '.join(PARTS)}")
    if threads:
        torch.set_num_threads(threads)
    try:
        folder = weights or mini.path()
    except FileNotFoundError as missing:
        raise typer.BadParameter(str(missing)) from None
    draw.hush()
    out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    seconds: dict[str, float] = {}
    console = Console()
    with Progress(console=console) as progress:
        bench = Bench(folder, prompts, steps, guidance, out, progress)
        for name in [p for p in PARTS if p in chosen]:
            start = time.perf_counter()
            rows += PARTS[name](bench)
            seconds[name] = round(time.perf_counter() - start, 1)
    settings = {"prompts": prompts, "steps": steps, "guidance": guidance, "parts": list(seconds)}
    report = {
        "rows": [row.as_dict() for row in rows],
        "settings": settings,
        "machine": machine(),
        "seconds": {**seconds, "all": round(sum(seconds.values()), 1)},
        "prompts": bench.details,
    }
    (out / "evaluation.json").write_text(json.dumps(report, indent=1) + "\n")
    console.print(table_of(rows))
    console.print(f"written: {out / 'evaluation.json'} and sheets")


if __name__ == "__main__":
    typer.run(main)
