"""What makes the text tower tell words apart: batches of look-alikes and the reading loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from customedit.mini import clip
from customedit.mini.scenes import sample_scene

SCENES = [sample_scene(k) for k in range(400)]


def test_look_alikes_share_their_colours_and_hold_every_scene_once() -> None:
    sets = clip.look_alikes(SCENES)
    assert sorted(int(i) for s in sets for i in s) == list(range(len(SCENES)))
    for members in sets:
        assert len({(SCENES[i].colour, SCENES[i].wall) for i in members}) == 1


@pytest.mark.parametrize("batch", [1, 16, 50, 128])
def test_a_batch_has_look_alikes_and_no_scene_twice(batch: int) -> None:
    sets = clip.look_alikes(SCENES)
    rows = clip.hard_batch(sets, batch, np.random.default_rng(0))
    assert len(rows) == batch == len(set(rows.tolist()))
    shared = [len(s) for s in clip.look_alikes([SCENES[i] for i in rows])]
    if batch > 16:
        assert np.mean(shared) > 2  # drawn evenly, hardly any two would share both colours


def test_fewer_scenes_than_a_batch_are_all_taken() -> None:
    rows = clip.hard_batch(clip.look_alikes(SCENES[:10]), 64, np.random.default_rng(0))
    assert sorted(rows.tolist()) == list(range(10))


def test_reading_loss_is_least_where_states_are_their_words() -> None:
    words = torch.nn.functional.normalize(torch.randn(30, 64), dim=-1)
    ids = torch.tensor([[0, 5, 7, 29, 29]])
    own = clip.reading_loss(words[ids] * 3, ids, words, end=29)
    alike = clip.reading_loss(torch.ones(1, 5, 64), ids, words, end=29)
    assert own < 0.1 < 1.0 < alike
    padded = torch.randn(1, 5, 64)
    padded[:, :3] = words[ids[:, :3]] * 3
    assert torch.allclose(clip.reading_loss(padded, ids, words, end=29), own)
