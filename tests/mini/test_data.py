from pathlib import Path

import numpy as np
import pytest

from customedit.mini import data
from customedit.mini.scenes import render, sample_scene, training_scene


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "SHARD", 3)


def test_shards_hold_the_scenes_of_their_seeds(tmp_path: Path) -> None:
    for number in (0, 1):
        data.render_shard(tmp_path, number)
    shards = data.Shards(tmp_path)
    assert len(shards) == 6
    for index in range(6):
        scene = training_scene(index)
        picture = render(scene)
        assert shards.scenes[index] == scene
        np.testing.assert_array_equal(shards.image(index), picture.image)
        np.testing.assert_array_equal(shards.mask(index), data.coarse(picture.alpha))
    batch = shards.batch(np.array([5, 0, 5]))
    np.testing.assert_array_equal(batch, [shards.image(5), shards.image(0), shards.image(5)])
    assert len(data.Shards(tmp_path, limit=1)) == 3


def test_a_shard_that_is_there_is_kept(tmp_path: Path) -> None:
    data.render_shard(tmp_path, 0)
    sentinel = np.zeros((3, 2, 2, 3), np.uint8)
    np.save(tmp_path / "images-00000.npy", sentinel)
    data.render_shard(tmp_path, 0)
    np.testing.assert_array_equal(np.load(tmp_path / "images-00000.npy"), sentinel)


def test_a_shard_that_was_interrupted_is_rendered_again(tmp_path: Path) -> None:
    data.render_shard(tmp_path, 0)
    whole = np.load(tmp_path / "images-00000.npy")
    (tmp_path / "scenes-00000.json").rename(tmp_path / "scenes-00000.part")
    np.save(tmp_path / "images-00000.npy", whole[:1])
    with pytest.raises(FileNotFoundError):
        data.Shards(tmp_path)
    data.render_shard(tmp_path, 0)
    np.testing.assert_array_equal(data.Shards(tmp_path).batch(np.arange(3)), whole)
    assert not list(tmp_path.glob("*.part"))


def test_a_folder_without_shards_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="run the 'scenes' stage first"):
        data.Shards(tmp_path)


def test_larger_images_are_averaged_down() -> None:
    images = np.zeros((2, 256, 256, 3), np.uint8)
    images[:, ::2, :, 0] = 200
    images[1, :128] = 50
    small = data.shrink(images)
    assert small.shape == (2, 128, 128, 3)
    assert (small[0, ..., 0] == 100).all() and (small[0, ..., 1:] == 0).all()
    assert (small[1, :64] == 50).all()
    assert data.shrink(small) is small


def test_coarse_keeps_the_mean() -> None:
    alpha = render(sample_scene(3)).alpha
    cells = data.coarse(alpha)
    assert cells.shape == (data.CELLS, data.CELLS)
    assert cells.min() >= 0 and cells.max() <= 1
    np.testing.assert_allclose(cells.mean(), alpha.mean(), rtol=1e-5)
