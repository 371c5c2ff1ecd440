"""Whether references show what their noun says: zero-shot, by the CLIP that knows the base."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from PIL import Image

from customedit.diffusion.profile import Profile
from customedit.metrics.similarity import Similarity

SURE: Final = 2.0
"""How many times as likely as the given noun another must be before anything is said."""

TEMPERATURE: Final = 100.0
"""Factor on cosines before the softmax over nouns, as CLIP's own zero-shot classifier has it."""


def shown_nouns(
    judge: Similarity, references: Sequence[Image.Image], nouns: Sequence[str], profile: Profile
) -> list[tuple[str, float]]:
    """Of each reference the most likely noun, and how many times as likely as the given one.

    nouns: what each reference is said to show. Looked at are these and those of the profile; 1 if
    the given noun itself is the most likely.
    """
    known = list(dict.fromkeys([*nouns, *profile.nouns]))
    texts = judge.texts([profile.class_prompt(noun) for noun in known])
    chances = (judge.images(references) @ texts.T * TEMPERATURE).softmax(1)
    best = chances.argmax(1).tolist()
    return [
        (known[top], float(row[top] / row[known.index(noun)].clamp(min=1e-12)))
        for row, top, noun in zip(chances, best, nouns, strict=True)
    ]


def noun_warnings(
    judge: Similarity, references: Sequence[Image.Image], nouns: Sequence[str], profile: Profile
) -> list[str]:
    """A warning for each noun that at least half of its references do not seem to show."""
    found = shown_nouns(judge, references, nouns, profile)
    warnings = []
    for noun in dict.fromkeys(nouns):
        seen = [shown for shown, named in zip(found, nouns, strict=True) if named == noun]
        others = [other for other, times in seen if other != noun and times >= SURE]
        if len(others) * 2 >= len(seen) and others:
            likely = max(dict.fromkeys(others), key=others.count)
            warnings.append(
                f"{len(others)} of {len(seen)} references said to show {noun!r} look like "
                f"{likely!r}: a wrong noun makes the look leak; name what they show"
            )
    return warnings
