"""One training loop for the three stages: steps, moving average, checkpoints, log, progress.

Every step draws its batch and its noise from generators seeded by (seed, stage, step), so a run
that is stopped anywhere and resumed goes through the same numbers as one that never stopped.
"""

from __future__ import annotations

import inspect
import json
import math
import os
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import ConfigMixin
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor, nn

from customedit.mini import muon

Loss = tuple[Tensor, dict[str, float]]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    The rate rises linearly over ``warmup`` steps, stays, and falls to zero over the last ``decay``
    steps of ``steps``.
    """

    steps: int
    rate: float
    warmup: int = 100
    decay: int = 0
    weight_decay: float = 0.01
    ema: float = 0.999
    clip: float = 1.0
    adam_share: float = 0.05
    adam_only: tuple[str, ...] = ()

    def rate_at(self, step: int) -> float:
        """The rate of step ``step``, counted from 0."""
        rise = min(1.0, (step + 1) / max(self.warmup, 1))
        left = self.steps - step
        fall = min(1.0, left / self.decay) if self.decay else 1.0
        return self.rate * rise * fall


@dataclass(frozen=True)
class Run:
    """One run of a stage: where its files are, how long it goes, and what decides its chances.

    folder: holds ``scenes/``, ``tokenizer/`` and the checkpoints; batch: rows in a step; seed:
    decides batches and noise; shards: use only the first so many; stop_after: end this run at that
    step with a checkpoint, the schedule unchanged; device: where the tensors go ("cpu", "cuda");
    deadline: the time, by ``time.monotonic``, to stop at with a checkpoint and TimeUp.
    """

    folder: Path
    schedule: Schedule
    batch: int
    seed: int = 0
    shards: int | None = None
    stop_after: int | None = None
    device: str = "cpu"
    deadline: float | None = None
    checkpoint_every: float = 240.0

    def half(self) -> torch.autocast:
        """Forward passes in bfloat16 where that is safe and fast."""
        return half_precision(self.device)


def has_fast_bfloat16(device: str | torch.device) -> bool:
    """Whether products of bfloat16 are faster on ``device`` than those of float32.

    Processors without instructions for them emulate them: a step of the UNet took ten times as
    long on one with AVX2 alone.
    """
    if torch.device(device).type != "cpu":
        return True
    able = torch.cpu.get_capabilities()
    return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def half_precision(device: str | torch.device) -> torch.autocast:
    """Autocast to bfloat16 where that is fast, else a context that changes nothing."""
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=has_fast_bfloat16(device))


class TimeUp(Exception):
    """The run's time is over and its work so far is kept; the same command goes on from there."""


def check_time(deadline: float | None, place: str) -> None:
    """Raise TimeUp, saying where the run is, if ``deadline`` (of ``time.monotonic``) has come."""
    if deadline is not None and time.monotonic() >= deadline:
        raise TimeUp(place)


@dataclass(frozen=True)
class Step:
    """What a stage's loss function gets: the step's number and its two sources of chance."""

    number: int
    numpy: np.random.Generator
    torch: torch.Generator


def step_chance(stage: str, seed: int, number: int) -> Step:
    """The generators of one step: equal arguments give equal draws, whatever went before."""
    key = [seed, zlib.crc32(stage.encode()), number]
    generator = torch.Generator().manual_seed(
        int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)
    )
    return Step(number, np.random.default_rng(key), generator)


class Average:
    """Exponential moving average of a module's parameters, warmed up so that early steps count."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.shadow = {k: v.detach().clone().float() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Draw the average towards the weights that ``model`` has after step ``step``."""
        keep = min(self.decay, (1 + step) / (10 + step))
        state = model.state_dict()
        floating = [k for k, v in state.items() if v.is_floating_point()]
        torch._foreach_lerp_(
            [self.shadow[k] for k in floating], [state[k].float() for k in floating], 1 - keep
        )

    def copy_to(self, model: nn.Module) -> None:
        """Give ``model`` the averaged weights."""
        model.load_state_dict(self.shadow)


def config_of(model: nn.Module) -> dict[str, Any] | None:
    """What a model's ``from_config`` builds it from, as plain data; None if it has none."""
    if not isinstance(model, ConfigMixin):
        config = getattr(model, "config", None)
        return dict(config) if isinstance(config, dict) else None
    taken = inspect.signature(type(model).__init__).parameters
    return {k: v for k, v in json.loads(model.to_json_string()).items() if k in taken}


def save_atomically(value: object, path: Path) -> None:
    """torch.save to a neighbour, then rename: a reader never sees half a file."""
    part = path.with_suffix(".part")
    torch.save(value, part)
    os.replace(part, path)


def train(
    stage: str,
    model: nn.Module,
    loss: Callable[[Step], Loss],
    run: Run,
    on_checkpoint: Callable[[int, Average], None] | None = None,
) -> Average:
    """Train ``model`` as ``run`` says and return the moving average of its weights.

    ``run.folder`` keeps ``{stage}.pt`` (weights, average, optimiser, step, and the model's
    configuration if it has one) and ``{stage}.jsonl`` (the loss log). A checkpoint that is there is
    resumed.

    Raises FloatingPointError on a loss that is not finite, leaving the last good checkpoint in
    place, and TimeUp when ``run.deadline`` has come before the last step.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    path, schedule = run.folder / f"{stage}.pt", run.schedule
    model.to(run.device)
    parameters = [p for p in model.parameters() if p.requires_grad]
    matrices, others = muon.split(model, schedule.adam_only)
    optimizer = muon.Muon(
        matrices,
        others,
        schedule.rate,
        schedule.adam_share,
        weight_decay=schedule.weight_decay,
        products=torch.bfloat16 if has_fast_bfloat16(run.device) else torch.float32,
    )
    average = Average(model, schedule.ema)
    start = 0
    if path.exists():
        saved = torch.load(path, weights_only=True, map_location=run.device)
        model.load_state_dict(saved["model"])
        if saved["optimizer"] is not None:  # None: restored from shipped weights
            optimizer.load_state_dict(saved["optimizer"])
        average.shadow = saved["average"]
        start = saved["step"]

    def checkpoint(step: int) -> None:
        save_atomically(
            {
                "model": model.state_dict(),
                "average": average.shadow,
                "optimizer": optimizer.state_dict(),
                "step": step,
                "config": config_of(model),
            },
            path,
        )
        if on_checkpoint is not None:
            on_checkpoint(step, average)

    end = min(schedule.steps, run.stop_after or schedule.steps)
    last_save = last_log = time.monotonic()
    recent: dict[str, list[float]] = {}
    model.train()
    with (
        (run.folder / f"{stage}.jsonl").open("a") as log,
        Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        ) as progress,
    ):
        bar = progress.add_task(stage, total=schedule.steps, completed=start, loss="")
        for number in range(start, end):
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate_at(number)
            value, parts = loss(step_chance(stage, run.seed, number))
            if not math.isfinite(number_of := value.item()):
                raise FloatingPointError(
                    f"{stage}: the loss is {number_of} at step {number}; lower the rate "
                    f"(--rate) and run again: training resumes from the last checkpoint"
                )
            value.backward()
            nn.utils.clip_grad_norm_(parameters, schedule.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            average.update(model, number)
            for name, part in {"loss": number_of, **parts}.items():
                recent.setdefault(name, []).append(part)
            now = time.monotonic()
            if now - last_log > 10 or number + 1 == end:
                line = {k: round(float(np.mean(v)), 6) for k, v in recent.items()}
                entry = {"step": number + 1, "t": round(time.time(), 1), **line}
                print(json.dumps(entry), file=log)
                log.flush()
                progress.update(bar, loss=f"loss {line['loss']:.4f}")
                recent, last_log = {}, now
            progress.update(bar, completed=number + 1)
            if now - last_save > run.checkpoint_every:
                checkpoint(number + 1)
                last_save = time.monotonic()
            if run.deadline is not None and now >= run.deadline and number + 1 < end:
                checkpoint(number + 1)
                raise TimeUp(f"{stage}: at step {number + 1} of {schedule.steps}")
    checkpoint(max(start, end))
    return average
