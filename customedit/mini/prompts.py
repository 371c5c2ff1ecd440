"""The fixed prompts and pictures that the bundled base is measured on. None is in its training."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from customedit.mini import captions
from customedit.mini.scenes import Scene, patterned_scene, sample_scene
from customedit.mini.vocabulary import COLOURS, LOOKS

PROMPTS_SEED: Final = 3_000_000
VAE_SEED: Final = 3_100_000
JUDGE_SEED: Final = 3_200_000
ATTENTION_SEED: Final = 3_300_000
LOOKS_SEED: Final = 3_400_000
PATTERNED_SEED: Final = 3_500_000
"""First seeds of what is measured; training's start at 0 and stay below a million."""

FORMS: Final = 3
"""Caption forms in turn: these three word the pattern and both its colours."""


@dataclass(frozen=True)
class Prompt:
    """A prompt, and a scene of which it is the full caption."""

    text: str
    scene: Scene


def _readable(scene: Scene) -> bool:
    """Whether the caption names all three colours, and the thing differs from wall and table."""
    return (
        scene.material != "wooden"
        and scene.wall in COLOURS
        and scene.table in COLOURS
        and scene.colour not in (scene.wall, scene.table)
    )


def fixed_prompts(count: int = 256) -> list[Prompt]:
    """The first ``count`` of the fixed list: distinct full captions of held-out combinations.

    Always the same, and a longer list begins with the shorter one. Every prompt names the colours
    of thing, wall and table (so no wood, brick or marble) and, if there is a pattern, that and its
    second colour.
    """
    found: dict[str, Prompt] = {}
    for seed in itertools.count(PROMPTS_SEED):
        scene = sample_scene(seed, held_out=True)
        if _readable(scene):
            text = captions.full(scene, len(found) % FORMS)
            found.setdefault(text, Prompt(text, scene))
        if len(found) >= count:
            return list(found.values())
    raise AssertionError("seeds do not end")


def patterned_prompts(count: int = 64) -> list[Prompt]:
    """``count`` fixed prompts for any pattern in the colours that they name, all of new seeds."""
    scenes = (patterned_scene(seed) for seed in itertools.count(PATTERNED_SEED))
    clear = (s for s in scenes if _readable(s) and not {s.wall, s.table} & {*s.colours})
    return [
        Prompt(captions.full(scene, k % FORMS), scene)
        for k, scene in enumerate(itertools.islice(clear, count))
    ]


def unseen_scenes(count: int, first_seed: int) -> Iterator[Scene]:
    """Scenes of new seeds, by turns of a combination that training shows and of a held-out one."""
    for k in range(count):
        yield sample_scene(first_seed + k, held_out=k % 2 == 1)


def looks(count: int, first_seed: int) -> Iterator[Scene]:
    """Scenes that show the looks kept out of training, each in turn."""
    for k in range(count):
        yield sample_scene(first_seed + k, pattern=LOOKS[k % len(LOOKS)])
