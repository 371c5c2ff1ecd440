"""Where the words of a target prompt attended to, as one small grey picture for people to look at.

An edit that reads its region from words records cross-attention maps at every step anyway. Their
sum for each word is a tile of 16 x 16 cells (for square pictures), so that the maps of a prompt of
ten words take some kilobytes for each output, where the maps themselves take hundreds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from customedit.diffusion.text import Tokens
from customedit.editing.edit import EditResult


@dataclass(frozen=True)
class WordMaps:
    """picture: a row of tiles for each output and in it a tile for each word; cells: of a tile."""

    picture: Image.Image
    words: list[str]
    cells: tuple[int, int]


def word_maps(results: Sequence[EditResult], target: Tokens) -> WordMaps | None:
    """The maps of the words of ``target``, which all ``results`` were drawn with.

    The tiles of an output that recorded nothing (the source given back) are black. None if none
    recorded anything.
    """
    recorded = [result.drawing.maps for result in results]
    some = next((maps for maps in recorded if maps is not None), None)
    if some is None:
        return None
    rows, columns = some.shape[1:3]
    blank = torch.zeros(len(target.words), rows, columns)
    tiles = torch.stack(
        [blank if maps is None else of_words(maps[1].cpu(), target) for maps in recorded]
    )  # [outputs, words, rows, columns]
    grey = (tiles * 255).round().to(torch.uint8)
    whole = grey.permute(0, 2, 1, 3).reshape(len(results) * rows, len(target.words) * columns)
    return WordMaps(Image.fromarray(whole.numpy()), list(target.words), (rows, columns))


def of_words(maps: Tensor, tokens: Tokens) -> Tensor:
    """The map of each word, [words, rows, columns] in [0, 1]: the mean over its columns.

    maps: [rows, columns, tokens], of any scale. Each word is divided by its strongest cell: words
    differ by orders of magnitude, and what is shown is where each of them attends to.
    """
    found = []
    for k in range(len(tokens.words)):
        of_word = maps[..., list(tokens.columns(k))].float()
        found.append(of_word.mean(-1) if of_word.shape[-1] else torch.zeros(maps.shape[:2]))
    stacked = torch.stack(found)
    strongest = stacked.amax((1, 2), keepdim=True)
    return stacked / strongest.clamp(min=torch.finfo(stacked.dtype).tiny)
