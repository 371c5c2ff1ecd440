"""Local blend: where an edit may reach, read from the cross-attention maps of its words.

After Prompt-to-Prompt (Hertz et al., arXiv 2208.01626, "Local Editing") and the ``LocalBlend`` of
google/prompt-to-prompt. Custom-Edit reads the source's words alone, which keeps the source better
than the union of both rows' masks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from customedit.diffusion.devices import to_device
from customedit.editing.settings import step_of
from customedit.errors import InputError

Columns = Sequence[Sequence[int]]
"""Of each accumulated row, the token columns of the words that are read; none: the row is not."""


class Blend:
    """Accumulates cross-attention maps over the steps and makes masks of them.

    cells: (rows, columns) of the grid the maps lie on, 16 x 16 for a square image; threshold: the
    share of a map's maximum above which a place belongs to its words, in [0, 1); start: the share
    of the steps before which nothing is blended, in [0, 1].

    Raises:
        InputError: for a threshold or a start out of range.
    """

    def __init__(
        self, cells: tuple[int, int], *, threshold: float = 0.3, start: float = 0.2
    ) -> None:
        if not 0 <= threshold < 1:
            raise InputError("blend threshold", f"is {threshold}", "give 0 or more, below 1")
        if not 0 <= start <= 1:
            raise InputError("blend start", f"is {start}", "give 0 to 1")
        self.cells, self.threshold, self.start = cells, threshold, start
        self.maps: Tensor | None = None
        self._indices: dict[tuple[int, ...], Tensor] = {}

    def accumulate(self, maps: Tensor) -> None:
        """Add one step's maps [rows, cells, tokens], of any scale that is the same at each step.

        Rows are the source's and, where the union is wanted, the target's. ``maps`` is not changed.

        Raises:
            ValueError: for another number of cells, or other rows or tokens than before.
        """
        expected = self.cells[0] * self.cells[1]
        if maps.ndim != 3 or maps.shape[1] != expected:
            raise ValueError(f"maps of {expected} cells are wanted, got {tuple(maps.shape)}")
        maps = maps.float()
        if self.maps is None:
            self.maps = maps.clone()
        elif maps.shape == self.maps.shape:
            self.maps = self.maps + maps
        else:
            raise ValueError(f"maps were {tuple(self.maps.shape)}, now {tuple(maps.shape)}")

    def starts(self, step: int, steps: int) -> bool:
        """Whether ``step`` (from 0) of ``steps`` is blended."""
        return step >= step_of(self.start, steps)

    def mask(self, columns: Columns, size: tuple[int, int], subtract: Columns = ()) -> Tensor:
        """Where the words are: [1, 1, h, w] float32 in {0, 1}.

        columns: one entry for the source's mask alone, two for the union with the target's;
        subtract: words whose places (not widened by pooling) are taken out again; size: (h, w) of
        the latents.

        Raises:
            InputError: if ``columns`` names no column, or one that the maps do not have.
            ValueError: if nothing was accumulated, or for more entries than rows.
        """
        if not any(columns):
            raise InputError("blend words", "name no word of the prompt", "give one or more")
        region = self._region(columns, size, pool=True)
        if any(subtract):
            region &= ~self._region(subtract, size, pool=False)
        return region.float()

    def _region(self, columns: Columns, size: tuple[int, int], *, pool: bool) -> Tensor:
        """The union over rows of where each row's words exceed the threshold, [1, 1, h, w] bool."""
        if self.maps is None:
            raise ValueError("no maps were accumulated")
        if len(columns) > len(self.maps):
            raise ValueError(f"columns for {len(columns)} rows, maps of {len(self.maps)}")
        _check(columns, self.maps.shape[2])
        region = torch.zeros(1, 1, *size, dtype=torch.bool, device=self.maps.device)
        for row, chosen in zip(self.maps, columns, strict=False):
            if chosen:
                heat = row[:, self._index(tuple(chosen))].sum(1).view(1, 1, *self.cells)
                if pool:
                    heat = F.max_pool2d(heat, kernel_size=3, stride=1, padding=1)
                heat = F.interpolate(heat, size=size)
                region |= heat > self.threshold * heat.max()
        return region

    def _index(self, columns: tuple[int, ...]) -> Tensor:
        """``columns`` beside the maps, brought there once: a list would be at each step."""
        assert self.maps is not None
        if columns not in self._indices:
            self._indices[columns] = to_device(torch.tensor(columns), self.maps.device)
        return self._indices[columns]


def _check(columns: Columns, tokens: int) -> None:
    for column in (c for row in columns for c in row):
        if not 0 <= column < tokens:
            raise InputError(
                "blend words", f"name column {column}", f"the prompt has 0 to {tokens - 1}"
            )


def latent_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """A user's own mask as a blend mask: [1, 1, h, w] float32 in [0, 1].

    mask: [height, width] at any size, 1 where the edit may reach, 0 where the source stays; size:
    (h, w) of the latents. Each latent cell gets the mean of what it covers, so that edges are soft.

    Raises:
        InputError: unless the mask has two axes and lies in [0, 1].
    """
    mask = mask.float()
    if mask.ndim != 2 or not mask.numel():
        raise InputError("mask", f"has shape {tuple(mask.shape)}", "give height x width numbers")
    if not bool(((mask >= 0) & (mask <= 1)).all()):
        raise InputError(
            "mask", f"spans {float(mask.min()):g} to {float(mask.max()):g}", "scale it to 0 to 1"
        )
    return F.adaptive_avg_pool2d(mask[None, None], size)


def blend(source_latent: Tensor, target_latent: Tensor, mask: Tensor) -> Tensor:
    """x_s + mask (x_t - x_s): the target where the mask is 1, the source itself where it is 0.

    source_latent, target_latent: [n, C, h, w]; mask: [1, 1, h, w] in [0, 1].
    """
    return torch.lerp(source_latent, target_latent, mask.to(source_latent))  # exact at 0 and 1
