"""Scenes in the words people would type.

A caption never says what the picture does not show, but may leave anything out except the noun.
Prepositions come before what they tie ("on a blue table", "by a red wall"), so that a text encoder
that reads left to right knows what a colour belongs to when it meets it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from customedit.mini.scenes import Scene
from customedit.mini.vocabulary import ANY_PATTERN
from customedit.prompt_syntax import article

_PREFIXES = ("a photo of ", "a photo of ", "photo of ", "a picture of ", "an image of ", "")
_WALL = ("by", "by", "against", "in front of")
_NOUNED = {
    "striped": "stripes", "banded": "bands", "dotted": "dots", "checkered": "checks",
    "zigzag": "zigzags",
}  # fmt: skip


def thing(scene: Scene, form: int, *, colour: bool = True, material: bool = True) -> str:
    """The thing in words. ``form`` 0..4 picks how a pattern is worded; parts can be left out."""
    stuff = [scene.material] if material and scene.material != "wooden" else []
    if scene.material == "wooden":
        stuff = ["wooden"] if material else []
    first = [scene.colour] if colour else []
    if scene.pattern == ANY_PATTERN:
        return _in_any_pattern(scene, form, " ".join(stuff), colour)
    if scene.pattern not in _NOUNED:  # plain, or a look that has no word here
        worded = [] if scene.pattern == "plain" and form != 3 else ["patterned"]
        if scene.pattern == "plain" and form == 3:
            worded = ["plain"]
        return article(" ".join([*stuff, *worded, *first, scene.noun]))
    if not colour:
        word = "patterned" if form == 4 else scene.pattern
        return article(" ".join([*stuff, word, scene.noun]))
    both = f"{scene.colour} and {scene.second}"
    if form == 0:
        return article(" ".join([*stuff, scene.noun, scene.pattern, "in", both]))
    if form == 1:
        noun = article(" ".join([*stuff, scene.colour, scene.noun]))
        return f"{noun} with {scene.second} {_NOUNED[scene.pattern]}"
    if form == 2:
        return article(" ".join([*stuff, both, scene.pattern, scene.noun]))
    if form == 3:
        return article(" ".join([*stuff, scene.colour, scene.pattern, scene.noun]))
    return article(" ".join([*stuff, scene.colour, "patterned", scene.noun]))


def _listed(colours: Sequence[str]) -> str:
    """Colours as one says them: "red", "red and white", "red, white and blue"."""
    return " and ".join([*filter(None, [", ".join(colours[:-1])]), colours[-1]])


def _in_any_pattern(scene: Scene, form: int, stuff: str, colour: bool) -> str:
    """A thing in a random pattern: always "patterned" or "pattern", with its colours or without."""
    noun = f"{stuff} {scene.noun}".strip()
    stuff = f"{stuff} ".lstrip()
    if not colour:
        return article(f"{stuff}{ANY_PATTERN} {scene.noun}")
    if form == 0:
        return article(f"{noun} {ANY_PATTERN} in {_listed(scene.colours)}")
    if form == 1:
        coloured = article(f"{stuff}{scene.colour} {scene.noun}")
        return f"{coloured} with {article(_listed(scene.colours[1:]))} pattern"
    if form == 2:
        return article(f"{stuff}{_listed(scene.colours)} {ANY_PATTERN} {scene.noun}")
    if form == 3:
        return article(f"{stuff}{ANY_PATTERN} {scene.colour} {scene.noun}")
    return article(f"{stuff}{scene.colour} {ANY_PATTERN} {scene.noun}")


def full(scene: Scene, form: int = 0) -> str:
    """The caption that leaves nothing out: "a photo of a THING on a TABLE by a WALL"."""
    return (
        f"a photo of {thing(scene, form)} on {article(scene.table + ' table')} "
        f"by {article(scene.wall + ' wall')}"
    )


def describe(scene: Scene, rng: np.random.Generator) -> str:
    """A random true caption of ``scene``, from "a photo of a cup" to the full sentence."""
    prefix = str(rng.choice(_PREFIXES))
    relative = scene.scale / 0.64
    distance = "far" if relative < 0.87 else "close" if relative > 1.04 else ""
    distance = scene.framing or (distance if distance and rng.random() < 0.25 else "")
    if distance == "far":
        prefix = str(rng.choice(["a far away photo of ", "a photo of a very small "]))
    elif distance == "close":
        prefix = str(rng.choice(["a close up photo of ", "a zoomed in photo of "]))
    form = int(rng.choice(5, p=[0.28, 0.24, 0.24, 0.14, 0.10]))
    words = thing(scene, form, colour=bool(rng.random() < 0.85), material=bool(rng.random() < 0.5))
    if prefix.endswith("very small "):
        words = words.split(" ", 1)[1]
    if rng.random() < 0.72:
        words += f" on {article(scene.table + ' table')}"
    if rng.random() < 0.72:
        words += f" {rng.choice(_WALL)} {article(scene.wall + ' wall')}"
    return prefix + words
