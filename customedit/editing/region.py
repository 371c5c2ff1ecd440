"""Where an edit may change the picture: the one place that says what a mask and blend words mean.

* A user's **mask** is where the edit may change, whatever the method: white may, black stays.
* **Blend words** (given, or derived by ``region_words``) are read from attention maps at each step
  (``blend``). With a mask besides, the region is what lies in both. A mask without given words is
  the region by itself: whoever draws one has said more than the prompts do.
* ``blend_over="none"`` lets an edit reach everywhere, which a mask contradicts: refused.
* The region holds the latents in every method, and the pixels where ``preserve`` puts the source's
  own back. Latents take the mask's mean over each cell; pixels take it at its full size.
"""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from customedit import pixels
from customedit.diffusion.text import Tokens
from customedit.editing.blend import Blend, blend, latent_mask
from customedit.editing.prompt_words import bare, find
from customedit.editing.settings import P2PSettings, step_of
from customedit.errors import InputError


def word_columns(tokens: Tokens, word: str, field: str) -> list[int]:
    """The token columns of every place where a prompt has ``word``; InputError names ``field``."""
    places = find(tokens.words, word, field=field)
    return [column for place in places for column in tokens.columns(place)]


class Region:
    """The region of one Prompt-to-Prompt edit, which is read from the maps step by step.

    size: (h, w) of the latents; mask: the user's, [height, width] in [0, 1]. current: [1, 1, h, w]
    in [0, 1] at this step, None as long as the edit may reach everywhere.

    Raises InputError for words that the prompts do not have, and a mask that is missing or
    contradicted.
    """

    def __init__(
        self, settings: P2PSettings, source: Tokens, target: Tokens, size: tuple[int, int],
        mask: Tensor | None, device: torch.device,
    ) -> None:  # fmt: skip
        self.settings, self.size = settings, size
        self.bound = None if mask is None else latent_mask(mask.cpu(), size).to(device)
        self.current: Tensor | None = None
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
        words = settings.blend_words
        self.columns = [[c for w in words for c in word_columns(source, w, "source_prompt")]]
        if settings.blend_over == "union":
            chosen = target_words(settings, target.words)
            self.columns.append(
                [c for w in chosen for c in word_columns(target, w, "target_prompt")]
            )
        subtracted = settings.subtract
        self.minus = [[c for w in subtracted for c in word_columns(source, w, "source_prompt")]]

    def see(self, maps: Tensor) -> None:
        """Add the maps of one step, [2, rows, columns, tokens]."""
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
        self.current = region if self.bound is None else region * self.bound

    def apply(self, source: Tensor, target: Tensor, step: int, steps: int) -> Tensor:
        """The target's latents kept to the region, from the step on that the settings say."""
        begins = step_of(self.settings.blend_start, steps)
        if self.current is None or step < begins:
            return target
        return blend(source, target, self.current)


def target_words(settings: P2PSettings, words: list[str]) -> tuple[str, ...]:
    """The target's words of a union; those of the source that ``words`` has, if none were given.

    Raises InputError if there are none.
    """
    if settings.blend_target_words is not None:
        return settings.blend_target_words
    there = {bare(w) for w in words}
    shared = tuple(w for w in settings.blend_words if bare(w) in there)
    if not shared:
        raise InputError(
            "blend_target_words",
            "are missing, and the target prompt has none of the blend words",
            "name the target's words",
        )
    return shared


def pixel_region(
    source: Image.Image, region: Tensor | None, mask: Tensor | None, *, words: bool
) -> Tensor | None:
    """The region for pixels, [H, W] float32 in [0, 1] at the source's size; None: everywhere.

    region: of the latents, [h, w], None for everywhere; mask: the user's, [h, w] in [0, 1], taken
    as it is, so that its edge in the picture is the user's and not that of latent cells; words:
    whether the region was read from words, whose edges are moved to those of the source's colours.

    Raises InputError for a mask that cannot be used.
    """
    bounds = None if mask is None else pixels.source_region(source, mask=mask)
    if region is None or not words:
        return bounds
    refined = pixels.source_region(source, coarse=region)
    return refined if bounds is None else refined * bounds
