"""The one attention processor of the base: per-row keys and values, per-row control.

Cross-attention never projects text here: keys and values of every row come from its own prompt and
concept (``text.py``). Self-attention replacement is attention with another row's queries and keys
and the row's own values, so the fused kernel keeps working. Only rows whose cross maps are read or
mixed make them explicit, and only those rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

SELF_POSITIONS = 32 * 32
"""Self-attention maps of at most so many positions are replaced (Prompt-to-Prompt's limit)."""


@dataclass(frozen=True)
class AttentionControl:
    """What attention does to the rows of one request; every field has one entry per row.

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

    def to(self, device: torch.device) -> AttentionControl:
        """The same on ``device``."""
        return AttentionControl(
            *(getattr(self, f.name).to(device) for f in dataclasses.fields(self))
        )

    @property
    def rows(self) -> int:
        """How many rows it is for."""
        return len(self.record)


@dataclass
class Forward:
    """What the processors need to know of the forward that runs, and what they record.

    keys, values: per cross-attention layer, [rows, tokens, inner]; layers in the base's order.
    recorded: positions of a layer whose maps are recorded. maps: [recording rows, positions,
    tokens], mean over heads, summed over ``layers`` layers.
    """

    keys: Sequence[Tensor]
    values: Sequence[Tensor]
    control: AttentionControl | None = None
    recorded: int = 0
    self_moved: bool = False
    explicit: Tensor | None = None
    maps: Tensor | None = None
    layers: int = 0

    def __post_init__(self) -> None:
        if self.control is None:
            return
        own = torch.arange(self.control.rows, device=self.control.record.device)
        self.self_moved = bool((self.control.self_source != own).any())
        c = self.control
        mixed = (c.cross_source != own) & (c.from_source != 0).any(1)
        mixed |= (c.from_own != 1).any(1)
        needed = mixed | c.record
        needed = needed.clone()
        needed[c.cross_source[mixed]] = True  # a source's map is read
        if needed.any():
            self.explicit = needed.nonzero()[:, 0]

    def record(self, maps: Tensor) -> None:
        """Add one layer's maps of the recording rows."""
        self.maps = maps if self.maps is None else self.maps + maps
        self.layers += 1


@dataclass
class Wire:
    """Where the processors find the forward that runs; one per UNet."""

    forward: Forward | None = field(default=None)


def _heads(x: Tensor, heads: int) -> Tensor:
    return x.view(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


class Processor:
    """Attention of one layer. ``layer``: its place among cross-attention layers, None for self."""

    def __init__(self, wire: Wire, layer: int | None) -> None:
        self.wire, self.layer = wire, layer

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
        forward = self.wire.forward
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
        if forward.self_moved and states.shape[1] <= SELF_POSITIONS:
            assert forward.control is not None
            query, key = query[forward.control.self_source], key[forward.control.self_source]
        return F.scaled_dot_product_attention(query, key, value, scale=attn.scale)

    def _cross(self, attn: Any, query: Tensor, forward: Forward, layer: int) -> Tensor:
        key = _heads(forward.keys[layer].to(query.dtype), attn.heads)
        value = _heads(forward.values[layer].to(query.dtype), attn.heads)
        chosen = forward.explicit
        if chosen is None:
            return F.scaled_dot_product_attention(query, key, value, scale=attn.scale)
        mixed = _explicit(query, key, value, attn.scale, forward, chosen)
        if len(chosen) == len(query):
            return mixed
        out = F.scaled_dot_product_attention(query, key, value, scale=attn.scale)
        return out.index_copy(0, chosen, mixed)


def _explicit(
    query: Tensor, key: Tensor, value: Tensor, scale: float, forward: Forward, chosen: Tensor
) -> Tensor:
    """Cross-attention of the ``chosen`` rows through maps that are made, mixed and recorded."""
    control = forward.control
    assert control is not None
    scores = (query[chosen] * scale) @ key[chosen].transpose(-1, -2)
    maps = torch.softmax(scores.float(), -1)  # [chosen, heads, positions, tokens]
    place = torch.zeros(control.rows, dtype=torch.long, device=chosen.device)
    place[chosen] = torch.arange(len(chosen), device=chosen.device)
    source = maps[place[control.cross_source[chosen]]] @ control.mapper[chosen, None].to(maps)
    maps = (
        source * control.from_source[chosen, None, None]
        + maps * control.from_own[chosen, None, None]
    )
    recording = control.record[chosen]
    if query.shape[2] == forward.recorded and recording.any():
        forward.record(maps[recording].mean(1))
    return maps.to(value.dtype) @ value[chosen]
