"""Prompt-to-Prompt the plain, slow way: four rows, every map explicit, word lists and loops.

Written from the paper (arXiv 2208.01626) to compare the real one with; nothing of it is shared. It
drives the stock UNet; rows are [source none, target none, source worded, target worded].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass
class PlainEdit:
    """One edit's rules. taken: target column to source column, for tokens that take the source's
    map (word swap: to a list of (source column, share)); factors: per target column; cross, own:
    the first step without the source's maps; blend: source and target columns or None.
    """

    taken: dict[int, list[tuple[int, float]]]
    cross: int
    own: int
    factors: dict[int, float] = field(default_factory=dict)
    spans: dict[int, tuple[int, int]] = field(default_factory=dict)
    blend: list[list[int]] | None = None
    threshold: float = 0.3
    blend_from: int = 0
    step: int = 0
    seen: list[Tensor] = field(default_factory=list)
    total: Tensor | None = None

    def cross_maps(self, source: Tensor, own: Tensor) -> Tensor:
        out = own.clone()
        for column in range(own.shape[-1]):
            first, last = self.spans.get(column, (0, self.cross))
            if not first <= self.step < last:
                continue
            if column in self.taken:
                new = sum(
                    (share * source[..., c] for c, share in self.taken[column]), 0 * own[..., 0]
                )
            else:
                new = own[..., column]
            out[..., column] = new * self.factors.get(column, 1.0)
        return out


class Explicit:
    """Attention with all its maps, changed by the rules."""

    def __init__(self, edit: PlainEdit) -> None:
        self.edit = edit

    def __call__(
        self, attn: Any, hidden: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any
    ) -> Tensor:
        context = hidden if encoder_hidden_states is None else encoder_hidden_states
        rows, positions, _width = hidden.shape

        def split(x: Tensor) -> Tensor:
            return x.view(rows, x.shape[1], attn.heads, -1).permute(0, 2, 1, 3)

        q, k, v = split(attn.to_q(hidden)), split(attn.to_k(context)), split(attn.to_v(context))
        maps = ((q @ k.transpose(2, 3)) * attn.scale).softmax(-1).clone()
        if encoder_hidden_states is not None:
            maps[3] = self.edit.cross_maps(maps[2], maps[3])
            if positions == 256:
                self.edit.seen.append(maps[2:].mean(1))
        elif positions <= 1024 and self.edit.step < self.edit.own:
            maps[3] = maps[2]
        out = (maps @ v).permute(0, 2, 1, 3).reshape(rows, positions, -1)
        return attn.to_out[0](out)


@torch.no_grad()
def plain_edit(
    unet: Any,
    step: Callable[..., Tensor],
    times: Sequence[tuple[float, float]],
    noise_of: Callable[..., Tensor],
    start: Tensor,
    states: Tensor,
    edit: PlainEdit,
    guidance: float,
) -> Tensor:
    """Source and target latents [2, C, h, w]. states: of the four rows."""
    ours = dict(unet.attn_processors)
    unet.set_attn_processor(Explicit(edit))
    x = torch.cat([start, start])
    try:
        for k, (time, to) in enumerate(times):
            edit.step = k
            edit.seen.clear()
            rows = torch.cat([x, x])
            noise = noise_of(unet(rows, time, states).sample, rows, time)
            none, worded = noise.chunk(2)
            x = step(x, none + guidance * (worded - none), time, to)
            if edit.blend is not None:
                mean = torch.stack(edit.seen).mean(0)
                edit.total = mean if edit.total is None else edit.total + mean
                if k >= edit.blend_from:
                    x = _blended(x, edit)
    finally:
        unet.set_attn_processor(ours)
    return x


def _blended(x: Tensor, edit: PlainEdit) -> Tensor:
    assert edit.blend is not None and edit.total is not None
    mask = torch.zeros(x.shape[2:], dtype=torch.bool)
    for row, columns in zip(edit.total, edit.blend, strict=False):
        heat = torch.zeros(16, 16)
        for column in columns:
            heat = heat + row[:, column].view(16, 16)
        padded = F.pad(heat, (1, 1, 1, 1), value=-1.0)
        pooled = (
            torch.stack([padded[i : i + 16, j : j + 16] for i in range(3) for j in range(3)])
            .max(0)
            .values
        )
        mask |= pooled / pooled.max() > edit.threshold
    moved = x[0] + mask.float() * (x[1] - x[0])
    return torch.stack([x[0], moved])
