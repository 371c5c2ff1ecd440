"""The one attention processor of the base: per-row keys and values, per-row control.

Cross-attention never projects text here: keys and values of every row come from its own prompt and
concept (``text.py``), or for each position of its own (``concept_regions.py``). What a row takes of
another's self-attention are queries, keys or values, so the fused kernel keeps working: with
queries and keys it has the other's map. Maps are made only where they are handed back, and of rows
that read by regions (``controlled_rows``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from customedit.diffusion.attention_control import AttentionControl
from customedit.diffusion.controlled_rows import MaterializedRows, RowsControl
from customedit.diffusion.devices import to_device
from customedit.diffusion.placed_rows import split_heads


@dataclass
class Forward:
    """What the processors need to know of the forward that runs, and what they record.

    keys, values: per cross-attention layer, [rows, tokens, inner]; layers in the base's order.
    recorded: positions of a layer whose maps are recorded. maps: [recording rows, positions,
    tokens], mean over heads, summed over ``layers`` layers.
    """

    keys: Sequence[Tensor]
    values: Sequence[Tensor]
    recorded: int = 0
    control: RowsControl = field(default_factory=RowsControl)
    maps: Tensor | None = None
    layers: int = 0

    def record(self, maps: Tensor) -> None:
        """Add one layer's maps of the recording rows."""
        self.maps = maps if self.maps is None else self.maps + maps
        self.layers += 1


@dataclass
class AttentionState:
    """Where the processors find the forward that runs; one per UNet."""

    forward: Forward | None = field(default=None)


class Processor:
    """Attention of one layer.

    layer: its place among cross-attention layers, None for self-attention; depth: that of a
    self-attention layer among its kind, in the order in which they run.
    """

    def __init__(self, state: AttentionState, layer: int | None, depth: int = 0) -> None:
        self.state, self.layer, self.depth = state, layer, depth

    def __call__(
        self,
        attn: Any,  # diffusers' Attention, which is not typed
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        **_: object,
    ) -> Tensor:
        """[rows, positions, width] in, the same out."""
        forward = self.state.forward
        if forward is None:
            raise RuntimeError("the base's UNet is driven through Base.predict only")
        query = split_heads(attn.to_q(hidden_states), attn.heads)
        if self.layer is None:
            out = self._self(attn, query, hidden_states, forward)
        else:
            out = self._cross(attn, query, forward, self.layer)
        out = out.transpose(1, 2).flatten(2).to(hidden_states.dtype)
        return attn.to_out[1](attn.to_out[0](out)) / attn.rescale_output_factor

    def _self(self, attn: Any, query: Tensor, states: Tensor, forward: Forward) -> Tensor:
        key, value = (
            split_heads(attn.to_k(states), attn.heads),
            split_heads(attn.to_v(states), attn.heads),
        )
        sources = forward.control.self_sources
        if sources is None:
            return F.scaled_dot_product_attention(query, key, value, scale=attn.scale)
        positions = states.shape[1]
        active = sources.active(self.depth, positions)
        taken = sources.taken(active)
        query = query if taken.query is None else query[taken.query]
        key = key if taken.key is None else key[taken.key]
        value = value if taken.value is None else value[taken.value]
        out = F.scaled_dot_product_attention(query, key, value, scale=attn.scale)
        if (pairs := sources.pairs(active, positions)) is None:
            return out
        rows, mask = pairs
        within = F.scaled_dot_product_attention(
            query[rows], key[rows], value[rows], attn_mask=mask, scale=attn.scale
        )
        return out.index_copy(0, rows, within)

    def _cross(self, attn: Any, query: Tensor, forward: Forward, layer: int) -> Tensor:
        control, scale = forward.control, attn.scale
        mixed, recorded = control.mixed, control.recorded
        values = forward.values if mixed is None else mixed.values
        key = split_heads(forward.keys[layer].to(query.dtype), attn.heads)
        value = split_heads(values[layer].to(query.dtype), attn.heads)
        if (materialized := control.materialized) is not None:
            made = _materialized_attention(query, key, value, scale, forward, materialized, layer)
            if materialized.whole:
                return made
        out = F.scaled_dot_product_attention(query, key, value, scale=scale)
        for placed in control.placed:
            placed.attend(out, query, layer, scale)
        if materialized is not None:
            return out.index_copy(0, materialized.rows, made)
        if recorded is not None and query.shape[2] == forward.recorded:
            forward.record(recorded.maps(query, key, scale))
        if mixed is None:
            return out
        taken = F.scaled_dot_product_attention(
            query[mixed.source],
            key[mixed.source],
            split_heads(mixed.taken[layer].to(query.dtype), attn.heads),
            scale=scale,
        )
        return out.index_add(0, mixed.rows, taken)


@contextmanager
def taken_features(
    blocks: Sequence[Any], control: AttentionControl | None, device: torch.device
) -> Iterator[None]:
    """Inside, rows use the output of other rows where ``control.feature_source`` says so.

    blocks: modules whose output is [rows, ...], by the numbers of ``control.feature_block``.
    """
    with ExitStack() as hooks:
        if control is not None:
            own = torch.arange(control.rows)
            moved = control.feature_source != own
            for block in control.feature_block[moved].unique().tolist():
                chosen = moved & (control.feature_block == block)
                rows = to_device(torch.where(chosen, control.feature_source, own), device)
                hook = blocks[block].register_forward_hook(_taking(rows))
                hooks.callback(hook.remove)
        yield


def _taking(rows: Tensor) -> Callable[..., Tensor]:
    """A forward hook that gives the output's ``rows``."""

    def hook(module: object, args: object, output: Tensor) -> Tensor:
        return output[rows]

    return hook


def _materialized_attention(
    query: Tensor, key: Tensor, value: Tensor, scale: float, forward: Forward,
    of: MaterializedRows, layer: int,
) -> Tensor:  # fmt: skip
    """Cross-attention of some rows through maps that are made, mixed and recorded.

    Scores and maps are float32: in half precision the scores of Stable Diffusion 2 overflow.
    """
    query = query[of.rows]
    scores = (query.float() * scale) @ key[of.rows].float().transpose(-1, -2)
    for placed in of.placed:
        placed.score(scores, query, layer, scale)
    maps = torch.softmax(scores, -1)  # [chosen, heads, positions, tokens]
    maps = (
        maps[of.source] @ of.mapper[:, None] * of.from_source[:, None, None]
        + maps * of.from_own[:, None, None]
    )
    for placed in of.placed:
        placed.keep(maps)
    if query.shape[2] == forward.recorded and of.recorded is not None:
        forward.record(maps[of.recorded].mean(1))
    out = maps.to(value.dtype) @ value[of.rows]
    for placed in of.placed:
        placed.read(out, maps, layer)
    return out
