"""Checkpoints of earlier attempts: kept where they are of the same training, else dropped."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import save_file

from worker.customize_job import Keeper

ABOUT: dict[str, Any] = {"settings": {"rate": 0.1, "ema": 0.0}, "base": "abc", "prompts": []}


def test_a_checkpoint_is_kept_where_it_is_of_this_training(tmp_path: Path) -> None:
    """One of another base, of a version with other settings, or unreadable, is not."""
    attempt: Any = SimpleNamespace(folder=tmp_path)
    keeper = Keeper(attempt, [])
    keeper.drop_unless_of(ABOUT)  # there is none

    def write(about: dict[str, Any]) -> None:
        note = json.dumps({"step": 3, "about": about})
        save_file({"leaf.a": torch.zeros(1)}, keeper.checkpoint, {"training": note})

    write(ABOUT)
    keeper.drop_unless_of(ABOUT)
    assert keeper.checkpoint.exists()
    for other in (ABOUT | {"base": "def"}, ABOUT | {"settings": {"rate": 0.1}}):
        write(other)
        keeper.drop_unless_of(ABOUT)
        assert not keeper.checkpoint.exists()
    keeper.checkpoint.write_bytes(b"no checkpoint")
    keeper.drop_unless_of(ABOUT)
    assert not keeper.checkpoint.exists()
