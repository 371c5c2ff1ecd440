"""What pictures show, read from their pixels, beside what their prompts asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from customedit.mini import colours
from customedit.mini import judge as eye
from customedit.mini.figures import Row, averaged, counted
from customedit.mini.prompts import Prompt


def readings(
    judge: eye.Judge, images: NDArray[np.uint8], prompts: Sequence[Prompt]
) -> list[dict[str, Any]]:
    """What each picture shows, beside what its prompt asked, and which of it is right."""
    verdict = eye.verdict(judge, images)
    entries = []
    for k, prompt in enumerate(prompts):
        scene, mask = prompt.scene, verdict.masks[k]
        shares = colours.thing_colours(images[k], mask)
        wall, table = colours.place_colours(images[k], mask)
        colour = next(iter(shares), None)
        named = {scene.colour, scene.second} if scene.pattern == "checkered" else {scene.colour}
        right = {
            "colour": colour in named,
            "wall": wall == scene.wall,
            "table": table == scene.table,
            "class": bool(shares) and verdict.nouns[k] == scene.noun,
            "pattern": bool(shares) and verdict.patterns[k] == scene.pattern,
        }
        entries.append(
            {
                "prompt": prompt.text,
                "seed": scene.seed,
                "seen": {
                    "colour": colour,
                    "share": round(shares[colour], 3) if colour else 0.0,
                    "wall": wall,
                    "table": table,
                    "class": verdict.nouns[k],
                    "pattern": verdict.patterns[k],
                },
                "right": right,
            }
        )
    return entries


LEAST: Final = 0.04
"""Each colour that a prompt names for a pattern must cover at least this share of the thing."""


def patterned_rows(
    judge: eye.Judge, images: NDArray[np.uint8], prompts: Sequence[Prompt], where: str
) -> list[Row]:
    """Of pictures [n, 128, 128, 3] of things in any pattern: whether one is seen, in which colours.

    A judge that was trained on named patterns alone names one of those.
    """
    verdict = eye.verdict(judge, images)
    seen = [pattern != "plain" for pattern in verdict.patterns]
    nouns = [noun == p.scene.noun for noun, p in zip(verdict.nouns, prompts, strict=True)]
    whole, shares = [], []
    for image, mask, prompt in zip(images, verdict.masks, prompts, strict=True):
        colour_shares, named = colours.thing_colours(image, mask), prompt.scene.colours
        whole.append(all(colour_shares.get(c, 0) >= LEAST for c in named))
        shares.append(sum(colour_shares.get(c, 0) for c in named))
    return [
        counted(f"any pattern: one is seen, {where}", seen, None, "the judge's is not plain"),
        counted(f"any pattern: class right, {where}", nouns, None, "the judge's class"),
        counted(f"any pattern: every colour is there, {where}", whole, None,
                f"each of the two to four named ones on {LEAST:.0%} of the judge's mask"),
        averaged(f"any pattern: pixels in its colours, {where}", shares, None,
                 "share of the judge's mask in the named colours"),
    ]  # fmt: skip


def colour_rows(entries: list[dict[str, Any]], where: str, bar: float) -> list[Row]:
    """Of :func:`readings`, the rows of colours: the thing's, the places' together and each."""
    thing = (
        "palette colour of most pixels in the judge's mask is the (first) named one; of a "
        "checkered thing either named colour counts; no thing is wrong"
    )
    place = "palette colour nearest to the median pixel away from the judge's mask"
    right = [f["right"] for f in entries]
    return [
        counted(f"object colour right, {where}", [r["colour"] for r in right], bar, thing),
        counted(f"wall and table colour right, {where}",
                [r["wall"] and r["table"] for r in right], bar, f"{place}; both must be right"),
        counted(f"wall colour right, {where}", [r["wall"] for r in right], bar,
                f"{place}, upper {colours.WALL_BELOW:.0%} of the rows"),
        counted(f"table colour right, {where}", [r["table"] for r in right], bar,
                f"{place}, lower {1 - colours.TABLE_ABOVE:.0%} of the rows"),
    ]  # fmt: skip
