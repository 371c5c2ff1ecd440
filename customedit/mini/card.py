"""Put the figures of an evaluation into the model card: ``python -m customedit.mini.card``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from customedit.mini.figures import shown

OPEN, CLOSE = "<!-- figures: written by python -m customedit.mini.card -->", "<!-- end figures -->"


def table(report: dict[str, Any]) -> str:
    """The report's rows as a Markdown table, and a line on machine and settings."""
    lines = ["| what | value | 95 % interval | bar | met | n |", "|---|---|---|---|---|---|"]
    for row in report["rows"]:
        ends = " to ".join(shown(x, row["unit"]) for x in row["interval"] or ())
        bar = "" if row["bar"] is None else f"{row['bar_is']} {shown(row['bar'], row['unit'])}"
        met = {True: "yes", False: "**no**", None: ""}[row["met"]]
        value = shown(row["value"], row["unit"])
        lines.append(f"| {row['name']} | {value} | {ends} | {bar} | {met} | {row['n']} |")
    machine, settings = report["machine"], report["settings"]
    lines += [
        "",
        f"{settings['prompts']} prompts, {settings['steps']} DDIM steps, guidance "
        f"{settings['guidance']:g}; {machine['cpu']}, {machine['threads']} threads, torch "
        f"{machine['torch']}, diffusers {machine['diffusers']}; {report['seconds']['all']:.0f} s "
        "in all.",
    ]
    return "\n".join(lines)


def filled(page: str, report: dict[str, Any]) -> str:
    """``page`` with what stands between OPEN and CLOSE replaced by the report's table.

    Raises ValueError if the page has no such place.
    """
    if page.count(OPEN) != 1 or page.count(CLOSE) != 1:
        raise ValueError(f"the page must hold {OPEN!r} and {CLOSE!r} once each")
    before, _, rest = page.partition(OPEN)
    return f"{before}{OPEN}\n\n{table(report)}\n\n{CLOSE}{rest.partition(CLOSE)[2]}"


def main(
    evaluation: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="evaluation.json.")
    ] = Path("docs/mini/evaluation.json"),
    page: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="The page to fill.")
    ] = Path("docs/mini.md"),
) -> None:
    """Write the figures of an evaluation into the model card."""
    page.write_text(filled(page.read_text(), json.loads(evaluation.read_text())))


if __name__ == "__main__":
    typer.run(main)
