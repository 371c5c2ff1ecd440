"""Prompts as words: found, compared without punctuation, aligned, and which can be a noun.

Words are split at white space. What English is needed is in closed lists, short on purpose: what is
on none of them counts as a noun. Imports no torch, so that requests can be checked where there is
none.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Hashable, Sequence
from typing import Final

from customedit.errors import InputError

GAP, MATCH, MISMATCH = 0, 1, -1
"""Scores of the alignment, Prompt-to-Prompt's."""

_EDGES: Final = re.compile(r"^[^\w<]+|[^\w>]+$")  # <plaid> is a word with its brackets


_LEFT: Final = 1  # the target's item is inserted
_UP: Final = 2  # the source's item is left out
_DIAGONAL: Final = 3


def align(source: Sequence[Hashable], target: Sequence[Hashable]) -> list[tuple[int, int]]:
    """Pairs (source position, target position) of an optimal Needleman-Wunsch alignment, ascending.

    source, target: words or token ids. Scores are GAP, MATCH and MISMATCH; among equals the move
    left is preferred, then up: of two equal items the earlier is taken. With these scores a
    mismatch never pays, so the two items of a pair are equal.
    """
    moves = _moves(source, target)
    i, j = len(source), len(target)
    pairs = []
    while i > 0 and j > 0:
        move = moves[i][j]
        if move == _DIAGONAL:
            pairs.append((i - 1, j - 1))
        i -= move != _LEFT
        j -= move != _UP
    return pairs[::-1]


def _moves(source: Sequence[Hashable], target: Sequence[Hashable]) -> list[list[int]]:
    """The best last move at each (source items read, target items read); the edges are unread."""
    above = [GAP * j for j in range(len(target) + 1)]
    moves = [[_LEFT] * len(above)]
    for i, item in enumerate(source, 1):
        last = GAP * i
        row, taken = [last], [_UP]
        for other, corner, over in zip(target, above, above[1:], strict=False):
            left, up = last + GAP, over + GAP
            diagonal = corner + (MATCH if item == other else MISMATCH)
            if left >= up and left >= diagonal:
                last, move = left, _LEFT
            elif up >= diagonal:
                last, move = up, _UP
            else:
                last, move = diagonal, _DIAGONAL
            row.append(last)
            taken.append(move)
        moves.append(taken)
        above = row
    return moves


def find(prompt_words: Sequence[str], word: str, *, field: str = "prompt") -> list[int]:
    """Positions of ``word`` among ``prompt_words``, ascending; case and attached punctuation aside.

    ``<cat>`` (a concept) and ``cat`` are different words. field: the prompt's name in the error.

    Raises:
        InputError: if the prompt has no such word; lists the words it has.
    """
    wanted = bare(word)
    places = [k for k, other in enumerate(prompt_words) if bare(other) == wanted]
    if not places:
        there = ", ".join(prompt_words) or "none"
        raise InputError(field, f"has no word {word!r} (its words: {there})", "name one of these")
    return places


@functools.lru_cache(maxsize=4096)  # each word of a request is looked at dozens of times
def bare(word: str) -> str:
    """``word`` in lower case without punctuation around it; as it is if it is nothing else."""
    word = word.strip().casefold()
    return _EDGES.sub("", word) or word


# English


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


DETERMINERS: Final = _words("""
    a an the this that these those his her its their my our your some any each every no another
    one two three four five six seven eight nine ten several many few both
""")
FUNCTION_WORDS: Final = DETERMINERS | _words("""
    on in at of by with without beside besides near under underneath over above below behind
    before after between among against around across along through into onto inside outside from
    to toward towards off up down upon within beneath like as than next front top close far away
    for during about
    and or but nor while whereas if which who whose whom where when
    it they he she we you i them him us me
    is are was were be being been am has have had having do does did
    can could will would should may might must not
    very quite rather too so also just only almost
""")
"""Determiners, prepositions, conjunctions, pronouns, auxiliaries, adverbs of degree."""

_VERBS: Final = _words("""
    stand sit lie lay hang rest walk run jump fly swim sleep eat drink play ride hold wear look
    lean float drive cross carry face watch fill contain cover surround show depict make place
    put set pour grow live wait smile
""")
ADJECTIVES: Final = _words("""
    red orange yellow green blue purple violet pink brown black white grey gray beige cyan
    magenta turquoise golden silvery crimson maroon navy teal dark light bright pale colorful
    colourful
    big large small little tiny huge giant tall short long wide narrow thick thin round square
    flat old new young ancient modern antique fresh clean dirty wet dry broken empty full open
    glossy matte shiny smooth rough soft hard plain transparent ceramic wooden metallic woollen
    woolen furry fluffy beautiful pretty ugly cute happy sad
""")
MEDIA: Final = _words("""
    photo photograph photography picture image painting drawing sketch rendering render
    illustration watercolor watercolour etching engraving cartoon style art artwork poster
    postcard screenshot mosaic collage
""")
"""Nouns of the picture itself, not of a thing in it."""

COPULAS: Final = _words("is are was were be being looks appears seems becomes turned")
_NOUNS_IN_ED: Final = _words("bed seed weed shed sled steed deed reed feed breed bleed")
_IRREGULAR: Final = {
    "men": "man", "women": "woman", "children": "child", "people": "person", "feet": "foot",
    "teeth": "tooth", "geese": "goose", "mice": "mouse", "oxen": "ox", "dice": "die",
}  # fmt: skip
_CLOSING: Final = (",", ";", ".", ":", "!", "?", ")")


def closes(word: str) -> bool:
    """Whether punctuation after ``word`` ends what it stands in."""
    return word.endswith(_CLOSING)


def is_function(word: str) -> bool:
    """Whether ``word`` ends a noun phrase: a function word, a common verb, or no word at all."""
    plain = bare(word)
    if plain in FUNCTION_WORDS or not any(c.isalnum() for c in plain):
        return True
    stems = {plain.removesuffix("s"), plain.removesuffix("es")}
    if plain.endswith("ing"):
        stem = plain.removesuffix("ing")
        stems |= {stem, stem + "e", stem[:-1] if stem[-2:-1] == stem[-1:] else stem}
    return bool((stems - {plain}) & _VERBS)


def is_adjective(word: str, attribute: str = "") -> bool:
    """Whether ``word`` is in ``attribute`` or ADJECTIVES, or a participle such as "patterned"."""
    plain = bare(word)
    if plain in attribute.casefold().split() or plain in ADJECTIVES:
        return True
    return plain.endswith("ed") and len(plain) > 4 and plain not in _NOUNS_IN_ED


def alike(a: str, b: str) -> bool:
    """Whether two words are one noun: plurals, possessives and hyphens aside."""
    return bool(_forms(a) & _forms(b))


def _forms(word: str) -> frozenset[str]:
    plain = bare(word).removesuffix("'s").removesuffix("\N{RIGHT SINGLE QUOTATION MARK}s")
    whole = {plain, plain.replace("-", ""), plain.rpartition("-")[2] or plain}
    return frozenset(form for w in whole for form in (w, *_singulars(w)))


def _singulars(word: str) -> list[str]:
    """What ``word`` may be the plural of."""
    if word in _IRREGULAR:
        return [_IRREGULAR[word]]
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return []
    singulars = [word[:-1]]
    if word.endswith("ies"):
        singulars.append(word[:-3] + "y")
    if word.endswith("ves"):
        singulars += [word[:-3] + "f", word[:-3] + "fe"]
    if word.endswith(("ches", "shes", "xes", "ses", "zes", "oes")):
        singulars.append(word[:-2])
    return singulars
