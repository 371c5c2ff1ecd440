"""Maps of words: a tile for each word of each output, read from the recorded maps."""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import torch

from customedit.diffusion.text import Tokens
from worker.word_maps import of_words, word_maps

TOKENS = Tokens([0] * 6, ["a", "<x>", "cup"], [(1, 2), (2, 4), (4, 5)], {2: "<x>", 3: "<x>"})


def result(maps: torch.Tensor | None) -> Any:
    return types.SimpleNamespace(drawing=types.SimpleNamespace(maps=maps))


def test_a_words_map_is_the_mean_over_its_columns_by_its_strongest_cell() -> None:
    maps = torch.rand(2, 3, 6)
    found = of_words(maps, TOKENS)
    both = maps[..., 2:4].mean(-1)
    assert torch.allclose(found[1], both / both.max())
    assert torch.allclose(found[2], maps[..., 4] / maps[..., 4].max())


def test_a_word_without_a_column_is_black() -> None:
    tokens = Tokens([0] * 6, ["a", "<adapter>"], [(1, 2), (2, 2)], {})
    found = of_words(torch.rand(2, 3, 6), tokens)
    assert found.shape == (2, 2, 3) and not found[1].any()


def test_the_picture_has_a_row_for_each_output_and_a_column_for_each_word() -> None:
    maps = torch.rand(2, 2, 3, 6)
    found = word_maps([result(maps), result(None), result(2 * maps)], TOKENS)
    assert found is not None and found.words == TOKENS.words and found.cells == (2, 3)
    pixels = np.asarray(found.picture)
    assert pixels.shape == (3 * 2, 3 * 3)
    tile = torch.from_numpy(pixels[:2, 6:9].copy())  # of the target's last word
    assert torch.equal(tile, (of_words(maps[1], TOKENS)[2] * 255).round().to(torch.uint8))
    assert not pixels[2:4].any() and np.array_equal(pixels[:2], pixels[4:])


def test_nothing_recorded_makes_no_picture() -> None:
    assert word_maps([result(None)], TOKENS) is None
