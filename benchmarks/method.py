"""How fast the method is, side by side in one run: ``python benchmarks/method.py --base mini``.

Ratios of things timed in turns on one machine: a Prompt-to-Prompt step against a plain diffusers
UNet call of as many rows; a step of the next edit of a picture with the source's features kept
against one without; many edits with as many concepts together against one after another; the steps
of a training. ``--base sd14-random`` has Stable Diffusion 1.4's shapes with
random weights: speed does not care. Seconds are of this machine, which the report names.
"""

from __future__ import annotations

import copy
import functools
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from diffusers.models.attention_processor import AttnProcessor2_0
from PIL import Image

from benchmarks.shapes import random_base
from customedit.concepts.prompts import ConceptPrompts
from customedit.concepts.settings import TrainingSettings
from customedit.concepts.training import train_concept
from customedit.diffusion.base import Base
from customedit.diffusion.engine import Engine, run
from customedit.diffusion.method import Denoise, Method, Progress, ask
from customedit.diffusion.text import TextContext, Weighted
from customedit.editing.edit import Opened, draw, edit, encode_and_invert
from customedit.editing.editor import Editor
from customedit.editing.kept_features import FeatureCache, SourceFeatures
from customedit.mini import samples
from customedit.mini.evaluate import machine

SOURCE, TARGET = "a photo of a cup on a table", "a photo of a <a> patterned cup on a table"
PARTS = "step,next,together,training,rows"


@dataclass(frozen=True)
class Change:
    """A concept of random changes."""

    tokens: dict[str, torch.Tensor]
    keys: dict[str, torch.Tensor]
    values: dict[str, torch.Tensor]


def random_concept(base: Base, seed: int) -> Change:
    """Named <a>; the size of the change does not matter to speed."""
    generator = torch.Generator().manual_seed(seed)

    def part(name: str) -> dict[str, torch.Tensor]:
        found = {}
        for layer in base.layers:
            weight = base.weights[f"{layer}.{name}.weight"]
            noise = torch.randn(weight.shape, generator=generator) * 1e-3
            found[layer] = weight + noise.to(weight)
        return found

    return Change({"<a>": torch.randn(base.width, generator=generator)}, part("to_k"), part("to_v"))


def clock(base: Base) -> float:
    """Seconds, once the device has done what it was given."""
    if base.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def processor_clock(base: Base) -> float:
    """Processor seconds of this process: what other work on the machine does not count in."""
    return time.process_time()


def in_turns(
    base: Base, parts: dict[str, Callable[[], object]], repeats: int, warm: bool = True
) -> dict[str, list[float]]:
    """Seconds of each part, measured in turns so that a slow spell of the machine meets all."""
    for part in parts.values() if warm else ():
        part()
    found: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(repeats):
        for name, part in parts.items():
            start = clock(base)
            part()
            found[name].append(clock(base) - start)
    return found


def edit_method(base: Base, concept: Change, steps: int) -> Callable[[], Method[Any]]:
    """Makes the method of an edit, inversion included, which is planned here."""
    session = Editor(base).open(Image.open(samples.sources()[3].image), SOURCE)
    (plan,) = session.plan(TARGET, concepts=[concept], steps=steps)
    return functools.partial(edit, base, plan, session.picture, concepts=[Weighted(concept)])


def step_times(
    base: Base, steps: int, repeats: int, now: Callable[[Base], float] = clock
) -> dict[str, Any]:
    """A Prompt-to-Prompt step (direct: three rows) against the stock UNet on three rows.

    A stock call follows each step, so that a slow spell of the machine meets both. steps: 2 or
    more, since the time between two is taken; now: reads the clock.
    """
    stock = copy.deepcopy(base.denoiser)
    stock.set_attn_processor(AttnProcessor2_0())
    method = edit_method(base, random_concept(base, 0), steps)
    cells = base.side // base.factor
    x = torch.randn((3, base.channels, cells, cells)).to(base.device, base.dtype)
    text = base.text(SOURCE)
    states = text.states.to(base.dtype).expand(3, -1, -1).contiguous()
    times = [time for time, _ in base.schedule.downwards(steps)]
    seconds: dict[str, list[float]] = {"plain": [], "p2p": []}
    began = 0.0

    @torch.no_grad()
    def on_progress(progress: Progress) -> None:
        nonlocal began
        if progress.phase != "edit":
            return
        ended = now(base)
        if progress.step > 1:
            seconds["p2p"].append(ended - began)
        stock(x, times[progress.step - 1], states)
        began = now(base)
        if progress.step > 1:
            seconds["plain"].append(began - ended)

    for repeat in range(repeats + 1):
        run(base, method(), on_progress)
        if repeat == 0:  # warm
            seconds = {"plain": [], "p2p": []}
    ratios = [a / b for a, b in zip(seconds["p2p"], seconds["plain"], strict=True)]
    return {
        "plain_unet_call_3_rows_s": statistics.median(seconds["plain"]),
        "p2p_step_s": statistics.median(seconds["p2p"]),
        "ratio": statistics.median(ratios),
        "quartiles": statistics.quantiles(ratios, n=4)[::2],
        "steps": len(ratios),
    }


def next_edit(
    base: Base, steps: int, repeats: int, now: Callable[[Base], float] = clock
) -> dict[str, Any]:
    """A step of the next edit of a picture, by another concept: features kept against not.

    And one that keeps them, as the first edit of a picture does. Steps of the three take turns.
    now: reads the clock.
    """
    picture = Image.open(samples.sources()[3].image).convert("RGB")
    session = Editor(base).open(picture, SOURCE)
    opened = Opened(base, picture)
    cache = FeatureCache(2**40)
    concepts = [random_concept(base, k) for k in range(2)]
    plans = [session.plan(TARGET, concepts=[c], steps=steps)[0] for c in concepts]
    inversion = run(base, encode_and_invert(base, plans[0], picture))

    def method(number: int, features: SourceFeatures | None) -> Method[Any]:
        return draw(
            base, plans[number], picture, concepts=[Weighted(concepts[number])],
            inversion=inversion, opened=opened, features=features,
        )  # fmt: skip

    key = plans[0].features_key
    run(base, method(0, cache.of(key)))
    seconds: dict[str, list[float]] = {"kept": [], "not_kept": [], "keeping": []}
    rows: dict[str, int] = {}
    for repeat in range(repeats + 1):
        engines = {name: Engine(base) for name in seconds}
        engines["kept"].submit(method(1, cache.of(key)))
        engines["not_kept"].submit(method(1, None))
        engines["keeping"].submit(method(1, FeatureCache(2**40).of(key)))
        while not all(engine.idle for engine in engines.values()):
            for name, engine in engines.items():
                before, began = engine.rows, now(base)
                engine.tick()
                if engine.rows > before and repeat:  # the first is warm
                    seconds[name].append(now(base) - began)
        rows = {name: engine.rows for name, engine in engines.items()}
    faster, slower = (
        [a / b for a, b in zip(seconds[above], seconds[below], strict=True)]
        for above, below in (("not_kept", "kept"), ("keeping", "not_kept"))
    )
    return {
        **{f"{name}_step_s": statistics.median(found) for name, found in seconds.items()},
        **{f"{name}_rows": count for name, count in rows.items()},
        "not_kept / kept": statistics.median(faster),
        "quartiles": statistics.quantiles(faster, n=4)[::2],
        "keeping / not_kept": statistics.median(slower),
        "steps": len(faster),
        "bytes": cache.bytes,
    }


def together(base: Base, count: int, steps: int, repeats: int, warm: bool) -> dict[str, Any]:
    """Edits with as many concepts, their calls merged, against one after another."""
    methods = [edit_method(base, random_concept(base, k), steps) for k in range(count)]

    def merged() -> None:
        engine = Engine(base)
        for method in methods:
            engine.submit(method())
        while not engine.idle:
            engine.tick()

    def apart() -> None:
        for method in methods:
            run(base, method())

    run(base, methods[0]())
    found = in_turns(base, {"together": merged, "one_by_one": apart}, repeats, warm)
    ratios = [a / b for a, b in zip(found["one_by_one"], found["together"], strict=True)]
    return {
        "edits": count,
        "steps": steps,
        "together_s": statistics.median(found["together"]),
        "one_by_one_s": statistics.median(found["one_by_one"]),
        "speedup": statistics.median(ratios),
        "speedups": [round(r, 3) for r in ratios],
    }


def rows_times(base: Base, counts: list[int], repeats: int) -> dict[str, float]:
    """Seconds a row takes in one merged forward, by how many rows that has."""
    text = base.text(SOURCE)
    cells = base.side // base.factor

    def one(rows: int, context: TextContext) -> Method[None]:
        yield from ask(
            Denoise(torch.zeros((rows, base.channels, cells, cells)), 501, [context] * rows)
        )

    parts: dict[str, Callable[[], object]] = {
        str(n): functools.partial(lambda n: run(base, one(n, text)), n) for n in counts
    }
    found = in_turns(base, parts, repeats)
    return {name: statistics.median(v) / int(name) for name, v in found.items()}


def training(base: Base, steps: int) -> dict[str, float]:
    """Training steps in a second, of two references and two class images; not the first."""
    look = samples.looks()[0]
    references = [Image.open(p).convert("RGB") for p in look.images]
    prompts = ConceptPrompts("<a>", look.noun, look.attribute)
    settings = TrainingSettings.of(base, steps=steps + 1, class_images=2, class_steps=1, crops=1)
    marks: list[float] = []

    def on_progress(progress: Progress) -> None:
        if progress.phase == "train":
            marks.append(clock(base))

    run(base, train_concept(base, references, prompts, settings), on_progress)
    return {"steps": steps, "steps_per_s": steps / (marks[-1] - marks[0])}


def whole(base: Base) -> dict[str, float]:
    """Seconds that the defaults take: a customization and an edit with direct inversion."""
    look = samples.looks()[0]
    references = [Image.open(p).convert("RGB") for p in look.images]
    prompts = ConceptPrompts("<a>", look.noun, look.attribute)
    start = clock(base)
    concept = run(base, train_concept(base, references, prompts, TrainingSettings.of(base)))
    learned = clock(base)
    picture = Image.open(samples.sources()[3].image).convert("RGB")
    Editor(base).open(picture, SOURCE).edit(TARGET, concepts=[concept])
    return {"customize_s": learned - start, "edit_s": clock(base) - learned}


def main(
    base: Annotated[str, typer.Option(help="mini, sd14-random, a folder or a hub name.")] = "mini",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16.")] = "float32",
    edits: Annotated[int, typer.Option(min=1, help="Edits together.")] = 8,
    steps: Annotated[int, typer.Option(min=1, help="Steps of every edit and training.")] = 10,
    rows: Annotated[str, typer.Option(help="Rows of one forward, by commas.")] = "1,2,4,8,16",
    repeats: Annotated[int, typer.Option(min=1, help="Of every timing.")] = 5,
    parts: Annotated[str, typer.Option(help="What to time, by commas.")] = PARTS,
    warm: Annotated[bool, typer.Option(help="Do many edits once before they are timed.")] = True,
    processor_time: Annotated[
        bool, typer.Option(help="Of `step` and `next` count processor time: for a shared machine.")
    ] = False,
    defaults: Annotated[bool, typer.Option(help="Also time default customize and edit.")] = True,
    out: Annotated[Path | None, typer.Option(help="Write the report here, too.")] = None,
) -> None:
    """Time the method and print a report as JSON."""
    kind = getattr(torch, dtype)
    if base == "sd14-random":
        model = random_base("sd14", device=device, dtype=kind)
    else:
        model = Base.load(base, device=device, dtype=kind)
    report: dict[str, Any] = {
        "base": base,
        "device": torch.cuda.get_device_name() if model.device.type == "cuda" else "cpu",
        "dtype": dtype,
        "machine": machine(),
    }
    now = processor_clock if processor_time else clock
    timed: dict[str, Callable[[], Any]] = {
        "step": lambda: step_times(model, steps, repeats, now),
        "next": lambda: next_edit(model, steps, repeats, now),
        "together": lambda: together(model, edits, steps, max(1, repeats // 2), warm),
        "training": lambda: training(model, steps),
        "rows": lambda: rows_times(model, [int(n) for n in rows.split(",")], repeats),
    }
    wanted = parts.split(",")
    if "step" in wanted and steps < 2:
        raise typer.BadParameter("the part `step` needs --steps 2 or more")
    if unknown := [name for name in wanted if name not in timed]:
        raise typer.BadParameter(f"{unknown[0]!r} is unknown; known are {', '.join(timed)}")
    report |= {name: timed[name]() for name in wanted}
    if defaults:
        report["defaults"] = whole(model)
    if model.device.type == "cuda":
        report["peak_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
    text = json.dumps(report, indent=1)
    print(text)
    if out is not None:
        out.write_text(text + "\n")


if __name__ == "__main__":
    typer.run(main)
