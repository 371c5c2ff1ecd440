"""Trainings of several tenants: merged, against one after another: python benchmarks/trainings.py.

Each tenant teaches a look of its own. Measured are the steps alone, in one process: the engine's
own merging, and the same engine that may take no more rows than one training has. Processor time is
told beside the clock's: it is what other programs on the machine do not change.
"""

from __future__ import annotations

import time
from typing import Annotated, Any

import torch
import typer
from PIL import Image
from rich.console import Console

from customedit.concepts.concept import Concept
from customedit.concepts.prompts import ConceptPrompts
from customedit.concepts.settings import TrainingSettings
from customedit.concepts.training import train_concept
from customedit.diffusion.base import Base
from customedit.diffusion.engine import Engine, Ticket
from customedit.diffusion.method import Method, Progress
from customedit.mini import samples


def training(base: Base, number: int, steps: int, options: dict[str, Any]) -> Method[Concept]:
    """The training of tenant ``number``."""
    looks = samples.looks()
    look = looks[number % len(looks)]
    references = [Image.open(path).convert("RGB") for path in look.images[:1]]
    settings = TrainingSettings.of(base, steps=steps, seed=number, crops=4, **options)
    prompts = ConceptPrompts(look.token, look.noun, "patterned")
    return train_concept(base, references, prompts, settings)


def timed(
    base: Base, tenants: int, steps: int, options: dict[str, Any], rows: int
) -> tuple[float, float, list[Concept]]:
    """Seconds by the clock and of the processor for ``steps`` of each, and the concepts.

    They count from when all trainings have taken their first step. rows: most that one step takes.
    """
    engine = Engine(base, max_rows=rows)
    began: list[tuple[float, float]] = []

    def heard(progress: Progress) -> None:
        if progress.phase == "train" and progress.step == 1:
            began.append((time.perf_counter(), time.process_time()))

    tickets: list[Ticket[Concept]] = [
        engine.submit(training(base, n, steps + 1, options), on_progress=heard)
        for n in range(tenants)
    ]
    while not all(t.done for t in tickets):
        engine.tick()
    clock, processor = time.perf_counter() - began[-1][0], time.process_time() - began[-1][1]
    return clock, processor, [t.result() for t in tickets]


def furthest(found: list[Concept], others: list[Concept]) -> float:
    """The largest difference of any trained number."""
    return max(
        float((a.tensors[name] - b.tensors[name]).abs().max())
        for a, b in zip(found, others, strict=True)
        for name in a.tensors
    )


def main(
    tenants: Annotated[int, typer.Option(min=1, help="Trainings.")] = 8,
    steps: Annotated[int, typer.Option(min=1, help="Of each.")] = 20,
    way: Annotated[str, typer.Option(help="custom-diffusion, lora or textual-inversion.")] = (
        "custom-diffusion"
    ),
    recipe: Annotated[str | None, typer.Option(help="paper or contained.")] = None,
    base: Annotated[str, typer.Option(help="A base folder, or mini.")] = "mini",
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, float16 or bfloat16.")] = "float32",
    batch: Annotated[int, typer.Option(min=1, help="References of a step.")] = 2,
    repeats: Annotated[int, typer.Option(min=1, help="The best of each counts.")] = 2,
) -> None:
    """Time merged trainings against one after another, without class images."""
    model = Base.load(base, device=device, dtype=getattr(torch, dtype))
    options: dict[str, Any] = {"way": way, "recipe": recipe, "batch": batch}
    if recipe in (None, "paper"):
        options["class_images"] = 0
    alone = merged = alone_cpu = merged_cpu = float("inf")
    apart: list[Concept] = []
    together: list[Concept] = []
    for _ in range(repeats):
        clock, processor, apart = timed(model, tenants, steps, options, batch)
        alone, alone_cpu = min(alone, clock), min(alone_cpu, processor)
        clock, processor, together = timed(model, tenants, steps, options, 1024)
        merged, merged_cpu = min(merged, clock), min(merged_cpu, processor)
    count = tenants * steps
    console = Console()
    console.print(
        f"{tenants} trainings, {steps} steps each, {batch} rows a step ({way}, "
        f"{recipe or 'default'}) on {model.name}, {device}, {dtype}"
    )
    console.print(f"one after another: {count / alone:.2f} steps a second")
    console.print(
        f"merged: {count / merged:.2f} steps a second, {alone / merged:.2f} x "
        f"({alone_cpu / merged_cpu:.2f} x by processor time)"
    )
    console.print(f"largest difference of a trained number: {furthest(together, apart):.1e}")


if __name__ == "__main__":
    typer.run(main)
