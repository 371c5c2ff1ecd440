"""Checkpoints of a training: leaves, their averages, AdamW's moments and the step, in one file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from customedit.concepts.trainable import Averages
from customedit.errors import InputError
from customedit.files import replacing

_MOMENTS = ("exp_avg", "exp_avg_sq")


def save(
    path: Path,
    leaves: Mapping[str, Tensor],
    optimizer: torch.optim.AdamW,
    step: int,
    about: Mapping[str, Any],
    averages: Averages | None = None,
) -> None:
    """Write it whole or not at all. about: what the training was asked for, to be matched."""
    tensors: dict[str, Tensor] = {}
    for name, leaf in leaves.items():
        tensors[f"leaf.{name}"] = leaf.detach().cpu().contiguous()
        for moment in _MOMENTS:
            tensors[f"{moment}.{name}"] = optimizer.state[leaf][moment].cpu().contiguous()
        if averages is not None:
            tensors[f"average.{name}"] = averages.values[name].cpu().contiguous()
    note = json.dumps({"step": step, "about": about}, sort_keys=True)
    with replacing(path) as draft:
        save_file(tensors, draft, {"training": note})


def load(
    path: Path,
    leaves: Mapping[str, Tensor],
    optimizer: torch.optim.AdamW,
    about: Mapping[str, Any],
    averages: Averages | None = None,
) -> int:
    """Fill ``leaves``, ``optimizer`` and ``averages`` and return the step that is done.

    Raises InputError for a file that is not a checkpoint, or is one of another training.
    """
    try:
        with safe_open(path, framework="pt") as file:
            note = json.loads((file.metadata() or {})["training"])
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118  # no mapping
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise InputError(
            "resume", f"{path} is not a training checkpoint ({error})", "delete it to start anew"
        ) from None
    wanted = json.loads(json.dumps(dict(about)))
    if note["about"] != wanted:
        changed = [k for k in wanted if note["about"].get(k) != wanted[k]]
        raise InputError(
            "resume",
            f"{path} is of another training (other {', '.join(changed)})",
            "give the same arguments, or another file",
        )
    with torch.no_grad():
        for name, leaf in leaves.items():
            leaf.copy_(tensors[f"leaf.{name}"])
            if averages is not None:
                averages.values[name].copy_(tensors[f"average.{name}"])
            moments = {m: tensors[f"{m}.{name}"].to(leaf.device) for m in _MOMENTS}
            optimizer.state[leaf] = {"step": torch.tensor(float(note["step"])), **moments}
    return int(note["step"])
