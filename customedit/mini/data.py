"""Training scenes on disk: rendered once in shards, by as many processes as there are cores.

A shard is ``images-00042.npy`` (uint8 [n, side, side, 3]), ``masks-00042.npy`` (float32
[n, 16, 16], the thing's share of each cell) and ``scenes-00042.json``. A shard that exists is kept,
so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from customedit.mini.loop import check_time
from customedit.mini.scenes import SIZE, Scene, render, training_scene

SHARD = 1000
"""Scenes in a shard."""

CELLS = 16
"""Side of the stored masks: latent cells of a small picture, and what words are grounded at."""


def coarse(alpha: NDArray[np.float32]) -> NDArray[np.float32]:
    """[side, side] coverage to its mean per cell, [CELLS, CELLS]."""
    step = len(alpha) // CELLS
    return alpha.reshape(CELLS, step, CELLS, step).mean((1, 3))


def shrink(images: NDArray[np.uint8], side: int = SIZE) -> NDArray[np.uint8]:
    """Images [n, k side, k side, 3] averaged down to [n, side, side, 3]."""
    times = images.shape[1] // side
    if times == 1:
        return images
    blocks = images.reshape(len(images), side, times, side, times, 3)
    return (blocks.mean((2, 4)) + 0.5).astype(np.uint8)


def render_shard(folder: Path, number: int, side: int = SIZE) -> None:
    """Render scenes ``number * SHARD ...`` into ``folder``; does nothing if they are there."""
    if (folder / f"scenes-{number:05d}.json").exists():
        return
    images = np.empty((SHARD, side, side, 3), np.uint8)
    masks = np.empty((SHARD, CELLS, CELLS), np.float32)
    scenes = [training_scene(number * SHARD + k) for k in range(SHARD)]
    for k, scene in enumerate(scenes):
        picture = render(scene, side)
        images[k], masks[k] = picture.image, coarse(picture.alpha)
    np.save(folder / f"images-{number:05d}.npy", images)
    np.save(folder / f"masks-{number:05d}.npy", masks)
    note = folder / f"scenes-{number:05d}.json"
    part = note.with_suffix(".part")
    part.write_text(json.dumps([s.as_dict() for s in scenes]))
    part.rename(note)  # last, whole: its presence says that the shard is complete


def _render_shard(job: tuple[Path, int, int]) -> None:
    render_shard(*job)


def render_shards(
    folder: Path, count: int, side: int = SIZE, *, deadline: float | None = None
) -> None:
    """Render ``count`` shards into ``folder`` (made if missing), by a process for each core.

    Raises TimeUp when ``deadline`` has come (see :class:`customedit.mini.loop.Run`).
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [k for k in range(count) if not (folder / f"scenes-{k:05d}.json").exists()]
    if not missing:
        return
    with multiprocessing.get_context("spawn").Pool(min(os.cpu_count() or 1, len(missing))) as pool:
        jobs = [(folder, k, side) for k in missing]
        for done, _ in enumerate(pool.imap_unordered(_render_shard, jobs), 1):
            if done < len(missing):
                check_time(deadline, f"scenes: {len(missing) - done} shards are left")


class Shards:
    """The shards of a folder as one sequence of scenes. Images are memory-mapped, not read."""

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        notes = sorted(folder.glob("scenes-*.json"))[:limit]
        if not notes:
            raise FileNotFoundError(f"no rendered scenes in {folder}; run the 'scenes' stage first")
        self.images: list[NDArray[np.uint8]] = []
        self.masks: list[NDArray[np.float32]] = []
        self.scenes: list[Scene] = []
        for note in notes:
            number = note.stem.split("-")[1]
            self.images.append(np.load(folder / f"images-{number}.npy", mmap_mode="r"))
            self.masks.append(np.load(folder / f"masks-{number}.npy"))
            self.scenes += [Scene(**s) for s in json.loads(note.read_text())]

    def __len__(self) -> int:
        return len(self.scenes)

    @property
    def side(self) -> int:
        """Of the images, in pixels."""
        return int(self.images[0].shape[1])

    def image(self, index: int) -> NDArray[np.uint8]:
        """uint8 [side, side, 3]."""
        return self.images[index // SHARD][index % SHARD]

    def batch(self, indices: NDArray[np.intp]) -> NDArray[np.uint8]:
        """uint8 [len(indices), side, side, 3]."""
        return np.stack([self.image(int(i)) for i in indices])

    def small_batch(self, indices: NDArray[np.intp]) -> NDArray[np.uint8]:
        """uint8 [len(indices), SIZE, SIZE, 3]: larger images are averaged down."""
        return shrink(self.batch(indices))

    def mask(self, index: int) -> NDArray[np.float32]:
        """float32 [CELLS, CELLS] in [0, 1]."""
        return self.masks[index // SHARD][index % SHARD]
