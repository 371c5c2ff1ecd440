"""What the bundled base's small world knows: the words, their colours, and which are kept apart.

Everything here is data. The renderer paints from it, the captions are worded from it, and the
CLI, the API and the page tell people from it what the bundled base can draw (:func:`as_dict`) and
warn of words it has never seen (:func:`unknown_words`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from customedit import prompt_syntax

RGB = tuple[float, float, float]

CLASSES: Final[tuple[str, ...]] = (
    "vase", "cup", "bowl", "bottle", "teapot", "jar", "jug", "plate", "ball", "lamp",
)  # fmt: skip
"""Class nouns: the solid things that can stand on the table."""

COLOURS: Final[Mapping[str, RGB]] = MappingProxyType(
    {
        "red": (0.84, 0.11, 0.12),
        "orange": (0.96, 0.50, 0.06),
        "yellow": (0.97, 0.86, 0.18),
        "green": (0.13, 0.58, 0.22),
        "blue": (0.12, 0.30, 0.84),
        "purple": (0.50, 0.18, 0.66),
        "pink": (0.97, 0.57, 0.72),
        "brown": (0.40, 0.24, 0.12),
        "black": (0.07, 0.07, 0.08),
        "white": (0.95, 0.95, 0.94),
        "gray": (0.50, 0.50, 0.51),
    }
)
"""Colour words with their reflectance, linear in displayed RGB, each channel in [0, 1]."""

PATTERNS: Final[tuple[str, ...]] = (
    "plain", "striped", "banded", "dotted", "checkered", "zigzag",
)  # fmt: skip
"""Patterns the base is trained on. Stripes run up the body, bands run round it."""

ANY_PATTERN: Final = "patterned"
"""The word for any pattern: a third of the training scenes wear one drawn at random, of two to four
colours. The patterns that have a name of their own are called so, too, now and then."""

LOOKS: Final[tuple[str, ...]] = (
    "plaid", "terrazzo", "spiral", "scales", "gold cracks", "painted flowers", "leopard", "waves",
)  # fmt: skip
"""Looks that no training scene and no training caption ever shows: they are there to be learned."""

MATERIALS: Final[tuple[str, ...]] = ("ceramic", "glossy", "matte", "metal", "wooden")
"""What the thing is made of. ``wooden`` shows its grain, ``metal`` mirrors a bright band."""

TABLE_MATERIALS: Final[tuple[str, ...]] = ("wooden", "marble")
WALL_MATERIALS: Final[tuple[str, ...]] = ("brick",)

PHOTO_WORDS: Final[tuple[str, ...]] = ("photo", "picture", "image", "close", "up", "far", "away")
GLUE_WORDS: Final[tuple[str, ...]] = (
    "a", "an", "the", "of", "on", "by", "with", "in", "and", "against", "front", "standing",
    "table", "wall", "patterned", "stripes", "bands", "dots", "checks", "zigzags", "pattern",
    "very", "small", "zoomed",
)  # fmt: skip


def words() -> frozenset[str]:
    """Every word a training caption can hold (lower case, no punctuation)."""
    return frozenset(
        (*CLASSES, *COLOURS, *PATTERNS, *MATERIALS, *TABLE_MATERIALS, *WALL_MATERIALS,
         *PHOTO_WORDS, *GLUE_WORDS)
    )  # fmt: skip


def unknown_words(prompt: str) -> list[str]:
    """The words of ``prompt`` that no training caption holds, in order, without repeats.

    Concept tokens (``<teapot>``) are not words and are left out.
    """
    return prompt_syntax.unknown_words(prompt, words())


def as_dict() -> dict[str, Any]:
    """The vocabulary as plain data, for JSON: what the bundled base can draw."""
    return {
        "classes": list(CLASSES),
        "colours": {
            name: "#{:02x}{:02x}{:02x}".format(*(round(255 * c) for c in rgb))
            for name, rgb in COLOURS.items()
        },
        "patterns": list(PATTERNS),
        "materials": list(MATERIALS),
        "places": {
            "table": [*COLOURS, *TABLE_MATERIALS],
            "wall": [*COLOURS, *WALL_MATERIALS],
        },
        "words": sorted(words()),
        "looks_kept_out": list(LOOKS),
        "examples": [
            "a photo of a cup",
            "a photo of a red vase on a wooden table by a blue wall",
            "a photo of a glossy cup striped in red and white on a white table by a gray wall",
        ],
    }
