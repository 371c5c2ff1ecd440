"""Where an edit may change the picture: the one place that says what a mask and blend words mean.

* A user's **mask** is where the edit may change, whatever the method: white may, black stays.
* **Blend words** (given, or derived by ``region_words``) are read from attention maps at each step
  (``Blend``). With a mask besides, the region is what lies in both. A mask without given words is
  the region by itself: whoever draws one has said more than the prompts do.
* A **concept's region** says where the concept acts. Where neither mask nor words are given, it
  takes the place of the word that the concept is said of: the region is the union of the concepts'
  regions and of what words of other changes are read as. A given mask, given words and
  ``blend_over`` none say more than that, and hold as they do without.
* ``blend_over="none"`` lets an edit reach everywhere, which a mask contradicts: refused.
* The region holds the latents in every method, and the pixels where ``preserve`` puts the source's
  own back. Of the mask, latents take the most in each cell, and every cell that a concept's region
  touches, so that a cell at the edge is not half the source's at every step; pixels take both at
  their full size.

The local blend is after Prompt-to-Prompt (Hertz et al., arXiv 2208.01626, "Local Editing") and the
``LocalBlend`` of google/prompt-to-prompt. Custom-Edit reads the source's words alone, which keeps
the source better than the union of both rows' masks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from customedit import pixels
from customedit.boxes import ROUNDING
from customedit.diffusion.devices import to_device
from customedit.diffusion.text import TextContext, Tokens
from customedit.editing.method_settings import RegionSettings, step_of
from customedit.editing.prompt_words import find
from customedit.editing.region_words import union_words
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
    (h, w) of the latents. Each latent cell gets the most of what it covers.

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
    return F.adaptive_max_pool2d(mask[None, None], size)


def blend(source_latent: Tensor, target_latent: Tensor, mask: Tensor) -> Tensor:
    """x_s + mask (x_t - x_s): the target where the mask is 1, the source itself where it is 0.

    source_latent, target_latent: [n, C, h, w]; mask: [1, 1, h, w] in [0, 1].
    """
    return torch.lerp(source_latent, target_latent, mask.to(source_latent))  # exact at 0 and 1


def word_columns(tokens: Tokens, word: str, field: str) -> list[int]:
    """The token columns of every place where a prompt has ``word``; InputError names ``field``."""
    places = find(tokens.words, word, field=field)
    return [column for place in places for column in tokens.columns(place)]


class Region:
    """The region of one edit, which is read from the maps step by step.

    source, target: contexts of prompts; size: (h, w) of the latents; mask: the user's, [height,
    width] in [0, 1]. current: [1, 1, h, w] in [0, 1] at this step, None as long as the edit may
    reach everywhere.

    Raises InputError for words that the prompts do not have, and a mask that is missing or
    contradicted.
    """

    def __init__(
        self, settings: RegionSettings, source: TextContext, target: TextContext,
        size: tuple[int, int], mask: Tensor | None, device: torch.device,
    ) -> None:  # fmt: skip
        assert source.tokens is not None and target.tokens is not None, "contexts are of prompts"
        self.settings, self.size = settings, size
        self.bound = None if mask is None else latent_mask(mask.cpu(), size).to(device)
        self.current: Tensor | None = None
        self.placed: Tensor | None = None  # cells of the concepts' regions that belong to it
        self.blend: Blend | None = None
        self.columns: list[list[int]] = []
        self.minus: list[list[int]] = []
        if settings.blend_over == "mask":
            if self.bound is None:
                raise InputError("mask", "is missing", "give one, or blend over the source's words")
            self.current = self.bound
            return
        if settings.blend_over == "none":
            if self.bound is not None:
                raise InputError("mask", "contradicts blend_over none", "leave out one of the two")
            return
        if settings.concept_regions:
            self.placed = self.current = _of_concepts(target).to(device)
            if not settings.blend_words:
                return
        words, read = settings.blend_words, source.tokens
        self.columns = [[c for w in words for c in word_columns(read, w, "source_prompt")]]
        if settings.blend_over == "union":
            chosen = union_words(settings, target.tokens.words)
            self.columns.append(
                [c for w in chosen for c in word_columns(target.tokens, w, "target_prompt")]
            )
        subtracted = settings.subtract
        self.minus = [[c for w in subtracted for c in word_columns(read, w, "source_prompt")]]

    def see(self, maps: Tensor) -> None:
        """Add the maps of one step, [1 or 2, rows, columns, tokens]: source, and target if read."""
        if not self.columns:
            return
        if self.blend is None:
            self.blend = Blend(
                (maps.shape[1], maps.shape[2]),
                threshold=self.settings.threshold,
                start=self.settings.blend_start,
            )
        self.blend.accumulate(maps.flatten(1, 2))
        region = self.blend.mask(self.columns, self.size, self.minus)
        if self.placed is not None:
            region = torch.maximum(region, self.placed)
        self.current = region if self.bound is None else region * self.bound

    def acting(self, step: int, steps: int) -> Tensor | None:
        """The region, from the step on that the settings say; None while it is everywhere."""
        begins = step_of(self.settings.blend_start, steps)
        return None if step < begins else self.current

    def apply(self, source: Tensor, target: Tensor, step: int, steps: int) -> Tensor:
        """The target's latents kept to the region, from the step on that the settings say."""
        region = self.acting(step, steps)
        return target if region is None else blend(source, target, region)


def _of_concepts(target: TextContext) -> Tensor:
    """The cells that regions of concepts which ``target`` reads touch, [1, 1, h, w] in {0, 1}."""
    if target.readings is None:
        raise ValueError("the target's text has no regions of concepts")
    return (target.readings.shares.amax(0) > ROUNDING).float()[None, None]


def pixel_region(
    source: Image.Image, region: Tensor | None, mask: Tensor | None, *, words: bool,
    outline: bool = False, placed: Tensor | None = None,
) -> Tensor | None:  # fmt: skip
    """The region for pixels, [H, W] float32 in [0, 1] at the source's size; None: everywhere.

    region: of the latents, [h, w], None for everywhere; mask: the user's, [h, w] in [0, 1], taken
    as it is, so that its edge in the picture is the user's and not that of latent cells; words:
    whether the region was read from words, whose edges are moved to those of the source's colours;
    outline: whether they are drawn in to the outline of the thing inside; placed: the union of
    concepts' regions at the source's size, where these belong to the region, taken as they are.

    Raises InputError for a mask that cannot be used.
    """
    bounds = None if mask is None else pixels.source_region(source, mask=mask)
    if region is None or not words:
        return bounds if placed is None else placed
    refined = pixels.source_region(source, coarse=region, outline=outline)
    if placed is not None:
        refined = torch.maximum(refined, placed)
    return refined if bounds is None else refined * bounds
