"""The looks of LookBench: what is painted on the references and on the right answers.

Eight looks that the bundled base has never seen are the samples' own; eight more wear the same
patterns in other colours or on other things. Looks of another's making come from a JSON file, as a
pattern of the renderer or as a picture that is laid round the thing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from customedit import images
from customedit.errors import InputError
from customedit.mini import patterns
from customedit.mini.samples.recipe import ATTRIBUTE, LOOK_RECIPES, LookRecipe, slug
from customedit.mini.vocabulary import CLASSES, COLOURS, LOOKS, MATERIALS, PATTERNS


@dataclass(frozen=True)
class Look:
    """A look to learn from references, and the words that come nearest to it without.

    name: tells it from others; family: looks of one family count as one unit when intervals are
    taken over looks; noun: what the references show; attribute: the word that says what of them to
    learn; token: the concept's name; words: phrases that stand before a noun and need no concept,
    of which the best is what a taught look is compared with.
    """

    name: str
    family: str
    noun: str
    attribute: str
    token: str
    words: tuple[str, ...]

    @property
    def phrase(self) -> str:
        """What stands before a noun to call the look: "<plaid> patterned"."""
        return f"{self.token} {self.attribute}".rstrip()

    @property
    def slug(self) -> str:
        """The name as a folder's."""
        return slug(self.name)


@dataclass(frozen=True)
class PaintedLook(Look):
    """A look that the renderer can paint.

    pattern: a name in ``patterns.PAINTS``; recipe: what the references show, and the colours;
    number: decides the references' scenes.
    """

    pattern: str
    recipe: LookRecipe
    number: int


WORDS: Final[dict[str, tuple[str, ...]]] = {
    "plaid": ("red and white checkered", "red and yellow checkered", "red and white zigzag"),
    "terrazzo": ("white and red dotted", "white and black dotted", "white and blue checkered"),
    "spiral": ("blue and white striped", "blue and white zigzag", "blue and white banded"),
    "scales": ("green and yellow dotted", "green and yellow checkered", "green and yellow zigzag"),
    "gold cracks": ("black and yellow checkered", "black and yellow zigzag", "black and brown "
                    "checkered"),
    "painted flowers": ("white and red dotted", "white and red checkered", "white and pink dotted"),
    "leopard": ("brown and black dotted", "yellow and black dotted", "yellow and brown dotted"),
    "waves": ("white and blue banded", "blue and white dotted", "white and blue zigzag"),
    "green plaid": ("green and white checkered", "green and yellow checkered", "green and white "
                    "zigzag"),
    "purple spiral": ("purple and yellow striped", "purple and yellow zigzag", "purple and yellow "
                      "banded"),
    "blue scales": ("blue and pink dotted", "blue and pink checkered", "blue and pink zigzag"),
    "purple flowers": ("white and purple dotted", "white and purple checkered", "white and pink "
                       "dotted"),
}  # fmt: skip
"""The wordings nearest to each look among what the base can draw, tried beside "patterned"."""

MORE: Final = {
    "green plaid": ("plaid", LookRecipe("jar", "green", "white", "glossy", 0.70)),
    "terrazzo on black": ("terrazzo", LookRecipe("cup", "black", "white", "ceramic", 0.66)),
    "purple spiral": ("spiral", LookRecipe("bottle", "purple", "yellow", "ceramic", 0.76)),
    "blue scales": ("scales", LookRecipe("bowl", "blue", "pink", "glossy", 0.70)),
    "gold cracks on blue": ("gold cracks", LookRecipe("vase", "blue", "yellow", "matte", 0.70)),
    "purple flowers": ("painted flowers", LookRecipe("jug", "purple", "white", "glossy", 0.68)),
    "leopard on red": ("leopard", LookRecipe("teapot", "red", "black", "ceramic", 0.60)),
    "waves on white": ("waves", LookRecipe("cup", "white", "blue", "glossy", 0.66)),
}
"""Names of the further looks to their pattern and recipe. Four patterns have colours of their own:
there the recipe's first colour is that of handles, lids and spouts."""


def painted(name: str, pattern: str, recipe: LookRecipe, number: int) -> PaintedLook:
    """The look ``name`` with the bundled words of it, or else of its pattern."""
    words = (*WORDS.get(name, WORDS[pattern]), ATTRIBUTE)
    token = f"<{slug(name)}>"
    return PaintedLook(name, pattern, recipe.noun, ATTRIBUTE, token, words, pattern, recipe, number)


def bundled() -> tuple[PaintedLook, ...]:
    """All 16: the samples' eight first."""
    of_samples = [(name, name, LOOK_RECIPES[name]) for name in LOOKS]
    more = [(name, pattern, recipe) for name, (pattern, recipe) in MORE.items()]
    return tuple(painted(*entry, number) for number, entry in enumerate([*of_samples, *more]))


class LookEntry(BaseModel):
    """A look in a JSON file; see docs/lookbench.md."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9 _-]{0,40}$")
    pattern: str | None = None
    texture: Path | None = None
    repeat: int = Field(default=4, ge=1, le=32)
    noun: str = "cup"
    colour: str
    second: str | None = None
    material: str = "ceramic"
    scale: float = Field(default=0.66, ge=0.4, le=0.8)
    attribute: str = ATTRIBUTE
    words: tuple[str, ...] = ()


class LooksFile(BaseModel):
    """The file as a whole."""

    model_config = ConfigDict(extra="forbid")

    looks: list[LookEntry] = Field(min_length=1)


def read(path: Path) -> tuple[PaintedLook, ...]:
    """The looks that a JSON file describes.

    Raises InputError for a file that cannot be read or holds what the renderer does not know,
    naming the field.
    """
    try:
        file = LooksFile.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(
            "bench", f"{path} cannot be read ({error.strerror})", "correct the path"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        problem = f"{path}: {where}: {first['msg']}"
        raise InputError("bench", problem, "see docs/lookbench.md") from error
    except ValueError as error:
        raise InputError(
            "bench", f"{path} is not JSON ({error})", "see docs/lookbench.md"
        ) from error
    names = [slug(entry.name) for entry in file.looks]
    if len(set(names)) < len(names):
        raise InputError("bench", f"{path} names a look twice", "give each its own name")
    taken = len(bundled())  # numbers of the bundled looks
    return tuple(_of(entry, path.parent, taken + k) for k, entry in enumerate(file.looks))


def _of(entry: LookEntry, folder: Path, number: int) -> PaintedLook:
    def one_of(field: str, value: str, known: tuple[str, ...]) -> str:
        if value not in known:
            problem = f"{entry.name}: {field} {value!r} is unknown"
            raise InputError("bench", problem, f"take one of {', '.join(known)}")
        return value

    colours = tuple(COLOURS)
    colour = one_of("colour", entry.colour, colours)
    second = one_of("second", entry.second, colours) if entry.second else None
    noun = one_of("noun", entry.noun, CLASSES)
    material = one_of("material", entry.material, tuple(m for m in MATERIALS if m != "wooden"))
    if (entry.pattern is None) == (entry.texture is None):
        raise InputError("bench", f"{entry.name}: give either pattern or texture")
    if entry.texture is not None:
        tile = images.read(folder / entry.texture, field=f"bench: {entry.name}: texture").image
        pattern = patterns.add_texture(np.asarray(tile), entry.repeat)
        family = entry.name
    else:
        pattern = family = one_of("pattern", str(entry.pattern), tuple(patterns.PAINTS))
    # a thing of one colour has no second; the recipe wants two, which are kept off table and wall
    recipe = LookRecipe(noun, colour, second or colour, material, entry.scale)
    words = (*(entry.words or _plain_words(colour, second)), entry.attribute)
    words = tuple(dict.fromkeys(w for w in words if w))
    token = f"<{slug(entry.name)}>"
    return PaintedLook(
        entry.name, family, noun, entry.attribute, token, words, pattern, recipe, number
    )


def _plain_words(colour: str, second: str | None) -> tuple[str, ...]:
    """Wordings of a look about which only its colours are known: every pattern of the base."""
    if second is None or second == colour:
        return (colour,)
    return tuple(f"{colour} and {second} {pattern}" for pattern in PATTERNS[1:])


def as_dict(look: Look) -> dict[str, Any]:
    """The look's words as plain data, without what the renderer needs."""
    return {
        "name": look.name,
        "family": look.family,
        "noun": look.noun,
        "attribute": look.attribute,
        "token": look.token,
        "words": list(look.words),
    }
