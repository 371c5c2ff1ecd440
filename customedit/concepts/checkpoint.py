"""Checkpoints of a training: leaves, their averages, AdamW's moments and the step, in one file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from customedit.digests import picture_digest, values_digest
from customedit.errors import InputError
from customedit.files import replacing
from customedit.images.masks import picture_values

if TYPE_CHECKING:
    from customedit.concepts.dataset import Subject
    from customedit.concepts.settings import TrainingSettings
    from customedit.concepts.trainable import Averages
    from customedit.diffusion.base import Base

_MOMENTS = ("exp_avg", "exp_avg_sq")

_SINCE: Final = ("references", "masks")
"""What checkpoints of the first versions do not tell, so that it is not held against them."""


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


def about_training(
    base: Base, settings: TrainingSettings, subjects: Sequence[Subject]
) -> dict[str, Any]:
    """What a training was asked for, as a checkpoint keeps it; references and masks by digests."""
    about = {
        "settings": dataclasses.asdict(settings),
        "prompts": [_words(s) for s in subjects],
        "base": base.fingerprint,
        "references": [[picture_digest(image) for image in s.references] for s in subjects],
        "masks": [[values_digest(picture_values(m, "masks")) for m in s.masks] for s in subjects],
    }
    plain: dict[str, Any] = json.loads(json.dumps(about))
    return plain


def _words(subject: Subject) -> dict[str, Any]:
    """The words of a subject as plain data."""
    words: dict[str, Any] = dataclasses.asdict(subject.prompts)
    if subject.nouns:
        words["nouns"] = list(subject.nouns)
    return words


def check(path: Path, about: Mapping[str, Any]) -> int:
    """The step that the checkpoint in ``path`` has done; reads no tensor.

    Raises InputError for a file that is not a checkpoint, or is one of another training.
    """
    with _checkpoint(path) as file:
        note = json.loads((file.metadata() or {})["training"])
        recorded, step = note["about"], int(note["step"])
    known = {k: v for k, v in about.items() if k in recorded or k not in _SINCE}
    if recorded != known:
        changed = [k for k in {**known, **recorded} if recorded.get(k) != known.get(k)]
        raise InputError(
            "resume",
            f"{path} is of another training (other {', '.join(changed)})",
            "give the same arguments, or another file",
        )
    return step


def load(
    path: Path,
    leaves: Mapping[str, Tensor],
    optimizer: torch.optim.AdamW,
    about: Mapping[str, Any],
    averages: Averages | None = None,
) -> int:
    """Fill leaves, optimizer and averages and return the step that is done. Raises as ``check``."""
    step = check(path, about)
    with _checkpoint(path) as file:
        tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118  # no mapping
    with torch.no_grad():
        for name, leaf in leaves.items():
            leaf.copy_(tensors[f"leaf.{name}"])
            if averages is not None:
                averages.values[name].copy_(tensors[f"average.{name}"])
            moments = {m: tensors[f"{m}.{name}"].to(leaf.device) for m in _MOMENTS}
            fused = optimizer.defaults["fused"]  # which counts steps beside the numbers
            count = torch.tensor(float(step), device=leaf.device if fused else None)
            optimizer.state[leaf] = {"step": count, **moments}
    return step


@contextmanager
def _checkpoint(path: Path) -> Iterator[Any]:
    """The file, open. Raises InputError where it cannot be read as a checkpoint."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise InputError(
            "resume", f"{path} is not a training checkpoint ({error})", "delete it to start anew"
        ) from None
