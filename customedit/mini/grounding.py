"""Words tied to places: the cross-attention of a word should fall where the thing it names is.

The scenes know their masks, so the UNet is trained with a small extra loss on its 16 x 16
cross-attention maps, after TokenCompose (Wang et al., arXiv 2312.03626): the map of a word,
normalised over positions, is drawn to the word's own region. That makes the maps good for what
Prompt-to-Prompt does with them (local blend, refinement), in a model far too small to come to it by
itself.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

_REGIONS = ("thing", "table", "wall")
_SKIP = frozenset(
    (
        "a", "an", "the", "of", "on", "by", "with", "in", "and", "against", "front",
        "photo", "picture", "image", "close", "up", "far", "away", "zoomed", "very", "small",
    )
)  # fmt: skip


def regions(caption: str) -> list[tuple[int, str]]:
    """(token position, region) of each word of ``caption`` that names or describes a region.

    Positions count the start token; every known word is one token, and so is a comma. Regions:
    thing, table, wall.
    """
    found: list[tuple[int, str]] = []
    words = re.findall(r"[a-z]+|[^\sa-z]", caption)
    place = "thing"
    for k, word in enumerate(words):
        ahead = words[k + 1 : k + 4]
        if word == "on" and "table" in ahead:
            place = "table"
        elif word in ("by", "against", "front") and "wall" in words[k + 1 : k + 5]:
            place = "wall"
        if word.isalpha() and word not in _SKIP:
            found.append((k + 1, place))
    return found


def region_masks(mask: Tensor, horizon: Tensor, whole: Tensor) -> Tensor:
    """Shares of each cell taken by thing, table and wall, [n, 3, h, w].

    mask: the thing's coverage, [n, h, w]; horizon: where the table ends, [n], in [0, 1] from the
    top; whole: bool [n], false for framed pictures, of which only the thing's place is known (table
    and wall take no cell).
    """
    h = mask.shape[1]
    rows = torch.arange(h, dtype=torch.float32)[None, :] + 1
    table = (rows - horizon[:, None] * h).clamp(0, 1)[:, :, None].expand_as(mask)
    rest = (1 - mask) * whole[:, None, None]
    return torch.stack([mask, rest * table, rest * (1 - table)], 1)


class Attention:
    """A plain attention processor that keeps cross-attention maps of ``positions`` queries.

    Explicit softmax: on a CPU the backward pass of the fused kernel takes longer than this whole
    product. ``maps`` collects [rows, positions, tokens] (mean over heads) per layer.
    """

    def __init__(self, maps: list[Tensor] | None, positions: int = 256) -> None:
        self.maps = maps
        self.positions = positions

    def __call__(
        self,
        attn: Any,  # diffusers' Attention, which is not typed
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **_: object,
    ) -> Tensor:
        """Attend as diffusers' AttnProcessor does, without mask: [rows, positions, width]."""
        cross = encoder_hidden_states is not None
        context = encoder_hidden_states if encoder_hidden_states is not None else hidden_states
        rows, positions, _width = hidden_states.shape

        def heads(x: Tensor) -> Tensor:
            return x.view(rows, x.shape[1], attn.heads, -1).transpose(1, 2)

        query = heads(attn.to_q(hidden_states))
        key, value = heads(attn.to_k(context)), heads(attn.to_v(context))
        weights = torch.softmax((query * attn.scale) @ key.transpose(-1, -2), -1)
        weights = weights.to(value.dtype)
        if cross and self.maps is not None and positions == self.positions:
            self.maps.append(weights.float().mean(1))
        out = (weights @ value).transpose(1, 2).reshape(rows, positions, -1)
        return attn.to_out[0](out)


def watch(unet: UNet2DConditionModel) -> list[Tensor]:
    """Give ``unet`` the plain processor; the list returned fills at each forward (clear it)."""
    maps: list[Tensor] = []
    unet.set_attn_processor(Attention(maps))
    return maps


def loss(maps: list[Tensor], captions: list[str], masks: Tensor, weight: Tensor) -> Tensor:
    """Cross entropy from each word's region (uniform over its share of cells) to the word's map.

    maps: per layer [rows, cells, tokens]; masks: [rows, 3, h, w]; weight: [rows]. Words whose
    region is empty are passed over. Zero is reached when each map is its region.
    """
    mean = torch.stack(maps).mean(0)
    row, token, region = [], [], []
    for r, caption in enumerate(captions):
        for position, name in regions(caption):
            if position < mean.shape[2]:
                row.append(r)
                token.append(position)
                region.append(_REGIONS.index(name))
    if not row:
        return mean.sum() * 0
    target = masks.flatten(2)[row, region]  # [words, cells]
    share = target.sum(1, keepdim=True)
    target = target / share.clamp(min=1e-6)
    got = mean[row, :, token]
    got = got / got.sum(1, keepdim=True)
    divergence = (target * ((target + 1e-6).log() - (got + 1e-6).log())).sum(1)
    return (divergence * weight[row] * (share[:, 0] > 0.5)).mean()
