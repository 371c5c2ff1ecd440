"""Which samples there are: scenes of looks and sources, their words, crops of photographs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final

from customedit.mini.captions import thing
from customedit.mini.scenes import Scene, sample_scene
from customedit.mini.vocabulary import LOOKS
from customedit.prompt_syntax import article

FIRST_SEED: Final = 2_000_000
"""Seeds of the sources count from here, those of the looks from 100,000 on; training's stay below
a million."""

VIEWS: Final = 5
"""Reference images of a look."""

ATTRIBUTE: Final = "patterned"
"""The word before the noun in every look's prompts: one the base knows, unlike the look's name."""


@dataclass(frozen=True)
class LookRecipe:
    """On what a look is shown, and in which colours (lids, handles and spouts take the first)."""

    noun: str
    colour: str
    second: str
    material: str
    scale: float


LOOK_RECIPES: Final = {
    "plaid": LookRecipe("cup", "red", "white", "ceramic", 0.66),
    "terrazzo": LookRecipe("jug", "white", "gray", "matte", 0.68),
    "spiral": LookRecipe("vase", "blue", "white", "glossy", 0.70),
    "scales": LookRecipe("jar", "green", "yellow", "ceramic", 0.70),
    "gold cracks": LookRecipe("bowl", "black", "yellow", "glossy", 0.70),
    "painted flowers": LookRecipe("teapot", "red", "white", "ceramic", 0.60),
    "leopard": LookRecipe("bottle", "brown", "black", "glossy", 0.76),
    "waves": LookRecipe("ball", "blue", "white", "ceramic", 0.76),
}

PLACES: Final = (
    ("wooden", "white"), ("gray", "yellow"), ("white", "green"), ("blue", "orange"),
    ("wooden", "pink"), ("marble", "purple"), ("yellow", "blue"), ("black", "gray"),
    ("green", "white"), ("pink", "brown"), ("wooden", "green"), ("gray", "red"),
)  # fmt: skip
"""(table, wall) of the looks' views; a look takes five in which its own colours don't occur."""


def slug(name: str) -> str:
    """``name`` as the name of a folder or a token: "gold cracks" -> "gold-cracks"."""
    return name.replace(" ", "-")


def look_scenes(name: str) -> list[Scene]:
    """The views of one of the looks."""
    return views(name, LOOK_RECIPES[name], LOOKS.index(name))


def views(pattern: str, recipe: LookRecipe, number: int) -> list[Scene]:
    """The views of a look: the same kind of thing in other light, place and proportions.

    number: of the look, 0 or more; looks of other numbers are seen in other scenes.
    """
    own = {recipe.colour, recipe.second}
    start = number % len(PLACES)
    turned = PLACES[start:] + PLACES[:start]
    places = [place for place in turned if own.isdisjoint(place)][:VIEWS]
    scenes = [
        sample_scene(
            FIRST_SEED + 100_000 + 100 * number + view,
            noun=recipe.noun,
            pattern=pattern,
            colour=recipe.colour,
            second=recipe.second,
            material=recipe.material,
            table=table,
            wall=wall,
            scale=recipe.scale * (1.0, 0.92, 1.04, 0.96, 0.88)[view],
        )
        for view, (table, wall) in enumerate(places)
    ]
    # half as far from the middle as training goes: large as they are, none is cut by the edge
    return [dataclasses.replace(scene, x=0.25 + scene.x / 2) for scene in scenes]


@dataclass(frozen=True)
class SourceRecipe:
    """A picture to edit: the thing, the place, and what the plain edits make of the thing."""

    noun: str
    colour: str
    pattern: str
    second: str | None
    table: str
    wall: str
    new_colour: str
    new_pattern: str
    new_second: str


SOURCE_RECIPES: Final = tuple(
    SourceRecipe(*row)
    for row in (
        ("vase", "green", "plain", None, "wooden", "blue", "red", "striped", "white"),
        ("vase", "white", "plain", None, "gray", "green", "purple", "dotted", "red"),
        ("vase", "blue", "striped", "white", "wooden", "yellow", "red", "zigzag", "white"),
        ("cup", "white", "plain", None, "wooden", "blue", "red", "striped", "green"),
        ("cup", "yellow", "plain", None, "green", "gray", "blue", "dotted", "purple"),
        ("cup", "red", "dotted", "white", "wooden", "gray", "green", "checkered", "white"),
        ("bowl", "green", "plain", None, "white", "orange", "blue", "banded", "white"),
        ("bowl", "blue", "plain", None, "wooden", "yellow", "pink", "dotted", "white"),
        ("bowl", "white", "banded", "red", "wooden", "blue", "yellow", "striped", "red"),
        ("bottle", "green", "plain", None, "wooden", "white", "blue", "banded", "yellow"),
        ("bottle", "purple", "banded", "yellow", "white", "gray", "red", "striped", "yellow"),
        ("teapot", "white", "plain", None, "blue", "pink", "yellow", "dotted", "blue"),
        ("teapot", "orange", "plain", None, "wooden", "green", "white", "checkered", "black"),
        ("teapot", "blue", "plain", None, "white", "yellow", "red", "striped", "white"),
        ("jar", "blue", "plain", None, "marble", "brick", "yellow", "zigzag", "white"),
        ("jar", "yellow", "checkered", "black", "wooden", "purple", "white", "striped", "black"),
        ("jug", "pink", "plain", None, "wooden", "gray", "blue", "dotted", "white"),
        ("jug", "white", "striped", "blue", "brown", "yellow", "pink", "banded", "blue"),
        ("plate", "white", "plain", None, "wooden", "red", "blue", "dotted", "green"),
        ("plate", "blue", "plain", None, "pink", "white", "green", "checkered", "white"),
        ("ball", "red", "plain", None, "gray", "blue", "yellow", "checkered", "white"),
        ("ball", "yellow", "zigzag", "green", "wooden", "purple", "white", "striped", "green"),
        ("lamp", "orange", "plain", None, "brown", "blue", "green", "banded", "white"),
        ("lamp", "white", "plain", None, "wooden", "purple", "red", "striped", "blue"),
    )
)


def source_scene(number: int) -> Scene:
    """The scene of source ``number``; it is of a combination that training may show."""
    recipe = SOURCE_RECIPES[number]
    return sample_scene(
        FIRST_SEED + number,
        noun=recipe.noun,
        colour=recipe.colour,
        pattern=recipe.pattern,
        second=recipe.second,
        table=recipe.table,
        wall=recipe.wall,
        material=("ceramic", "glossy", "matte")[number % 3],
        scale=(0.60, 0.64, 0.68)[number % 3],
    )


def source_prompts(number: int) -> dict[str, str]:
    """The prompts of source ``number``, by the names they have in ``samples.Source``."""
    recipe, scene = SOURCE_RECIPES[number], source_scene(number)
    place = f"on {article(scene.table + ' table')} by {article(scene.wall + ' wall')}"
    # a plain thing's words are kept and the pattern's follow, which is the smallest change
    form = 1 if scene.pattern == "plain" else 2
    recoloured = dataclasses.replace(scene, colour=recipe.new_colour)
    patterned = dataclasses.replace(scene, pattern=recipe.new_pattern, second=recipe.new_second)
    worded = {
        "prompt": thing(scene, form, material=False),
        "look_prompt": f"a {{look}} {scene.noun}",
        "colour_prompt": thing(recoloured, form, material=False),
        "pattern_prompt": thing(patterned, form, material=False),
    }
    return {name: f"a photo of {words} {place}" for name, words in worded.items()}


@dataclass(frozen=True)
class PhotoRecipe:
    """A photograph of scikit-image's wheel, and what of it is kept.

    original: its function in ``skimage.data``; crop: left, top, right, bottom in its pixels.
    """

    original: str
    crop: tuple[int, int, int, int]
    noun: str | None
    prompt: str
    look_prompt: str | None


PHOTO_RECIPES: Final = {
    "coffee": PhotoRecipe(
        "coffee",
        (70, 0, 470, 400),
        "cup",
        "a photo of a red cup on a wooden table",
        "a photo of a {look} cup on a wooden table",
    ),
    "cat": PhotoRecipe("chelsea", (110, 0, 410, 300), None, "a photo of a cat", None),
    "rocket": PhotoRecipe("rocket", (107, 0, 534, 427), None, "a photo of a rocket", None),
}
