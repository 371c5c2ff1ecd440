"""What a request does to attention: which rows take maps, parts or features of other rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

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
    (reweighting alone). kept: whether what the row takes is of the features that go with it
    (``Denoise.features``), and self_source and cross_source say nothing. feature_source: the row
    whose features of a decoder block are used; feature_block: the number of that block. regions:
    for each row None, or a mask [h, w] of 0 and 1 on the base's device: where the row uses
    another's keys or values, positions inside attend to those inside and positions outside to those
    outside.
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
    kept: Tensor
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
            kept=torch.zeros(rows, dtype=torch.bool),
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
        other = self.kept | (self.cross_source != torch.arange(self.rows))
        return other & (self.from_source != 0).any(1) | (self.from_own != 1).any(1)

    @property
    def numbered(self) -> AttentionControl:
        """The same where kept features are rows after the last, in the order of who takes them."""
        if not self.kept.any():
            return self
        place = self.rows - 1 + self.kept.cumsum(0)
        return dataclasses.replace(
            self,
            self_source=torch.where(self.kept, place, self.self_source),
            cross_source=torch.where(self.kept, place, self.cross_source),
        )

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
