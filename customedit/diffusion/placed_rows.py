"""Cross-attention of rows whose positions read by the regions of concepts (``concept_regions``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from customedit.diffusion.concept_regions import Readings
from customedit.diffusion.devices import to_device


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[rows, tokens, width] as [rows, heads, tokens, dim]."""
    return x.view(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


@dataclass(frozen=True)
class PlacedRows:
    """Rows whose positions read by the regions of concepts, all of one text.

    rows [n]: their places in what the methods are given, on the device.
    """

    rows: Tensor
    readings: Readings

    @classmethod
    def of(
        cls, readings: Sequence[Readings | None], rows: Sequence[int], device: torch.device
    ) -> list[PlacedRows]:
        """Those of ``rows``, by the ``readings`` of each row of a forward; by place in ``rows``."""
        places: dict[int, list[int]] = {}
        of: dict[int, Readings] = {}
        for place, row in enumerate(rows):
            if (own := readings[row]) is not None:
                of[id(own)] = own
                places.setdefault(id(own), []).append(place)
        return [cls(to_device(torch.tensor(places[k]), device), of[k]) for k in places]

    def attend(self, out: Tensor, query: Tensor, layer: int, scale: float) -> None:
        """Write the attention of these rows into ``out`` [rows, heads, positions, dim]."""
        own = query[self.rows]
        for reading, where in self.readings.places(query.shape[2]):
            pair = (reading.keys[layer], reading.values[layer])
            key, value = (
                split_heads(x[reading.columns][None].to(query), query.shape[1]) for x in pair
            )
            found = F.scaled_dot_product_attention(
                own[:, :, where],
                key.expand(len(own), -1, -1, -1),
                value.expand(len(own), -1, -1, -1),
                scale=scale,
            )
            out[self.rows[:, None], :, where] = found.transpose(1, 2)

    def score(self, scores: Tensor, query: Tensor, layer: int, scale: float) -> None:
        """Write the scores [rows, heads, positions, tokens], minus infinity where none may be."""
        own = query[self.rows].float() * scale
        for reading, where in self.readings.places(query.shape[2]):
            key = split_heads(reading.keys[layer][None].to(query), query.shape[1]).float()
            found = own[:, :, where] @ key.mT
            scores[self.rows[:, None], :, where] = found.transpose(1, 2)
        closed = ~self.readings.attended(query.shape[2])
        scores[self.rows] = scores[self.rows].masked_fill(closed, -torch.inf)

    def keep(self, maps: Tensor) -> None:
        """Make the maps 0 in columns that a position does not attend to, also mixed ones."""
        attended = self.readings.attended(maps.shape[2])
        maps[self.rows] = maps[self.rows].masked_fill(~attended, 0)

    def read(self, out: Tensor, maps: Tensor, layer: int) -> None:
        """Write what ``maps`` read of the values of each position into ``out``."""
        own = maps[self.rows]
        for reading, where in self.readings.places(maps.shape[2]):
            value = split_heads(reading.values[layer][None].to(out), maps.shape[1])
            found = own[:, :, where].to(out.dtype) @ value
            out[self.rows[:, None], :, where] = found.transpose(1, 2)
