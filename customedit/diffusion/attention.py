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
from customedit.diffusion.controlled_rows import SELF_POSITIONS, RowsControl
from customedit.diffusion.devices import to_device
from customedit.diffusion.kept_features import KeptRows
from customedit.diffusion.placed_rows import split_heads


@dataclass
class Forward:
    """What the processors need to know of the forward that runs, and what they record.

    keys, values: per cross-attention layer, [rows, tokens, inner], with those of ``kept`` rows
    after the forward's own; layers in the base's order. recorded: positions of a layer whose maps
    are recorded. maps: [recording rows, positions, tokens], mean over heads, summed over ``layers``
    layers.
    """

    keys: Sequence[Tensor]
    values: Sequence[Tensor]
    recorded: int = 0
    control: RowsControl = field(default_factory=RowsControl)
    kept: KeptRows = field(default_factory=KeptRows)
    maps: Tensor | None = None
    layers: int = 0

    def record(self, parts: Sequence[Tensor]) -> None:
        """Add one layer's maps of the recording rows, which stand by ``control.record_order``."""
        maps = torch.cat(list(parts)) if len(parts) > 1 else parts[0]
        if self.control.record_order is not None:
            maps = maps[self.control.record_order]
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
        positions = states.shape[1]
        queries, keys = query, key
        if positions <= SELF_POSITIONS:
            queries, keys = forward.kept.attention(self.depth, query, key)
        sources = forward.control.self_sources
        if sources is None:
            return F.scaled_dot_product_attention(query, key, value, scale=attn.scale)
        active = sources.active(self.depth, positions)
        taken = sources.taken(active)
        query = query if taken.query is None else queries[taken.query]
        key = key if taken.key is None else keys[taken.key]
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
        control, scale, rows = forward.control, attn.scale, len(query)
        mixed, recorded = control.mixed, control.recorded
        values = forward.values if mixed is None else mixed.values
        key = split_heads(forward.keys[layer].to(query.dtype), attn.heads)
        value = split_heads(values[layer].to(query.dtype), attn.heads)
        out = F.scaled_dot_product_attention(query, key[:rows], value[:rows], scale=scale)
        for placed in control.placed:
            placed.attend(out, query, layer, scale)
        query = forward.kept.queries(layer, query)
        kept: list[Tensor] = []
        records = query.shape[2] == forward.recorded
        if recorded is not None and records:
            kept.append(recorded.maps(query, key, scale))
        regional = control.materialized
        if regional is not None and (records or regional.mixed is not None):
            maps = regional.maps(query, key, layer, scale)
            out = regional.read(out, maps, value, layer)
            if records and regional.recorded is not None:
                kept.append(maps[regional.recorded].mean(1))
        if kept:
            forward.record(kept)
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
