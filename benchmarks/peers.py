"""Ours against the published recipes on diffusers, paired: ``python benchmarks/peers.py``.

On the bundled base and this machine's processor, in one run: eight edits with eight concepts as
peers make them (one by one, weights loaded into the UNet; ``published.py``), ours one by one and
ours together; a sweep of nine strengths against nine of the peers' edits; a Prompt-to-Prompt step
against a plain call of as many rows; a training step against that of diffusers' script. Each ratio
is of things timed next to each other, the order turned at every repeat; given are the median and
the smallest and largest (of steps the quartiles).

The authors' code for direct inversion spends a pass of four rows a step to measure offsets that can
be had without; "without offsets" are the same edits without that pass.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from PIL import Image

from benchmarks.method import (
    SOURCE,
    TARGET,
    Change,
    clock,
    edit_method,
    processor_clock,
    random_concept,
    step_times,
)
from benchmarks.published import PublishedEditor, PublishedTraining
from customedit.concepts.prompts import ConceptPrompts
from customedit.concepts.settings import TrainingSettings
from customedit.concepts.training import train_concept
from customedit.diffusion.base import Base
from customedit.diffusion.engine import Engine, run
from customedit.diffusion.method import Progress
from customedit.diffusion.shared_rows import together
from customedit.diffusion.text import Weighted
from customedit.editing.edit import Opened, draw
from customedit.editing.editor import Editor, Order
from customedit.editing.inversion import invert
from customedit.mini import samples
from customedit.mini.evaluate import machine

BARS = {
    "p2p step / plain call": "<= 1.05",
    "peers one by one / ours together": ">= 2.5",
    "peers' edits / our sweep": ">= 4",
    "peers' training step / ours": ">= 2",
}
NINE = tuple(k / 10 for k in range(1, 10))
"""The strengths of a sweep."""
WARM = 2
"""Training steps before those that are timed."""
PLAIN_TARGET = "a photo of a patterned cup on a table"
"""The target without the concept's token, which diffusers' tokenizer does not know."""


Clock = Callable[[Base], float]


def paired(
    base: Base, parts: dict[str, Callable[[], object]], repeats: int, now: Clock
) -> dict[str, list[float]]:
    """Seconds of each part at each repeat, in changing orders."""
    chance = random.Random(0)
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(repeats):
        for name in chance.sample(list(parts), len(parts)):
            start = now(base)
            parts[name]()
            seconds[name].append(now(base) - start)
            print(f"{name}: {seconds[name][-1]:.3f} s", file=sys.stderr, flush=True)
    return seconds


def ratio(above: list[float], below: list[float]) -> dict[str, float]:
    """Median, smallest and largest of the paired ratios."""
    found = [a / b for a, b in zip(above, below, strict=True)]
    return {
        "median": round(statistics.median(found), 3),
        "min": round(min(found), 3),
        "max": round(max(found), 3),
    }


class Edits:
    """The same edits, by whom and how."""

    def __init__(self, base: Base, count: int, steps: int) -> None:
        self.base, self.steps = base, steps
        self.concepts = [random_concept(base, k) for k in range(count)]
        self.picture = Image.open(samples.sources()[3].image).convert("RGB")
        self.peers = PublishedEditor(base)
        tokens = base.tokens(SOURCE)
        self.word = next(n for n, i in enumerate(tokens.ids) if i == _id(base, "cup"))

    def published(self, count: int | None = None, *, offsets: bool = True) -> None:
        """One by one, each concept's weights loaded before its edit."""
        for k in range(count or len(self.concepts)):
            concept = self.concepts[k % len(self.concepts)]
            self.peers.edit(*self.arguments(concept), offsets)

    def arguments(self, concept: Change) -> tuple[Any, ...]:
        """Of ``PublishedEditor.steps``."""
        weights = {f"{n}.to_k.weight": w for n, w in concept.keys.items()}
        weights |= {f"{n}.to_v.weight": w for n, w in concept.values.items()}
        return (
            self.picture, SOURCE, PLAIN_TARGET, self.word, weights, self.steps, self.base.guidance,
        )  # fmt: skip

    def alone(self) -> None:
        """Ours, one by one; each inverts its picture as another user's would be."""
        for concept in self.concepts:
            session = Editor(self.base).open(self.picture, SOURCE)
            session.edit(TARGET, concepts=[concept], steps=self.steps)

    def together(self) -> None:
        """Ours, in shared calls; each in a session of its own."""
        editor = Editor(self.base)
        orders = []
        for concept in self.concepts:
            session = editor.open(self.picture, SOURCE)
            (plan,) = session.plan(TARGET, concepts=[concept], steps=self.steps)
            orders.append(Order(session, plan, [Weighted(concept)]))
        editor.edit_all(orders)

    def sweep(self) -> None:
        """Ours, nine strengths of one picture."""
        session = Editor(self.base).open(self.picture, SOURCE)
        session.sweep(TARGET, concepts=self.concepts[:1], strengths=NINE, steps=self.steps)


def calls(work: Edits, now: Clock) -> dict[str, Any]:
    """Seconds of a step of each, taken in turns call by call, and the ratios that follow.

    Ours are eight edits together, and nine strengths, each step with all that is done at it. Text
    encoders and autoencoder are left out, a few hundredths of an edit of 50 steps.
    """
    base, steps = work.base, work.steps
    many, sweep = Engine(base), Engine(base)
    for concept in work.concepts:
        many.submit(edit_method(base, concept, steps)())
    session = Editor(base).open(work.picture, SOURCE)
    plans = session.plan(TARGET, concepts=work.concepts[:1], strengths=NINE, steps=steps)
    inverted = run(base, invert(base, base.encode(work.picture), SOURCE, steps=steps))
    own = [Weighted(work.concepts[0])]
    opened = Opened(base, work.picture)  # one text of the source: its row is the same in all
    drawings = [
        draw(base, p, work.picture, concepts=own, inversion=inverted, opened=opened) for p in plans
    ]
    sweep.submit(together(base, drawings))
    seconds: dict[str, list[float]] = {}

    def tick(engine: Engine, name: str) -> None:
        before, began = engine.rows, now(base)
        engine.tick()
        if rows := engine.rows - before:
            seconds.setdefault(f"{name}, {rows} rows", []).append(now(base) - began)

    peers = work.peers.steps(*work.arguments(work.concepts[0]))
    began = now(base)
    for name in peers:
        seconds.setdefault(f"peers, {name}", []).append(now(base) - began)
        tick(many, "ours")
        tick(sweep, "sweep")
        began = now(base)
    while not (many.idle and sweep.idle):
        tick(many, "ours")
        tick(sweep, "sweep")
    of = {name: statistics.median(found) for name, found in seconds.items()}

    def spent(*names: str) -> float:
        return sum(of[name] * len(seconds[name]) for name in names)

    swept = {name for name in seconds if name.startswith("sweep")}
    ours = spent(*(name for name in seconds if name.startswith("ours")))
    less = spent("peers, invert", "peers, draw")
    whole, sweep_s = less + spent("peers, offsets"), spent("peers, invert", *swept)
    count, nine = len(work.concepts), len(NINE)
    return {
        "seconds of a call": {name: round(value, 4) for name, value in of.items()},
        "peers one by one / ours together": round(count * whole / ours, 3),
        "peers without offsets / ours together": round(count * less / ours, 3),
        "peers' edits / our sweep": round(nine * whole / sweep_s, 3),
        "peers' edits without offsets / our sweep": round(nine * less / sweep_s, 3),
    }


def _id(base: Base, word: str) -> int:
    return int(base.tokenizer(word, add_special_tokens=False).input_ids[0])


def training(base: Base, steps: int, now: Clock) -> dict[str, Any]:
    """Seconds of a step of each, taken in turns, and the ratio; ours without its preparations.

    A step is of one reference and one class image.
    """
    look = samples.looks()[0]
    references = [Image.open(p).convert("RGB") for p in look.images]
    prompts = ConceptPrompts("<a>", look.noun, look.attribute)
    settings = TrainingSettings.of(
        base, steps=steps + WARM, class_images=2, class_steps=1, crops=1, batch=1
    )
    words = f"a photo of a {look.attribute} {look.noun}", f"a photo of a {look.noun}"
    peers = PublishedTraining(base, references, references, words)
    seconds: dict[str, list[float]] = {"peers": [], "ours": []}
    began = 0.0

    def on_progress(progress: Progress) -> None:
        nonlocal began
        if progress.phase != "train":
            return
        ended = now(base)
        if progress.step > WARM:
            seconds["ours"].append(ended - began)
        peers.step()
        began = now(base)
        if progress.step > WARM:
            seconds["peers"].append(began - ended)

    run(base, train_concept(base, references, prompts, settings), on_progress)
    return {
        "seconds": {k: round(statistics.median(v), 4) for k, v in seconds.items()},
        "peers' training step / ours": ratio(seconds["peers"], seconds["ours"]),
    }


def main(
    edits: Annotated[int, typer.Option(min=1)] = 8,
    steps: Annotated[int, typer.Option(min=2, help="Of every edit.")] = 50,
    training_steps: Annotated[int, typer.Option(min=2)] = 10,
    repeats: Annotated[int, typer.Option(min=1)] = 3,
    processor_time: Annotated[
        bool, typer.Option(help="Count processor time, on a machine that is shared.")
    ] = False,
    by_call: Annotated[
        bool, typer.Option(help="Edits call by call in turns: for a machine that is never quiet.")
    ] = False,
    warm: Annotated[bool, typer.Option(help="Do all edits once before they are timed.")] = True,
    out: Annotated[Path | None, typer.Option(help="Write the report here, too.")] = None,
) -> None:
    """Time all and print a report as JSON and as a table."""
    base = Base.load()
    now = processor_clock if processor_time else clock
    work = Edits(base, edits, steps)
    if by_call:
        print(json.dumps({"calls": calls(work, now), "machine": machine()}, indent=1), flush=True)
    step = step_times(base, max(2, min(steps, 10)), max(3, repeats), now)
    trained = training(base, training_steps, now)
    if by_call:
        print(json.dumps({"step": step, "training": trained}, indent=1))
        return
    parts: dict[str, Callable[[], object]] = {
        "peers one by one": work.published,
        "peers one by one, less": lambda: work.published(offsets=False),
        "ours one by one": work.alone,
        "ours together": work.together,
        "peers' nine edits": lambda: work.published(len(NINE)),
        "our sweep": work.sweep,
    }
    for part in parts.values() if warm else ():
        part()
    seconds = paired(base, parts, repeats, now)
    peers, less = seconds["peers one by one"], seconds["peers one by one, less"]
    each = len(NINE) / edits
    ratios = {
        "p2p step / plain call": {
            "median": round(step["ratio"], 3),
            **dict(zip(("min", "max"), (round(q, 3) for q in step["quartiles"]), strict=True)),
        },
        "peers one by one / ours one by one": ratio(peers, seconds["ours one by one"]),
        "peers one by one / ours together": ratio(peers, seconds["ours together"]),
        "peers without offsets / ours together": ratio(less, seconds["ours together"]),
        "peers' edits / our sweep": ratio(seconds["peers' nine edits"], seconds["our sweep"]),
        "peers' edits without offsets / our sweep": ratio(
            [each * s for s in less], seconds["our sweep"]
        ),
        "peers' training step / ours": trained["peers' training step / ours"],
    }
    report = {
        "base": "mini",
        "edits": edits,
        "steps": steps,
        "repeats": repeats,
        "clock": "processor" if processor_time else "wall",
        "threads": torch.get_num_threads(),
        "machine": machine(),
        "seconds": {k: [round(s, 3) for s in v] for k, v in seconds.items()},
        "training": trained["seconds"],
        "ratios": ratios,
    }
    text = json.dumps(report, indent=1)
    print(text)
    print("| what | median | smallest | largest | bar |\n|---|---|---|---|---|")
    for name, found in ratios.items():
        ends = [found[end] for end in ("min", "max")]
        print(f"| {name} | {found['median']} | {ends[0]} | {ends[1]} | {BARS.get(name, '')} |")
    if out is not None:
        out.write_text(text + "\n")


if __name__ == "__main__":
    typer.run(main)
