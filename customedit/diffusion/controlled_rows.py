"""What follows from an ``AttentionControl`` for a forward's rows: made once, on the device.

Cross maps are mixed by way of the values (``MixedRows``), so that the fused kernel serves there,
too; maps are made where they are handed back (``RecordedRows``), and where a mixed map is of a row
that reads by regions (``MaterializedRows``). How a row is computed depends on itself and the row
whose map it takes alone, so that it has the same bits beside any others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from customedit.diffusion.attention_control import KEY, QUERY, VALUE, AttentionControl
from customedit.diffusion.concept_regions import Readings
from customedit.diffusion.devices import to_device
from customedit.diffusion.placed_rows import PlacedRows

SELF_POSITIONS = 32 * 32
"""Self-attention maps of at most so many positions are replaced (Prompt-to-Prompt's limit)."""


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
        cls,
        control: AttentionControl,
        chosen: Tensor,
        values: Sequence[Tensor],
        device: torch.device,
    ) -> MixedRows | None:
        """What ``control`` mixes of the ``chosen`` rows [rows] bool, None if nothing.

        values: per layer, of the rows' own prompts.
        """
        rows = (control.mixed & chosen).nonzero()[:, 0]
        if not len(rows):
            return None
        mapped = to_device(control.mapper[rows] * control.from_source[rows][:, None], device)
        own = to_device(control.from_own[rows], device)[..., None]
        places = to_device(rows, device)
        picked = [layer[places].float() for layer in values]
        return cls(
            places,
            to_device(control.cross_source[rows], device),
            [
                layer.index_copy(0, places, (own * of_rows).to(layer))
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
    def of(
        cls, control: AttentionControl, chosen: Tensor, device: torch.device
    ) -> RecordedRows | None:
        """What ``control`` records of the ``chosen`` rows [rows] bool, None if nothing."""
        c = control
        recorded = (c.record & chosen).nonzero()[:, 0]
        if not len(recorded):
            return None
        mixed = c.mixed[recorded]
        source = torch.where(mixed, c.cross_source[recorded], recorded)
        rows = torch.cat([recorded, source]).unique()
        place = torch.zeros(int(rows[-1]) + 1, dtype=torch.long)
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


def by_regions(control: AttentionControl, readings: Sequence[Readings | None]) -> Tensor:
    """The rows [rows] bool whose maps depend on regions: their own, or those of the map they take.

    readings: of each row, kept ones included.
    """
    own = torch.tensor([reading is not None for reading in readings], dtype=torch.bool)
    return own[: control.rows] | (control.mixed & own[control.cross_source])


@dataclass(frozen=True)
class MaterializedRows:
    """The rows by regions whose cross maps are made, to be mixed or recorded, on the device.

    So it is done since their values are not the same at all positions. A row by regions that is
    neither mixed nor recorded is not among them, and a recorded one has its output from the fused
    kernel as if it were not.

    scored [s]: rows of the forward whose scores are made, those below and the ones whose maps they
    take; rows [n]: the places of the mixed and recorded ones among them; source [n]: the place
    among the scored whose map each takes; mapper [n, tokens, tokens], from_source, from_own [n,
    tokens]: as in ``AttentionControl``; mixed [m], recorded [k]: places among the n, None for no
    row; written [m]: the mixed ones as rows of the forward; scored_placed, placed: those that read
    by regions, by their places among the scored and among the n.
    """

    scored: Tensor
    rows: Tensor
    source: Tensor
    mapper: Tensor
    from_source: Tensor
    from_own: Tensor
    mixed: Tensor | None
    written: Tensor
    recorded: Tensor | None
    scored_placed: Sequence[PlacedRows]
    placed: Sequence[PlacedRows]

    @classmethod
    def of(
        cls,
        control: AttentionControl,
        chosen: Tensor,
        device: torch.device,
        readings: Sequence[Readings | None],
    ) -> MaterializedRows | None:
        """What ``control`` mixes and records of the ``chosen`` rows [rows] bool, None if nothing.

        chosen: ``by_regions``; readings: of each row of the forward.
        """
        c, is_mixed = control, control.mixed
        rows = (chosen & (is_mixed | c.record)).nonzero()[:, 0]
        if not len(rows):
            return None
        source = torch.where(is_mixed[rows], c.cross_source[rows], rows)
        scored = torch.cat([rows, source]).unique()
        place = torch.zeros(int(scored[-1]) + 1, dtype=torch.long)
        place[scored] = torch.arange(len(scored))
        mixed, recorded = (kind[rows].nonzero()[:, 0] for kind in (is_mixed, c.record))
        return cls(
            to_device(scored, device),
            to_device(place[rows], device),
            to_device(place[source], device),
            to_device(c.mapper[rows], device),
            to_device(c.from_source[rows] * is_mixed[rows][:, None], device),
            to_device(c.from_own[rows], device),
            to_device(mixed, device) if len(mixed) else None,
            to_device(rows[mixed], device),
            to_device(recorded, device) if len(recorded) else None,
            PlacedRows.of(readings, scored.tolist(), device),
            PlacedRows.of(readings, rows.tolist(), device),
        )

    def maps(self, query: Tensor, key: Tensor, layer: int, scale: float) -> Tensor:
        """Of one layer, mixed where they are: float32 [n, heads, positions, tokens].

        query, key: [rows of the forward, heads, ...]. Scores are float32: in half precision those
        of Stable Diffusion 2 overflow.
        """
        query = query[self.scored]
        scores = (query.float() * scale) @ key[self.scored].float().transpose(-1, -2)
        for placed in self.scored_placed:
            placed.score(scores, query, layer, scale)
        made = torch.softmax(scores, -1)
        maps = (
            made[self.source] @ self.mapper[:, None] * self.from_source[:, None, None]
            + made[self.rows] * self.from_own[:, None, None]
        )
        for placed in self.placed:
            placed.keep(maps)
        return maps

    def read(self, out: Tensor, maps: Tensor, value: Tensor, layer: int) -> Tensor:
        """``out`` [rows of the forward, heads, positions, dim] with what the mixed rows' maps read.

        maps: of this layer; value: [rows of the forward, heads, tokens, dim].
        """
        if self.mixed is None:
            return out
        made = maps.to(value.dtype) @ value[self.scored][self.rows]
        for placed in self.placed:
            placed.read(made, maps, layer)
        return out.index_copy(0, self.written, made[self.mixed])


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

    self_sources: None if every row has its own self-attention; mixed, recorded, materialized: None
    for no rows, and no row is mixed or recorded by two of them; record_order: where the map of each
    recording row stands among those of ``recorded`` followed by those of ``materialized``, None for
    as they are; placed: the rows that read by regions and are not mixed.
    """

    self_sources: SelfSources | None = None
    mixed: MixedRows | None = None
    recorded: RecordedRows | None = None
    materialized: MaterializedRows | None = None
    record_order: Tensor | None = None
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
        readings: of each row whose text has regions. Both go on with those of the rows whose kept
        features are taken (``AttentionControl.numbered``).

        Raises ValueError for regions of latents of another size.
        """
        for own in readings:
            if own is not None and own.size != size:
                raise ValueError(f"the regions are of latents {own.size}, not {size}")
        if control is None:
            return cls(placed=PlacedRows.of(readings, range(len(readings)), device))
        control = control.numbered
        sources = SelfSources(control, size, device)
        chosen, is_mixed = by_regions(control, readings), control.mixed
        free = [None if is_mixed[row] else own for row, own in enumerate(readings[: control.rows])]
        return cls(
            sources if sources.any else None,
            MixedRows.of(control, ~chosen, values, device),
            RecordedRows.of(control, ~chosen, device),
            MaterializedRows.of(control, chosen, device, readings),
            _record_order(control.record, chosen, device),
            PlacedRows.of(free, range(len(free)), device),
        )


def _record_order(record: Tensor, last: Tensor, device: torch.device) -> Tensor | None:
    """Where each recording row stands if those of ``last`` come last; None if they do already.

    record, last: [rows] bool.
    """
    order = last[record].long().argsort(stable=True)
    if torch.equal(order, torch.arange(len(order))):
        return None
    return to_device(order.argsort(), device)
