"""Ours against the published recipes on diffusers, paired: ``python benchmarks/peers.py``.

On the bundled base and this machine's processor, in one run: eight edits with eight concepts as
peers make them (one by one, weights loaded into the UNet; ``published.py``), ours one by one and
ours together; a sweep of nine strengths against nine of the peers' edits; a Prompt-to-Prompt step
against a plain call of as many rows; a training step against that of diffusers' script. Each ratio
is of things timed next to each other, the order turned at every repeat; given are the median and
the smallest and largest.
"""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from PIL import Image

from benchmarks.method import SOURCE, TARGET, clock, random_concept, step_times
from benchmarks.published import PublishedEditor, PublishedTraining
from customedit.concepts.prompts import ConceptPrompts
from customedit.concepts.settings import TrainingSettings
from customedit.concepts.training import train_concept
from customedit.diffusion.base import Base
from customedit.diffusion.engine import Progress, run
from customedit.diffusion.text import Weighted
from customedit.editing.editor import Editor, Order
from customedit.editing.sweep import STRENGTHS
from customedit.mini import samples
from customedit.mini.evaluate import machine

BARS = {
    "p2p step / plain call": "<= 1.05",
    "peers one by one / ours together": ">= 2.5",
    "peers' edits / our sweep": ">= 4",
    "peers' training step / ours": ">= 2",
}
PLAIN_TARGET = "a photo of a patterned cup on a table"
"""The target without the concept's token, which diffusers' tokenizer does not know."""


def paired(
    base: Base, parts: dict[str, Callable[[], object]], repeats: int, seed: int = 0
) -> dict[str, list[float]]:
    """Seconds of each part at each repeat; all are run once before, in changing orders."""
    for part in parts.values():
        part()
    chance = random.Random(seed)
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(repeats):
        for name in chance.sample(list(parts), len(parts)):
            start = clock(base)
            parts[name]()
            seconds[name].append(clock(base) - start)
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

    def published(self, count: int | None = None) -> None:
        """One by one, each concept's weights loaded before its edit."""
        for k in range(count or len(self.concepts)):
            concept = self.concepts[k % len(self.concepts)]
            weights = {f"{n}.to_k.weight": w for n, w in concept.keys.items()}
            weights |= {f"{n}.to_v.weight": w for n, w in concept.values.items()}
            self.peers.edit(
                self.picture, SOURCE, PLAIN_TARGET, self.word, weights, self.steps,
                self.base.guidance,
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
        session.sweep(TARGET, concepts=self.concepts[:1], strengths=STRENGTHS, steps=self.steps)


def _id(base: Base, word: str) -> int:
    return int(base.tokenizer(word, add_special_tokens=False).input_ids[0])


def training_parts(base: Base, steps: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """``steps`` training steps of the peers and of ours, of one reference and one class image."""
    look = samples.looks()[0]
    references = [Image.open(p).convert("RGB") for p in look.images]
    prompts = ConceptPrompts("<a>", look.noun, look.attribute)
    settings = TrainingSettings.of(
        base, steps=steps, class_images=2, class_steps=1, crops=1, batch=1
    )
    words = f"a photo of a {look.attribute} {look.noun}", f"a photo of a {look.noun}"
    peers = PublishedTraining(base, references, references, words)

    def theirs() -> None:
        for _ in range(steps):
            peers.step()

    def ours() -> list[float]:
        marks: list[float] = []

        def mark(progress: Progress) -> None:
            if progress.phase == "train":
                marks.append(clock(base))

        run(base, train_concept(base, references, prompts, settings), mark)
        return marks

    return theirs, ours


def training(base: Base, steps: int, repeats: int) -> dict[str, Any]:
    """Seconds of a step of each, and the ratio; ours without its preparations."""
    theirs, ours = training_parts(base, steps + 1)
    theirs()
    seconds: dict[str, list[float]] = {"peers": [], "ours": []}
    for _ in range(repeats):
        start = clock(base)
        theirs()
        seconds["peers"].append((clock(base) - start) / (steps + 1))
        marks: Any = ours()
        seconds["ours"].append((marks[-1] - marks[0]) / steps)
    return {
        "seconds": {k: round(statistics.median(v), 4) for k, v in seconds.items()},
        "peers' training step / ours": ratio(seconds["peers"], seconds["ours"]),
    }


def main(
    edits: Annotated[int, typer.Option(min=1)] = 8,
    steps: Annotated[int, typer.Option(min=2, help="Of every edit.")] = 50,
    training_steps: Annotated[int, typer.Option(min=1)] = 10,
    repeats: Annotated[int, typer.Option(min=1)] = 3,
    out: Annotated[Path | None, typer.Option(help="Write the report here, too.")] = None,
) -> None:
    """Time all and print a report as JSON and as a table."""
    base = Base.load()
    work = Edits(base, edits, steps)
    seconds = paired(
        base,
        {
            "peers one by one": work.published,
            "ours one by one": work.alone,
            "ours together": work.together,
            "peers' nine edits": lambda: work.published(len(STRENGTHS)),
            "our sweep": work.sweep,
        },
        repeats,
    )
    peers = seconds["peers one by one"]
    step = step_times(base, max(2, min(steps, 10)), max(3, repeats))
    trained = training(base, training_steps, repeats)
    ratios = {
        "p2p step / plain call": {"median": round(step["ratio"], 3)},
        "peers one by one / ours one by one": ratio(peers, seconds["ours one by one"]),
        "peers one by one / ours together": ratio(peers, seconds["ours together"]),
        "peers' edits / our sweep": ratio(seconds["peers' nine edits"], seconds["our sweep"]),
        "peers' training step / ours": trained["peers' training step / ours"],
    }
    report = {
        "base": "mini",
        "edits": edits,
        "steps": steps,
        "repeats": repeats,
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
        ends = [found.get(end, found["median"]) for end in ("min", "max")]
        print(f"| {name} | {found['median']} | {ends[0]} | {ends[1]} | {BARS.get(name, '')} |")
    if out is not None:
        out.write_text(text + "\n")


if __name__ == "__main__":
    typer.run(main)
