"""The scenes of LookBench: pictures to edit, with their words."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final

from customedit.metrics.lookbench.looks import PaintedLook
from customedit.mini.captions import thing
from customedit.mini.samples.recipe import SOURCE_RECIPES, source_scene
from customedit.mini.scenes import Scene, render, sample_scene
from customedit.mini.vocabulary import CLASSES
from customedit.prompt_syntax import article

FIRST_SEED: Final = 5_000_000
"""Seeds of the scenes that are drawn count from here; training's stay below a million."""

DRAWN: Final = 40
"""Scenes that are drawn; with the samples' 24 they are 64."""

TUNING: Final = 3
"""Further scenes, never scored, on which the best plain words are chosen."""

MATERIALS: Final = ("ceramic", "glossy", "matte")
SCALES: Final = (0.60, 0.64, 0.68)

MARGIN: Final = 2
"""Pixels between the thing and the picture's edge, at the least."""


@dataclass(frozen=True)
class Source:
    """A picture to edit, in words.

    name: tells it from others; noun: what the thing is; prompt: a true caption; look_prompt: the
    same picture wearing a look, with ``{look}`` where :attr:`Look.phrase` goes.
    """

    name: str
    noun: str
    prompt: str
    look_prompt: str

    def target_prompt(self, phrase: str) -> str:
        """The target prompt that paints what ``phrase`` says ("<plaid> patterned", "red dotted").

        "a {look} cup" becomes "an orange dotted cup" where the phrase wants it.
        """
        worded = self.look_prompt.replace("a {look}", article(phrase))
        return worded.replace("{look}", phrase)


@dataclass(frozen=True)
class PaintedSource(Source):
    """A picture to edit that the renderer paints: ``scene``."""

    scene: Scene


def wearing(scene: Scene, look: PaintedLook) -> Scene:
    """The right answer: ``scene`` with the pattern and the colours of ``look``, all else equal."""
    return dataclasses.replace(
        scene, pattern=look.pattern, colour=look.recipe.colour, second=look.recipe.second
    )


def worded(name: str, scene: Scene) -> PaintedSource:
    """``scene`` as a source, in the words that the samples have."""
    place = f"on {article(scene.table + ' table')} by {article(scene.wall + ' wall')}"
    # a plain thing's words are kept and the pattern's follow, which is the smallest change
    form = 1 if scene.pattern == "plain" else 2
    words = thing(scene, form, material=False)
    prompt, look_prompt = (f"a photo of {w} {place}" for w in (words, f"a {{look}} {scene.noun}"))
    return PaintedSource(name, scene.noun, prompt, look_prompt, scene)


def bundled() -> tuple[PaintedSource, ...]:
    """All 64 that are scored: the samples' 24 first."""
    of_samples = []
    for number in range(len(SOURCE_RECIPES)):
        scene = source_scene(number)
        of_samples.append(worded(f"{number:02d}-{scene.noun}", scene))
    return (*of_samples, *(drawn(len(of_samples) + k, k) for k in range(DRAWN)))


def tuning() -> tuple[PaintedSource, ...]:
    """The scenes on which plain words are chosen; none of them is ever scored."""
    return tuple(drawn(1000 + k, DRAWN + 3 * k) for k in range(TUNING))


def drawn(number: int, draw: int) -> PaintedSource:
    """The first scene of seeds from 100 ``draw`` on that serves as source ``number``."""
    noun = CLASSES[draw % len(CLASSES)]
    for seed in range(100):
        scene = sample_scene(
            FIRST_SEED + 100 * draw + seed,
            noun=noun,
            material=MATERIALS[draw % 3],
            scale=SCALES[draw % 3],
        )
        if serves(scene):
            return worded(f"{number:02d}-{noun}", scene)
    raise ValueError(f"no scene of draw {draw} serves")  # all draws in use are tested


def serves(scene: Scene) -> bool:
    """Whether the thing is apart from table and wall in colour, and wholly in the picture."""
    if {scene.colour, scene.second} & {scene.table, scene.wall}:
        return False
    covered = render(scene).alpha > 0
    edge = covered.copy()
    edge[MARGIN:-MARGIN, MARGIN:-MARGIN] = False
    return not edge.any()


def as_dict(source: Source) -> dict[str, str]:
    """The source's words as plain data."""
    return {
        "name": source.name,
        "noun": source.noun,
        "prompt": source.prompt,
        "look_prompt": source.look_prompt,
    }
