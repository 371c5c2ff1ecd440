"""How fast the method is on any card, in ten minutes: ``python benchmarks/gpu.py``.

Shapes of Stable Diffusion 1.4 and XL with random weights (``shapes.py``), no network. For each:
plain calls of diffusers' UNet; peers' edits, one by one with weights loaded before each
(``published.py``); ours alone, with 8 and with 32 concepts mixed; a step of a training, ours alone
and of 8 merged, and peers' (diffusers' script, which is for bases with one text encoder); a first
edit and the next one on the kept inversion; what of the card's peak is used, memory, and where the
time goes. Ratios are of things timed in one run. ``--out DIR`` gets ``gpu.json``,
``gpu.md`` and ``gpu.png``.

    python benchmarks/gpu.py                                 # the first GPU, bfloat16
    python benchmarks/gpu.py --device cpu --dtype float32 --tiny   # the same code in seconds

Parts that no time is left for are named under ``left_out``.
"""

from __future__ import annotations

import gc
import json
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import torch
import typer
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.method import SOURCE, TARGET, clock, random_concept
from benchmarks.published import PublishedEditor, PublishedTraining, plain_unet
from benchmarks.shapes import NAMES, random_base
from customedit.concepts.concept import Concept
from customedit.concepts.prompts import ConceptPrompts
from customedit.concepts.settings import TrainingSettings
from customedit.concepts.training import train_concept
from customedit.diffusion.base import Base
from customedit.diffusion.engine import Engine
from customedit.diffusion.method import Method, Progress
from customedit.diffusion.text import Weighted
from customedit.editing.edit import edit
from customedit.editing.editor import Editor
from customedit.mini import samples

PLAIN_TARGET: Final = "a photo of a patterned cup on a table"
MIXED: Final = (8, 32)


class Clock:
    """The time that is left for all parts."""

    def __init__(self, minutes: float) -> None:
        self.end = time.monotonic() + 60 * minutes

    @property
    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()


class Measured:
    """The parts of one base, and what they found.

    steps: of each edit; mixed: how many edits at once; repeats: of every timing.
    """

    def __init__(self, base: Base, steps: int, mixed: tuple[int, ...], repeats: int) -> None:
        self.base, self.steps, self.mixed, self.repeats = base, steps, mixed, repeats
        self.picture = Image.open(samples.sources()[3].image).convert("RGB")
        self.picture = self.picture.resize((base.side, base.side), Image.Resampling.LANCZOS)
        # Whole key and value weights: of SDXL's 70 layers they are 0.7 GB in bfloat16.
        self.concepts = [random_concept(base, k) for k in range(2 if len(base.layers) > 32 else 8)]

    def seconds(self, part: Callable[[], object]) -> float:
        """The median of a part's time; it runs once before."""
        part()
        times = []
        for _ in range(self.repeats):
            start = clock(self.base)
            part()
            times.append(clock(self.base) - start)
        return statistics.median(times)

    # parts

    def plain(self) -> dict[str, float]:
        """Milliseconds of a row in diffusers' own UNet calls, and its operations."""
        base, unet = self.base, plain_unet(self.base)
        cells = base.side // base.factor
        context = base.text(SOURCE)
        counted: dict[str, float] = {}
        for rows in (1, 2) if self.repeats == 1 else (1, 2, 8, 24):
            x = torch.randn((rows, base.channels, cells, cells), device=base.device).to(base.dtype)
            states = context.states.to(base.dtype).expand(rows, -1, -1)
            added: Any = base.family.conditions([context] * rows, cells, cells, base.device)  # type: ignore[attr-defined]  # a UNet's
            call: Any = torch.no_grad()(lambda a=x, s=states, c=added: unet(a, 501, s, **c))
            if rows == 1:
                with FlopCounterMode(display=False) as counter:
                    call()
                counted["gflop_of_a_row"] = counter.get_total_flops() / 1e9
            counted[f"row_ms_of_{rows}"] = 1000 * self.seconds(call) / rows
        return counted

    def peers(self) -> dict[str, float]:
        """Seconds of an edit as peers do it, weights loaded before it."""
        peers = PublishedEditor(self.base)
        concept = self.concepts[0]
        weights = {f"{n}.to_k.weight": w for n, w in concept.keys.items()}
        weights |= {f"{n}.to_v.weight": w for n, w in concept.values.items()}

        def one() -> None:
            peers.edit(self.picture, SOURCE, PLAIN_TARGET, 5, weights, self.steps, 7.5)

        return {"edit_s": self.seconds(one)}

    def alone(self) -> dict[str, float]:
        """Seconds of our first edit of a picture, and of the next on the kept inversion."""

        def first() -> None:
            session = Editor(self.base).open(self.picture, SOURCE)
            session.edit(TARGET, concepts=[self.concepts[0]], steps=self.steps, guidance=7.5)

        kept = Editor(self.base).open(self.picture, SOURCE)

        def following() -> None:
            kept.edit(TARGET, concepts=[self.concepts[1]], steps=self.steps, guidance=7.5)

        return {"first_s": self.seconds(first), "next_s": self.seconds(following)}

    def together(self) -> dict[str, float]:
        """Seconds of an edit where so many run at once, each with a concept and an inversion."""
        found = {}
        for count in self.mixed:
            session = Editor(self.base).open(self.picture, SOURCE)
            orders = []
            for k in range(count):
                concept = self.concepts[k % len(self.concepts)]
                (plan,) = session.plan(TARGET, concepts=[concept], steps=self.steps, guidance=7.5)
                orders.append((plan, [Weighted(concept)]))
            calls: list[float] = []

            def all_of_them(orders: Any = orders, calls: Any = calls) -> None:
                engine = Engine(self.base, max_rows=96)
                for plan, concepts in orders:
                    engine.submit(edit(self.base, plan, self.picture, concepts=concepts))
                while not engine.idle:
                    engine.tick()
                calls.append(engine.rows / max(1, engine.calls))

            start = clock(self.base)
            all_of_them()
            found[f"edit_s_of_{count}"] = (clock(self.base) - start) / count
            found[f"rows_a_call_of_{count}"] = calls[-1]
        return found

    def training(self) -> dict[str, float]:
        """Seconds of a training step of one reference and one class image, alone and merged."""
        merged = self.mixed[0]
        found = {"step_s": self._step_s(1), f"step_s_of_{merged}": self._step_s(merged)}
        if len(self.base.family.encoders) == 1:
            found["peers_step_s"] = self._peers_step_s()
        return found

    def _step_s(self, count: int) -> float:
        """Seconds of a step of one of ``count`` trainings in one engine, the first steps aside."""
        engine, steps = Engine(self.base, max_rows=96), self.steps + 1
        done = [0] * count

        def heard(number: int, progress: Progress) -> None:
            if progress.phase == "train":
                done[number] = progress.step

        tickets = [
            engine.submit(self._learning(number, steps), on_progress=partial(heard, number))
            for number in range(count)
        ]
        while not all(done) and not engine.idle:
            engine.tick()
        before, start = sum(done), clock(self.base)
        while not engine.idle:
            engine.tick()
        seconds = clock(self.base) - start
        for ticket in tickets:
            ticket.result()  # raises what went wrong
        return seconds / (sum(done) - before)

    def _learning(self, number: int, steps: int) -> Method[Concept]:
        """A training of a look of its own."""
        look = samples.looks()[number % len(samples.looks())]
        references = [Image.open(p).convert("RGB") for p in look.images[:1]]
        settings = TrainingSettings.of(
            self.base, steps=steps, class_images=1, class_steps=1, crops=1, batch=1, seed=number
        )
        prompts = ConceptPrompts("<a>", look.noun, look.attribute)
        return train_concept(self.base, references, prompts, settings)

    def _peers_step_s(self) -> float:
        """Seconds of a step of diffusers' script; in half precision with autocast, as it has it."""
        base, kind = self.base, self.base.device.type
        peers = PublishedTraining(
            base, [self.picture], [self.picture], ("a photo of a look cup", "a photo of a cup")
        )
        with torch.autocast(kind, base.dtype, enabled=base.dtype != torch.float32):
            peers.step()
            start = clock(base)
            for _ in range(self.steps):
                peers.step()
        return (clock(base) - start) / self.steps

    def profile(self) -> dict[str, float]:
        """Shares of the time of an edit by kind of operation, from torch's profiler."""
        session = Editor(self.base).open(self.picture, SOURCE)
        on_card = self.base.device.type == "cuda"
        activities = [torch.profiler.ProfilerActivity.CPU]
        activities += [torch.profiler.ProfilerActivity.CUDA] if on_card else []
        with torch.profiler.profile(activities=activities) as profiler:
            session.edit(TARGET, concepts=[self.concepts[0]], steps=2, guidance=7.5)
        name = "self_device_time_total" if on_card else "self_cpu_time_total"
        spent = {e.key: float(getattr(e, name)) for e in profiler.key_averages()}
        kinds = {
            "convolutions": ("conv", "cudnn", "implicit"),
            "attention": ("attention", "flash", "softmax", "fmha"),
            "products": ("gemm", "addmm", "mm", "bmm", "linear", "cutlass", "matmul"),
            "norms": ("norm",),
            "copies": ("copy", "to", "cat", "memcpy"),
        }
        shares: dict[str, float] = dict.fromkeys((*kinds, "the rest"), 0.0)
        for key, value in spent.items():
            kind = next(
                (k for k, words in kinds.items() if any(w in key.lower() for w in words)),
                "the rest",
            )
            shares[kind] += value
        total = sum(shares.values()) or 1.0
        return {kind: round(value / total, 3) for kind, value in shares.items()}


def peak_tflops(device: torch.device, dtype: torch.dtype, tiny: bool) -> float:
    """What a large matrix product reaches on the device, in TFLOP/s."""
    side = 256 if tiny else 8192 if device.type == "cuda" else 2048
    a = torch.randn(side, side, device=device).to(dtype)
    best = float("inf")
    for _ in range(5):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best / 1e12


def measure(
    name: str, clock_: Clock, device: str, dtype: torch.dtype, tiny: bool, steps: int
) -> dict[str, Any]:
    """All parts of one base that time is left for."""
    mixed = (2, 4) if tiny else MIXED
    base = random_base(name, device=device, dtype=dtype, tiny=tiny)
    if base.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    measured = Measured(base, steps, mixed, 1 if tiny else 3)
    parts: dict[str, Callable[[], dict[str, float]]] = {
        "plain": measured.plain,
        "peers": measured.peers,
        "alone": measured.alone,
        "together": measured.together,
        "training": measured.training,
        "profile": measured.profile,
    }
    found: dict[str, Any] = {}
    left_out, longest = [], 0.0
    for part, call in parts.items():
        if clock_.left < longest:  # a part takes about as long as the longest before it
            left_out.append(part)
            continue
        start = time.monotonic()
        found[part] = {k: round(v, 5) for k, v in call().items()}
        longest = max(longest, time.monotonic() - start)
    found["left_out"] = left_out
    if base.device.type == "cuda":
        found["peak_memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    return found | ratios(found, mixed)


def ratios(found: dict[str, Any], mixed: tuple[int, ...]) -> dict[str, Any]:
    """What is compared."""
    made: dict[str, float] = {}
    if {"peers", "alone"} <= set(found):
        made["peers / ours alone"] = found["peers"]["edit_s"] / found["alone"]["first_s"]
        made["first edit / next edit"] = found["alone"]["first_s"] / found["alone"]["next_s"]
    if {"peers", "together"} <= set(found):
        for count in mixed:
            each = found["together"][f"edit_s_of_{count}"]
            made[f"peers / ours, {count} mixed"] = found["peers"]["edit_s"] / each
    if "training" in found:
        trained, count = found["training"], mixed[0]
        made[f"training alone / {count} merged"] = trained["step_s"] / trained[f"step_s_of_{count}"]
        if "peers_step_s" in trained:
            made["peers' training step / ours"] = trained["peers_step_s"] / trained["step_s"]
    return {"ratios": {k: round(v, 2) for k, v in made.items()}}


def share_of_peak(found: dict[str, Any], peak: float, mixed: tuple[int, ...], steps: int) -> float:
    """Of ``peak`` TFLOP/s, by the rows of the largest mix of edits."""
    count = mixed[-1]
    if not {"plain", "together"} <= set(found):
        return 0.0
    rows = 4 * steps  # three of the edit with direct inversion, one of the inversion
    flops = found["plain"]["gflop_of_a_row"] * 1e9 * rows
    return float(flops / found["together"][f"edit_s_of_{count}"] / 1e12 / peak)


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = [
        f"{report['device']}, {report['dtype']}, torch {report['torch']}, {report['steps']} steps; "
        f"a large product reaches {report['peak_tflops']} TFLOP/s",
        "",
        "| what | " + " | ".join(report["bases"]) + " |",
        "|---|" + "---|" * len(report["bases"]),
    ]
    bases = list(report["bases"].values())
    names = dict.fromkeys(
        (part, name)
        for found in bases
        for part, values in found.items()
        if isinstance(values, dict)
        for name in values
    )
    for part, name in names:
        values = [found.get(part, {}).get(name, "") for found in bases]
        lines.append(f"| {part}: {name} | " + " | ".join(str(v) for v in values) + " |")
    if any("peak_memory_gib" in found for found in bases):
        memory = " | ".join(str(found.get("peak_memory_gib", "")) for found in bases)
        lines.append(f"| peak memory, GiB | {memory} |")
    left_out = " | ".join(", ".join(found["left_out"]) or "none" for found in bases)
    lines.append(f"| parts left out for lack of time | {left_out} |")
    return "\n".join(lines)


def plot(report: dict[str, Any], path: Path) -> None:
    """Seconds of an edit by how it is made."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(report["bases"]), squeeze=False, layout="constrained")
    for axis, (name, found) in zip(axes[0], report["bases"].items(), strict=True):
        bars = {"peers": found.get("peers", {}).get("edit_s", 0.0)}
        bars |= {k.removesuffix("_s"): v for k, v in found.get("alone", {}).items()}
        bars |= {
            f"{k.rsplit('_', 1)[1]} mixed": v
            for k, v in found.get("together", {}).items()
            if k.startswith("edit_s")
        }
        axis.bar(list(bars), list(bars.values()))
        axis.set_title(name)
        axis.set_ylabel("seconds an edit")
        axis.tick_params(axis="x", rotation=60)
    figure.savefig(path)
    pyplot.close(figure)


def main(
    device: Annotated[str, typer.Option(help="cuda, cuda:1 or cpu.")] = "cuda",
    dtype: Annotated[str, typer.Option(help="bfloat16, float16 or float32.")] = "bfloat16",
    bases: Annotated[str, typer.Option(help="By commas.")] = ",".join(NAMES),
    steps: Annotated[int, typer.Option(min=2, help="Of every edit.")] = 50,
    minutes: Annotated[float, typer.Option(min=0.1, help="For everything.")] = 10.0,
    tiny: Annotated[bool, typer.Option(help="Small shapes and two steps: does it run?")] = False,
    out: Annotated[Path | None, typer.Option(help="A folder for JSON, table and plot.")] = None,
) -> None:
    """Measure and report."""
    names = bases.split(",")
    if unknown := [name for name in names if name not in NAMES]:
        raise typer.BadParameter(f"{unknown[0]!r} is unknown; known are {', '.join(NAMES)}")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise typer.BadParameter("there is no GPU; add --device cpu --dtype float32 --tiny")
    steps, kind = 2 if tiny else steps, getattr(torch, dtype)
    clock_, place = Clock(minutes), torch.device(device)
    peak = peak_tflops(place, kind, tiny)
    on_card = place.type == "cuda"
    report: dict[str, Any] = {
        "device": torch.cuda.get_device_name(place) if on_card else platform.processor() or "cpu",
        "dtype": dtype,
        "torch": torch.__version__,
        "tiny": tiny,
        "steps": steps,
        "peak_tflops": round(peak, 3),
        "bases": {},
    }
    for name in names:
        found = measure(name, clock_, device, kind, tiny, steps)
        share = share_of_peak(found, peak, (2, 4) if tiny else MIXED, steps)
        found["ratios"]["share of peak, largest mix"] = round(share, 3)
        report["bases"][name] = found
        gc.collect()
        if on_card:
            torch.cuda.empty_cache()
    print(json.dumps(report, indent=1))
    print(table(report))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "gpu.json").write_text(json.dumps(report, indent=1) + "\n")
        (out / "gpu.md").write_text(table(report) + "\n")
        plot(report, out / "gpu.png")


if __name__ == "__main__":
    typer.run(main)
