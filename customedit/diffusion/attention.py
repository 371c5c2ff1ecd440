"""The one attention processor of the base: per-row keys and values, per-row control.

Cross-attention never projects text here: keys and values of every row come from its own prompt and
concept (``text.py``). Self-attention replacement is attention with another row's queries and keys
and the row's own values, so the fused kernel keeps working. Only rows whose cross maps are read or
mixed have their maps materialized.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from customedit.diffusion.devices import to_device

SELF_POSITIONS = 32 * 32
"""Self-attention maps of at most so many positions are replaced (Prompt-to-Prompt's limit)."""


@dataclass(frozen=True)
class AttentionControl:
    """What attention does to the rows of one request; every field has one entry per row.

    On the CPU whatever the base's device: what follows from it is worked out there (``Forward``),
    so that nothing has to be asked of a GPU in between.

    self_source: the row whose self-attention map is used, its own index for no change.
    cross_source: the row whose cross maps are mixed in. mapper [rows, tokens, tokens]: source
    columns to target columns. from_source, from_own [rows, tokens]: the map is (source map @
    mapper) * from_source + own map * from_own. record: whether the row's cross maps are handed
    back. Rows with cross_source equal to themselves keep their maps unless from_own says otherwise
    (reweighting alone).
    """

    self_source: Tensor
    cross_source: Tensor
    mapper: Tensor
    from_source: Tensor
    from_own: Tensor
    record: Tensor

    @classmethod
    def none(cls, rows: int, tokens: int) -> AttentionControl:
        """Control that changes nothing, for ``rows`` rows of ``tokens`` tokens."""
        own = torch.arange(rows)
        return cls(
            own,
            own.clone(),
            torch.eye(tokens).expand(rows, -1, -1).clone(),
            torch.zeros(rows, tokens),
            torch.ones(rows, tokens),
            torch.zeros(rows, dtype=torch.bool),
        )

    @classmethod
    def join(cls, parts: Sequence[AttentionControl]) -> AttentionControl:
        """Controls of several requests as one; their row indices move with their rows."""
        start, moved = 0, []
        for part in parts:
            moved.append(
                dataclasses.replace(
                    part,
                    self_source=part.self_source + start,
                    cross_source=part.cross_source + start,
                )
            )
            start += len(part.record)
        names = [f.name for f in dataclasses.fields(cls)]
        return cls(**{n: torch.cat([getattr(p, n) for p in moved]) for n in names})

    @property
    def rows(self) -> int:
        """How many rows it is for."""
        return len(self.record)


@dataclass(frozen=True)
class MaterializedRows:
    """The rows whose cross maps are made, mixed or recorded, on the device.

    rows [n]: of the forward; source [n]: the place among these rows whose map is mixed in; mapper
    [n, tokens, tokens], from_source, from_own [n, tokens]: as in ``AttentionControl``; recorded
    [m]: places among these rows, None if no map is handed back; whole: whether these are all rows.
    """

    rows: Tensor
    source: Tensor
    mapper: Tensor
    from_source: Tensor
    from_own: Tensor
    recorded: Tensor | None
    whole: bool

    @classmethod
    def of(cls, control: AttentionControl, device: torch.device) -> MaterializedRows | None:
        """What ``control`` needs, None if nothing."""
        c, own = control, torch.arange(control.rows)
        mixed = (c.cross_source != own) & (c.from_source != 0).any(1)
        mixed |= (c.from_own != 1).any(1)
        needed = mixed | c.record
        needed[c.cross_source[mixed]] = True  # a source's map is read
        rows = needed.nonzero()[:, 0]
        if not len(rows):
            return None
        place = torch.zeros(control.rows, dtype=torch.long)
        place[rows] = torch.arange(len(rows))
        recorded = c.record[rows].nonzero()[:, 0]
        return cls(
            to_device(rows, device),
            to_device(place[c.cross_source[rows]], device),
            to_device(c.mapper[rows], device),
            to_device(c.from_source[rows], device),
            to_device(c.from_own[rows], device),
            to_device(recorded, device) if len(recorded) else None,
            len(rows) == control.rows,
        )


@dataclass
class Forward:
    """What the processors need to know of the forward that runs, and what they record.

    keys, values: per cross-attention layer, [rows, tokens, inner]; layers in the base's order.
    recorded: positions of a layer whose maps are recorded. self_source: on the device, None if
    every row has its own self-attention. maps: [recording rows, positions, tokens], mean over
    heads, summed over ``layers`` layers.
    """

    keys: Sequence[Tensor]
    values: Sequence[Tensor]
    recorded: int = 0
    self_source: Tensor | None = None
    materialized: MaterializedRows | None = None
    maps: Tensor | None = None
    layers: int = 0

    @classmethod
    def of(
        cls,
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
        control: AttentionControl | None,
        recorded: int,
        device: torch.device,
    ) -> Forward:
        """A forward under ``control``, of which only what it needs goes to ``device``."""
        if control is None:
            return cls(keys, values, recorded)
        moved = bool((control.self_source != torch.arange(control.rows)).any())
        source = to_device(control.self_source, device) if moved else None
        return cls(keys, values, recorded, source, MaterializedRows.of(control, device))

    def record(self, maps: Tensor) -> None:
        """Add one layer's maps of the recording rows."""
        self.maps = maps if self.maps is None else self.maps + maps
        self.layers += 1


@dataclass
class AttentionState:
    """Where the processors find the forward that runs; one per UNet."""

    forward: Forward | None = field(default=None)


def _heads(x: Tensor, heads: int) -> Tensor:
    return x.view(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


class Processor:
    """Attention of one layer. ``layer``: its place among cross-attention layers, None for self."""

    def __init__(self, state: AttentionState, layer: int | None) -> None:
        self.state, self.layer = state, layer

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
        query = _heads(attn.to_q(hidden_states), attn.heads)
        if self.layer is None:
            out = self._self(attn, query, hidden_states, forward)
        else:
            out = self._cross(attn, query, forward, self.layer)
        out = out.transpose(1, 2).flatten(2).to(hidden_states.dtype)
        return attn.to_out[1](attn.to_out[0](out)) / attn.rescale_output_factor

    def _self(self, attn: Any, query: Tensor, states: Tensor, forward: Forward) -> Tensor:
        key, value = _heads(attn.to_k(states), attn.heads), _heads(attn.to_v(states), attn.heads)
        if forward.self_source is not None and states.shape[1] <= SELF_POSITIONS:
            query, key = query[forward.self_source], key[forward.self_source]
        return F.scaled_dot_product_attention(query, key, value, scale=attn.scale)

    def _cross(self, attn: Any, query: Tensor, forward: Forward, layer: int) -> Tensor:
        key = _heads(forward.keys[layer].to(query.dtype), attn.heads)
        value = _heads(forward.values[layer].to(query.dtype), attn.heads)
        materialized = forward.materialized
        if materialized is None:
            return F.scaled_dot_product_attention(query, key, value, scale=attn.scale)
        mixed = _materialized_attention(query, key, value, attn.scale, forward, materialized)
        if materialized.whole:
            return mixed
        out = F.scaled_dot_product_attention(query, key, value, scale=attn.scale)
        return out.index_copy(0, materialized.rows, mixed)


def _materialized_attention(
    query: Tensor, key: Tensor, value: Tensor, scale: float, forward: Forward, of: MaterializedRows
) -> Tensor:
    """Cross-attention of some rows through maps that are made, mixed and recorded.

    Scores and maps are float32: in half precision the scores of Stable Diffusion 2 overflow.
    """
    scores = (query[of.rows].float() * scale) @ key[of.rows].float().transpose(-1, -2)
    maps = torch.softmax(scores, -1)  # [chosen, heads, positions, tokens]
    maps = (
        maps[of.source] @ of.mapper[:, None] * of.from_source[:, None, None]
        + maps * of.from_own[:, None, None]
    )
    if query.shape[2] == forward.recorded and of.recorded is not None:
        forward.record(maps[of.recorded].mean(1))
    return maps.to(value.dtype) @ value[of.rows]
