"""Regions of concepts: a token that acts in a part of the picture alone.

GLIGEN (arXiv 2301.07093) trains layers that tie a phrase to a box. Here nothing is trained: each
position of cross-attention reads a version of the prompt in which exactly the concepts act whose
regions it lies in (``Reading``). In the others' place

* the columns bound to the concept (its token's, and those of its attribute where that follows) are
  not attended to, as with logits of minus infinity: their probability is 0,
* no other word of the prompt has seen them in the text encoders, and
* keys and values are projected without the concept's change of their weights.

So cross-attention outside a region is, to the bit, what it is for any other concept there. What
lies outside still hears of the region through self-attention and convolutions, as of any change.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from customedit.boxes import INSIDE, ROUNDING, Box, axis_shares, check_box
from customedit.diffusion.devices import to_device
from customedit.errors import InputError
from customedit.images.masks import picture_values

Grid = tuple[int, int]
"""(rows, columns) of a layer's positions."""


@dataclass(frozen=True, eq=False)
class ConceptRegion:
    """Where in the picture a concept acts: in a box or in a mask, one of the two.

    box: (left, top, right, bottom) as fractions of the picture's sides, with an area; mask:
    [height, width] in [0, 1] at any size in the picture's aspect, 1 where the concept acts.

    Raises InputError for a box out of range, and both or neither.
    """

    box: Box | None = None
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.box is None) == (self.mask is None):
            problem = "is missing" if self.box is None else "is given with a mask"
            raise InputError("box", problem, "give a box or a mask for a concept's region")
        if self.box is not None:
            check_box(self.box)
        if self.mask is not None and (self.mask.ndim != 2 or not self.mask.numel()):
            raise InputError(
                "mask", f"has shape {tuple(self.mask.shape)}", "give height x width numbers"
            )

    @classmethod
    def of_mask(cls, mask: Image.Image | np.ndarray[Any, Any] | Tensor) -> ConceptRegion:
        """The white of a picture, or numbers [height, width] in [0, 1], as a region.

        Raises InputError for a picture that could mean more than one thing (``images.masks``).
        """
        if isinstance(mask, Image.Image):
            mask = picture_values(mask)
        return cls(mask=torch.as_tensor(mask).detach().float().cpu())

    @property
    def kind(self) -> Literal["box", "mask"]:
        """How it was given, which is also the field of a request."""
        return "mask" if self.box is None else "box"

    def shares(self, height: int, width: int) -> Tensor:
        """How much of each of ``height`` x ``width`` cells lies inside: float32 in [0, 1]."""
        if self.box is None:
            assert self.mask is not None
            return F.adaptive_avg_pool2d(self.mask.float().cpu()[None], (height, width))[0]
        left, top, right, bottom = self.box
        down, across = axis_shares(top, bottom, height), axis_shares(left, right, width)
        return torch.outer(torch.tensor(down), torch.tensor(across))


def inside(shares: Tensor, grid: Grid) -> Tensor:
    """Which positions of a layer lie in each region, [n, rows, columns] bool.

    shares: [n, h, w], of the latents' cells. A position is inside if at least half of it is; where
    a layer is too coarse for that, those are that have most of the region.
    """
    pooled = F.adaptive_avg_pool2d(shares, grid)
    most = pooled.flatten(1).amax(1).clamp(max=INSIDE)
    return pooled >= most[:, None, None] - ROUNDING


@dataclass(frozen=True, eq=False)
class Reading:
    """What positions read in which exactly the concepts ``acting`` of those with a region act.

    acting: their numbers; keys, values: per cross-attention layer [tokens, inner]; columns:
    [attended], those of the prompt that are attended to.
    """

    acting: frozenset[int]
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    columns: Tensor


@dataclass(frozen=True, eq=False)
class Readings:
    """What a row reads at each position.

    shares: [concepts, h, w], how much of each of the latents' cells lies in each concept's region;
    readings: one for every set of concepts that acts somewhere, at any of the ``grids``.
    """

    shares: Tensor
    grids: tuple[Grid, ...]
    readings: tuple[Reading, ...]
    _places: dict[int, list[tuple[Reading, Tensor]]] = field(default_factory=dict)
    _attended: dict[int, Tensor] = field(default_factory=dict)

    @property
    def size(self) -> Grid:
        """(h, w) of the latents that it is for."""
        return int(self.shares.shape[1]), int(self.shares.shape[2])

    def places(self, positions: int) -> list[tuple[Reading, Tensor]]:
        """Each reading with its positions [n], on the device, in a layer of so many positions."""
        if positions not in self._places:
            device = self.readings[0].columns.device
            sets = acting_sets(self.shares, self._grid(positions))
            self._places[positions] = [
                (reading, to_device(torch.tensor(where), device))
                for reading in self.readings
                if (where := [k for k, acting in enumerate(sets) if acting == reading.acting])
            ]
        return self._places[positions]

    def attended(self, positions: int) -> Tensor:
        """Which columns each position attends to, [positions, tokens] bool on the device."""
        if positions not in self._attended:
            tokens, device = self.readings[0].keys[0].shape[0], self.readings[0].columns.device
            found = torch.zeros((positions, tokens), dtype=torch.bool, device=device)
            for reading, where in self.places(positions):
                found[where[:, None], reading.columns] = True
            self._attended[positions] = found
        return self._attended[positions]

    def _grid(self, positions: int) -> Grid:
        for grid in self.grids:
            if grid[0] * grid[1] == positions:
                return grid
        raise ValueError(f"no layer of latents {self.size} has {positions} positions")


def acting_sets(shares: Tensor, grid: Grid) -> list[frozenset[int]]:
    """The concepts that act at each position of a layer, by their numbers, row by row."""
    table = inside(shares, grid).flatten(1).T.tolist()
    return [frozenset(k for k, here in enumerate(row) if here) for row in table]


def sets_anywhere(shares: Tensor, grids: Sequence[Grid]) -> list[frozenset[int]]:
    """Every set of concepts that acts together at some position of some layer; none comes first."""
    found = set(itertools.chain.from_iterable(acting_sets(shares, grid) for grid in grids))
    return sorted(found | {frozenset()}, key=lambda acting: (len(acting), sorted(acting)))
