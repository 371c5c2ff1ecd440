"""Inversions: there and back, null-text's gain, files that are damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from customedit.diffusion.base import Base
from customedit.diffusion.engine import run
from customedit.editing import inversion as inversions
from customedit.editing.inversion import Inversion, invert, null_text, reconstruct
from customedit.errors import InputError
from customedit.mini import samples

STEPS = 6


def test_null_text_comes_back_nearer_than_ddim(
    base: Base, picture: Image.Image, source: samples.Source
) -> None:
    latents = base.encode(picture)
    errors = {}
    for kind in ("ddim", "null-text", "negative-prompt", "direct"):
        made = run(base, invert(base, latents, source.prompt, kind=kind, steps=STEPS, guidance=5.0))
        back = run(base, reconstruct(base, made, guidance=5.0))
        errors[kind] = float((back - latents).square().mean())
    assert errors["null-text"] < 0.5 * errors["ddim"]
    assert errors["direct"] == 0


def test_null_text_follows_the_plain_algorithm(
    base: Base, picture: Image.Image, source: samples.Source
) -> None:
    """Algorithm 1 of arXiv 2211.09794, written out on the stock UNet."""
    latents, steps, guidance, inner = base.encode(picture), 3, 5.0, 2
    text = base.text(source.prompt)
    path = run(base, inversions.trajectory(base, latents, text, steps))
    got = run(base, null_text(base, path, text, steps, guidance, inner))

    schedule, x, wanted = base.schedule, path[-1:], []
    empty = base.text("").states[None].clone()
    for i, (time, to) in enumerate(schedule.downwards(steps)):
        empty = empty.detach().clone().requires_grad_(True)
        optimizer = torch.optim.Adam([empty], lr=1e-2 * (1 - i / (2 * steps)))

        def guided(null: torch.Tensor, x: torch.Tensor = x, time: float = time) -> torch.Tensor:
            with torch.no_grad():
                worded = base.predict(x, time, [text]).noise
            none = base.predict(x, time, [base.context(null[0])]).noise
            return none + guidance * (worded - none)

        for _ in range(inner):
            back = schedule.step(x, guided(empty), time, to)
            loss = torch.nn.functional.mse_loss(back, path[steps - i - 1 : steps - i])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if loss.item() < 1e-5 + 2e-5 * i:
                break
        with torch.no_grad():
            x = schedule.step(x, guided(empty), time, to)
        wanted.append(empty.detach()[0])
    assert (got - torch.stack(wanted)).abs().max() <= 1e-4


def test_what_is_no_inversion_is_refused(base: Base, tmp_path: Path) -> None:
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"\x08\x00")
    with pytest.raises(InputError, match=r"inversion: .*delete it"):
        Inversion.load(bad)
    with pytest.raises(InputError, match="inversion: is 'magic'"):
        run(base, invert(base, torch.zeros(1, base.channels, 16, 16), "a cup", kind="magic"))  # type: ignore[arg-type]  # what is tested
    with pytest.raises(InputError, match="steps: 0"):
        run(base, invert(base, torch.zeros(1, base.channels, 16, 16), "a cup", steps=0))
