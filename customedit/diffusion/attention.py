"""The one attention processor of the base: per-row keys and values, per-row control.

Cross-attention never projects text here: keys and values of every row come from its own prompt and
concept (``text.py``), or for each position of its own (``concept_regions.py``). What a row takes of
another's self-attention are queries, keys or values, so the fused kernel keeps working: with
queries and keys it has the other's map. Cross maps are mixed by way of the values (``MixedRows``),
so that it serves there, too; maps are made where they are handed back, and of rows that read by
regions (``MaterializedRows``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from customedit.diffusion.concept_regions import Readings
from customedit.diffusion.devices import to_device
from customedit.diffusion.placed_rows import PlacedRows, split_heads

SELF_POSITIONS = 32 * 32
"""Self-attention maps of at most so many positions are replaced (Prompt-to-Prompt's limit)."""

QUERY, KEY, VALUE = 0, 1, 2
"""Columns of ``AttentionControl.self_parts``."""


@dataclass(frozen=True)
class AttentionControl:
    """What the UNet does to the rows of one request; every field has one entry per row.

    On the CPU whatever the base's device: what follows from it is worked out there (``Forward``),
    so that nothing has to be asked of a GPU in between.

    self_source: the row of whose self-attention something is used, its own index for no change;
    self_parts [rows, 3] bool: what of it, queries, keys and values (``QUERY``, ``KEY``, ``VALUE``);
    self_from: the first self-attention layer where that happens, in the order in which they run;
    self_large: whether also in layers of more than ``SELF_POSITIONS`` positions.
    cross_source: the row whose cross maps are mixed in. mapper [rows, tokens, tokens]: source
    columns to target columns. from_source, from_own [rows, tokens]: the map is (source map @
    mapper) * from_source + own map * from_own. record: whether the row's cross maps are handed
    back. Rows with cross_source equal to themselves keep their maps unless from_own says otherwise
    (reweighting alone). feature_source: the row whose features of a decoder block are used;
    feature_block: the number of that block. regions: for each row None, or a mask [h, w] of 0 and 1
    on the base's device: where the row uses another's keys or values, positions inside attend to
    those inside and positions outside to those outside.
    """

    self_source: Tensor
    self_parts: Tensor
    self_from: Tensor
    self_large: Tensor
    cross_source: Tensor
    mapper: Tensor
    from_source: Tensor
    from_own: Tensor
    record: Tensor
    feature_source: Tensor
    feature_block: Tensor
    regions: tuple[Tensor | None, ...]

    @classmethod
    def none(cls, rows: int, tokens: int) -> AttentionControl:
        """Control that changes nothing, for ``rows`` rows of ``tokens`` tokens."""
        own = torch.arange(rows)
        return cls(
            self_source=own,
            self_parts=torch.tensor([True, True, False]).repeat(rows, 1),
            self_from=torch.zeros(rows, dtype=torch.long),
            self_large=torch.zeros(rows, dtype=torch.bool),
            cross_source=own.clone(),
            mapper=torch.eye(tokens).expand(rows, -1, -1).clone(),
            from_source=torch.zeros(rows, tokens),
            from_own=torch.ones(rows, tokens),
            record=torch.zeros(rows, dtype=torch.bool),
            feature_source=own.clone(),
            feature_block=torch.zeros(rows, dtype=torch.long),
            regions=(None,) * rows,
        )

    @classmethod
    def join(cls, parts: Sequence[AttentionControl]) -> AttentionControl:
        """Controls of several requests as one; their row indices move with their rows."""
        if len(parts) == 1:
            return parts[0]
        start, moved = 0, []
        for part in parts:
            moved.append(part.at(torch.arange(start, start + part.rows)))
            start += part.rows
        return cls.concatenated(moved)

    @classmethod
    def concatenated(cls, parts: Sequence[AttentionControl]) -> AttentionControl:
        """The entries of all ``parts``, whose indices are of the whole already."""
        names = [f.name for f in dataclasses.fields(cls) if f.name != "regions"]
        regions = tuple(region for part in parts for region in part.regions)
        return cls(**{n: torch.cat([getattr(p, n) for p in parts]) for n in names}, regions=regions)

    def at(self, places: Tensor) -> AttentionControl:
        """The same for rows that stand at ``places`` of another request; the order stays."""
        return dataclasses.replace(
            self,
            self_source=places[self.self_source],
            cross_source=places[self.cross_source],
            feature_source=places[self.feature_source],
        )

    def select(self, rows: Tensor) -> AttentionControl:
        """The entries of ``rows`` alone, whose indices stay what they are."""
        names = [f.name for f in dataclasses.fields(self) if f.name != "regions"]
        regions = tuple(self.regions[row] for row in rows.tolist())
        return AttentionControl(**{n: getattr(self, n)[rows] for n in names}, regions=regions)

    @property
    def rows(self) -> int:
        """How many rows it is for."""
        return len(self.record)

    @property
    def mixed(self) -> Tensor:
        """[rows] bool: whose cross maps are not their own, or not as they are."""
        other = self.cross_source != torch.arange(self.rows)
        return other & (self.from_source != 0).any(1) | (self.from_own != 1).any(1)

    @property
    def read(self) -> Tensor:
        """[rows] bool: whose cross maps are handed back, mixed, or mixed in."""
        found = self.mixed | self.record
        found[self.cross_source[self.mixed]] = True
        return found


class LastJoin:
    """Joins controls of requests, or gives what it gave last where all are the same objects.

    Requests of an edit have one control for many steps; that nothing is joined anew also says that
    what was worked out for the rows still holds (``RowsControl``).
    """

    def __init__(self) -> None:
        self._parts: list[AttentionControl | int] = []
        self._joined: AttentionControl | None = None

    def __call__(
        self, parts: Sequence[AttentionControl | None], rows: Sequence[int], tokens: int
    ) -> AttentionControl | None:
        """The join of ``parts``, each of so many ``rows``; None if no part controls anything."""
        key = [count if part is None else part for part, count in zip(parts, rows, strict=True)]
        same = len(key) == len(self._parts) and all(
            a == b if isinstance(a, int) or isinstance(b, int) else a is b
            for a, b in zip(key, self._parts, strict=True)
        )
        if not same:
            self._parts, self._joined = key, None
            if any(part is not None for part in parts):
                self._joined = AttentionControl.join(
                    [AttentionControl.none(k, tokens) if isinstance(k, int) else k for k in key]
                )
        return self._joined


@dataclass(frozen=True)
class MixedRows:
    """The rows that take maps of others in cross-attention, or change their own, on the device.

    A mixed map is linear in both maps, so that neither is ever made: with m the mapper, f and o the
    shares of the source's and of the own map by token,

        (M_source m f + M_own o) V = M_source (m f V) + M_own (o V)

    rows [n]: of the forward; source [n]: the row whose map each takes. values: per cross-attention
    layer [rows, tokens, inner], o V of the mixed rows and V of all others; taken: per layer
    [n, tokens, inner], m f V.
    """

    rows: Tensor
    source: Tensor
    values: list[Tensor]
    taken: list[Tensor]

    @classmethod
    def of(
        cls, control: AttentionControl, values: Sequence[Tensor], device: torch.device
    ) -> MixedRows | None:
        """What ``control`` mixes, None if nothing. values: per layer, of the rows' own prompts."""
        rows = control.mixed.nonzero()[:, 0]
        if not len(rows):
            return None
        mapped = to_device(control.mapper[rows] * control.from_source[rows][:, None], device)
        own = to_device(control.from_own[rows], device)[..., None]
        chosen = to_device(rows, device)
        picked = [layer[chosen].float() for layer in values]
        return cls(
            chosen,
            to_device(control.cross_source[rows], device),
            [
                layer.index_copy(0, chosen, (own * of_rows).to(layer))
                for layer, of_rows in zip(values, picked, strict=True)
            ],
            [  # row by row: the same bits whatever other rows there are
                torch.stack([m @ v for m, v in zip(mapped, of_rows, strict=True)]).to(layer)
                for layer, of_rows in zip(values, picked, strict=True)
            ],
        )


@dataclass(frozen=True)
class RecordedRows:
    """The rows whose cross maps are made to be handed back, on the device.

    rows [n]: of the forward, recorded ones and the sources of those that are mixed; places [m]: of
    the recorded ones among them. source [m]: the place of the row whose map each takes, None where
    all keep their own; mapper [m, tokens, tokens], from_source, from_own [m, tokens]: as in
    ``AttentionControl``.
    """

    rows: Tensor
    places: Tensor
    source: Tensor | None
    mapper: Tensor
    from_source: Tensor
    from_own: Tensor

    @classmethod
    def of(cls, control: AttentionControl, device: torch.device) -> RecordedRows | None:
        """What ``control`` records, None if nothing."""
        c = control
        recorded = c.record.nonzero()[:, 0]
        if not len(recorded):
            return None
        mixed = c.mixed[recorded]
        source = torch.where(mixed, c.cross_source[recorded], recorded)
        rows = torch.cat([recorded, source]).unique()
        place = torch.zeros(c.rows, dtype=torch.long)
        place[rows] = torch.arange(len(rows))
        return cls(
            to_device(rows, device),
            to_device(place[recorded], device),
            to_device(place[source], device) if mixed.any() else None,
            to_device(c.mapper[recorded], device),
            to_device(c.from_source[recorded] * mixed[:, None], device),
            to_device(c.from_own[recorded], device),
        )

    def maps(self, query: Tensor, key: Tensor, scale: float) -> Tensor:
        """Of one layer, float32 [m, positions, tokens], mean over heads.

        query, key: [rows of the forward, heads, ...]. Scores are float32: in half precision those
        of Stable Diffusion 2 overflow.
        """
        scores = (query[self.rows].float() * scale) @ key[self.rows].float().transpose(-1, -2)
        made = torch.softmax(scores, -1)
        own = made[self.places]
        if self.source is None:
            return own.mean(1)
        taken = made[self.source] @ self.mapper[:, None]
        own = taken * self.from_source[:, None, None] + own * self.from_own[:, None, None]
        return own.mean(1)


@dataclass(frozen=True)
class MaterializedRows:
    """The rows whose cross maps are made, mixed or recorded, on the device.

    So it is done where one of them reads by regions: its values are not the same at all positions.

    rows [n]: of the forward; source [n]: the place among these rows whose map is mixed in; mapper
    [n, tokens, tokens], from_source, from_own [n, tokens]: as in ``AttentionControl``; recorded
    [m]: places among these rows, None if no map is handed back; whole: whether these are all rows;
    placed: those that read by regions, by their places among these rows.
    """

    rows: Tensor
    source: Tensor
    mapper: Tensor
    from_source: Tensor
    from_own: Tensor
    recorded: Tensor | None
    whole: bool
    placed: Sequence[PlacedRows] = ()

    @classmethod
    def of(
        cls,
        control: AttentionControl,
        device: torch.device,
        readings: Sequence[Readings | None] = (),
    ) -> MaterializedRows | None:
        """What ``control`` needs, None if nothing. readings: of each row, none for no regions."""
        c = control
        rows = c.read.nonzero()[:, 0]
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
            PlacedRows.of(readings, rows.tolist(), device) if readings else (),
        )


@dataclass(frozen=True)
class Taken:
    """What rows take of others in one self-attention layer, on the device.

    query, key, value [rows]: the row whose part each row uses, None where all use their own.
    """

    query: Tensor | None
    key: Tensor | None
    value: Tensor | None

    @classmethod
    def of(cls, control: AttentionControl, active: Tensor, device: torch.device) -> Taken:
        """What the ``active`` rows [rows] bool take by ``control``."""
        own = torch.arange(control.rows)
        chosen = active[:, None] & control.self_parts
        rows = torch.where(chosen, control.self_source[:, None], own[:, None])
        parts = (rows[:, part] for part in (QUERY, KEY, VALUE))
        return cls(*(to_device(r, device) if (r != own).any() else None for r in parts))


class SelfSources:
    """Which rows' queries, keys and values each self-attention layer uses, and within which region.

    size: (h, w) of the latents.
    """

    def __init__(
        self, control: AttentionControl, size: tuple[int, int], device: torch.device
    ) -> None:
        self.control, self.size, self.device = control, size, device
        own = torch.arange(control.rows)
        self._moved = (control.self_source != own) & control.self_parts.any(1)
        self._taken: dict[tuple[bool, ...], Taken] = {}
        self._pairs: dict[tuple[int, tuple[int, ...]], tuple[Tensor, Tensor]] = {}

    @property
    def any(self) -> bool:
        """Whether any row takes something of another."""
        return bool(self._moved.any())

    def taken(self, active: Tensor) -> Taken:
        """What the ``active`` rows [rows] bool take."""
        key = tuple(active.tolist())
        if key not in self._taken:
            self._taken[key] = Taken.of(self.control, active, self.device)
        return self._taken[key]

    def active(self, layer: int, positions: int) -> Tensor:
        """The rows [rows] bool that take something in self-attention layer ``layer``."""
        control = self.control
        active = self._moved & (control.self_from <= layer)
        return active if positions <= SELF_POSITIONS else active & control.self_large

    def pairs(self, active: Tensor, positions: int) -> tuple[Tensor, Tensor] | None:
        """Rows [n] whose attention stays within regions, and their masks [n, 1, positions, ...].

        A position is inside its region if half of it or more is.
        """
        regions = self.control.regions
        kinds = self.control.self_parts[:, KEY] | self.control.self_parts[:, VALUE]
        rows = tuple(k for k in (active & kinds).nonzero()[:, 0].tolist() if regions[k] is not None)
        if not rows:
            return None
        if (positions, rows) not in self._pairs:
            stacked = torch.stack([r for k in rows if (r := regions[k]) is not None])
            cells = self._grid(positions)
            inside = F.adaptive_avg_pool2d(stacked[:, None].float(), cells).flatten(1) >= 0.5
            index = to_device(torch.tensor(rows), self.device)
            same = inside[:, None, :, None] == inside[:, None, None, :]
            self._pairs[positions, rows] = index, same
        return self._pairs[positions, rows]

    def _grid(self, positions: int) -> tuple[int, int]:
        """(rows, columns) of a layer with so many positions: the latents' size, halved."""
        height, width = self.size
        while height * width > positions:
            height, width = -(-height // 2), -(-width // 2)
        return height, width


@dataclass(frozen=True)
class RowsControl:
    """What follows from a control for a forward's rows: worked out once, used at many steps.

    self_sources: None if every row has its own self-attention; mixed, recorded: None for no rows;
    materialized: the rows of both, in their place, where one of them reads by regions; placed: all
    rows that do.
    """

    self_sources: SelfSources | None = None
    mixed: MixedRows | None = None
    recorded: RecordedRows | None = None
    materialized: MaterializedRows | None = None
    placed: Sequence[PlacedRows] = ()

    @classmethod
    def of(
        cls,
        control: AttentionControl | None,
        values: Sequence[Tensor],
        size: tuple[int, int],
        device: torch.device,
        readings: Sequence[Readings | None] = (),
    ) -> RowsControl:
        """Of ``control``, of which only what is needed goes to ``device``.

        values: of the rows' prompts, per cross-attention layer; size: (h, w) of the latents;
        readings: of each row whose text has regions.

        Raises ValueError for regions of latents of another size.
        """
        for own in readings:
            if own is not None and own.size != size:
                raise ValueError(f"the regions are of latents {own.size}, not {size}")
        placed = PlacedRows.of(readings, range(len(readings)), device)
        if control is None:
            return cls(placed=placed)
        sources = SelfSources(control, size, device)
        moved = sources if sources.any else None
        if any(readings[row] is not None for row in control.read.nonzero()[:, 0].tolist()):
            rows = MaterializedRows.of(control, device, readings)
            return cls(moved, materialized=rows, placed=placed)
        mixed = MixedRows.of(control, values, device)
        return cls(moved, mixed, RecordedRows.of(control, device), placed=placed)


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
