"""Which words of the source prompt an edit's region is read from, when nobody names them.

The rule, for English prompts (arXiv 2305.15779 keeps an edit to the map of the edited word):

1. *A concept* in the target prompt is said of a phrase: the words after its token up to the next
   function word, verb or closing punctuation. If the phrase holds the noun that the concept was
   taught on, that is the word. Else it is the phrase's last word, its head. If the source prompt
   calls the thing otherwise ("cat" where the target says "dog"), the head of the words that were
   replaced there. A token without a phrase stands for the words it replaced, or belongs to the noun
   that it was taught on.
2. *Other changed words* (the only ones without a concept) belong to the phrase around them: "cup"
   -> "red cup" and "red cup" -> "blue cup" are of the cup, "cat" -> "dog" is of the cat. What is
   inserted with "with" ("vase" -> "vase with dots") is of the noun before it.
3. A change of the medium ("photo" -> "painting", "in the style of ...") is of the whole picture,
   unless a concept is said of a thing. Changes of function words and verbs beside others are passed
   over.
4. Plurals, possessives and hyphens do not count: "cups", "cup's" and "tea-cup" are found as "cup".
5. A function word, a verb or an adjective is never the word. Where the rules find no noun, the
   request is refused with the ways to say it: a word, a mask, or everywhere.
6. A concept that has a region of its own needs no word: its region stands for it.

Imports no torch.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from customedit.editing.method_settings import RegionSettings
from customedit.editing.prompt_words import (
    COPULAS,
    DETERMINERS,
    MEDIA,
    align,
    alike,
    bare,
    closes,
    is_adjective,
    is_function,
)
from customedit.errors import InputError
from customedit.prompt_syntax import CONCEPT, separate_words


@dataclass(frozen=True)
class ConceptWords:
    """A concept as far as words go: its tokens, the noun it was taught on, its attribute.

    noun, attribute: of a concept that was made of several, as ``joined_words`` joins them.
    region: the field of the request that says where it acts, "" for everywhere.
    """

    tokens: tuple[str, ...]
    noun: str = ""
    attribute: str = ""
    region: str = ""


def region_words(
    source_prompt: str, target_prompt: str, concepts: Sequence[ConceptWords] = ()
) -> tuple[str, ...]:
    """The words of the source prompt whose region may change, in its order; by the module's rule.

    Empty: the whole picture may (a change of the medium), or the prompts are alike.

    Raises:
        InputError: (p2p.blend_words) if the rule finds no noun for a change.
    """
    return words_beside_regions(source_prompt, target_prompt, concepts) or ()


def words_beside_regions(
    source_prompt: str, target_prompt: str, concepts: Sequence[ConceptWords] = ()
) -> tuple[str, ...] | None:
    """``region_words``; None where the whole picture may change.

    Empty: nothing may but the regions of the concepts that have some.

    Raises:
        InputError: as ``region_words``.
    """
    reader = _Reader(source_prompt, target_prompt, concepts)
    of_concepts = set(reader.concept_places())
    of_changes = set(reader.changed_places())
    of_things = bool(of_concepts) or reader.placed
    if None in of_concepts or (None in of_changes and not of_things):
        return None
    places = {place for place in of_concepts | of_changes if place is not None}
    if not places and not reader.placed:
        if reader.passed_over:
            raise _in_doubt(f"the change {reader.passed_over[0]!r} belongs to no noun")
        return None
    words = (bare(reader.source[place]) for place in sorted(places))
    return tuple(dict.fromkeys(words))


def keeps_things(source_prompt: str, target_prompt: str, words: Sequence[str]) -> bool:
    """Whether all that changes is said of ``words`` themselves, whose things stay what they are.

    "cup" -> "red cup" and "<plaid> patterned cup" are; a thing that is replaced ("cup" -> "jug") or
    that gets company ("cat" -> "cat with a hat") may need room beyond its outline. Only words that
    stand before one of ``words`` in its phrase, in both prompts, say something of it for certain.
    """
    if not words:
        return False
    reader = _Reader(source_prompt, target_prompt, ())
    for gap in reader.gaps:
        for prompt, start, end in ((reader.source, gap.a, gap.b), (reader.target, gap.c, gap.d)):
            while start < end and bare(prompt[start]) in DETERMINERS:
                start += 1  # "an orange cup" -> "a red cup"
            if start == end:
                continue
            if any(_ends_phrase(prompt, k) for k in range(start, end)):
                return False
            head = _head(prompt, start)
            if head < end or not any(alike(prompt[head], word) for word in words):
                return False
    return bool(reader.gaps)


def union_words(settings: RegionSettings, target: Sequence[str]) -> tuple[str, ...]:
    """The words of the target prompt that a region over the union of both prompts' maps reads.

    target: the prompt's words. Those that were given, else those of the source that it has, too;
    none where the region is no union.

    Raises InputError of ``blend_target_words`` if none were given and it has none of the source's.
    """
    if settings.blend_over != "union":
        return ()
    if settings.blend_target_words:
        return settings.blend_target_words
    there = {bare(word) for word in target}
    shared = tuple(word for word in settings.blend_words if bare(word) in there)
    if not shared:
        raise InputError(
            "blend_target_words",
            "are missing, and the target prompt has none of the blend words "
            f"({', '.join(settings.blend_words)})",
            "name the target's words, or read the source's alone (blend_over source)",
        )
    return shared


@dataclass(frozen=True)
class _Gap:
    """What stands between two aligned words: source[a:b] became target[c:d]."""

    a: int
    b: int
    c: int
    d: int


@functools.lru_cache(maxsize=256)  # a request asks for the words, then whether things stay
def _compared(
    source_prompt: str, target_prompt: str
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[_Gap, ...]]:
    """The words of both prompts, and what stands between those that are aligned."""
    source, target = source_prompt.split(), target_prompt.split()
    pairs = align([bare(w) for w in source], [bare(w) for w in target])
    ends = [(-1, -1), *pairs, (len(source), len(target))]
    gaps = (
        _Gap(i + 1, k, j + 1, m)
        for (i, j), (k, m) in itertools.pairwise(ends)
        if (i + 1, j + 1) != (k, m)
    )
    return tuple(source), tuple(target), tuple(gaps)


class _Reader:
    """Two prompts and what is said in them."""

    def __init__(self, source: str, target: str, concepts: Sequence[ConceptWords]) -> None:
        self.source, self.target, self.gaps = _compared(source, target)
        self.passed_over: list[str] = []  # changes of function words alone
        self.placed = False  # whether the target names a concept that has a region
        self.concepts = {token: c for c in concepts for token in c.tokens}

    def concept_places(self) -> Iterator[int | None]:
        """The source position that each concept is said of; None for the whole picture.

        Concepts that have regions are said of them.
        """
        for at, word in enumerate(self.target):
            for match in CONCEPT.finditer(word):
                concept = self.concepts.get(match.group())
                if concept is not None and concept.region:
                    self.placed = True
                else:
                    yield self._of_concept(at, match.group())

    def changed_places(self) -> Iterator[int | None]:
        """The source positions that each change without a concept is of; None as above."""
        for gap in self.gaps:
            if not any(CONCEPT.search(w) for w in self.target[gap.c : gap.d]):
                yield from self._of_change(gap)

    # a concept

    def _of_concept(self, at: int, token: str) -> int | None:
        concept = self.concepts.get(token, ConceptWords((token,)))
        phrase = self._phrase_of(at, concept)
        taught = [noun.split()[-1] for noun in separate_words(concept.noun)]
        for noun in taught:
            for k in phrase:
                if alike(self.target[k], noun) and (there := self._in_source([noun])) is not None:
                    return there
        head = phrase[-1] if phrase else None
        if head is not None and not is_adjective(self.target[head], concept.attribute):
            if bare(self.target[head]) in MEDIA:
                return None
            if (there := self._in_source([self.target[head]])) is not None:
                return there
        else:
            head = None
        gap = self._gap_at(at if head is None else head)
        if gap is not None:
            if head is None and any(bare(w) in MEDIA for w in self.target[gap.c : gap.d]):
                return None
            if (replaced := self._replaced(gap)) is not None:
                return self._checked(replaced, token)
        there_too = {self._in_source([noun]) for noun in taught} - {None}
        if head is None and len(there_too) == 1:
            return there_too.pop()
        raise _in_doubt(f"{token} is said of no word of the source prompt")

    def _phrase_of(self, at: int, concept: ConceptWords) -> list[int]:
        """Positions of the target's words that the concept at ``at`` is said of."""
        phrase: list[int] = []
        closed = closes(self.target[at])
        for k in range(at + 1, len(self.target)):
            word = self.target[k]
            if closed or CONCEPT.search(word) or _ends_phrase(self.target, k):
                break
            phrase.append(k)
            closed = closes(word) and not is_adjective(word, concept.attribute)
        return phrase

    def _gap_at(self, position: int) -> _Gap | None:
        """The gap that the target's word at ``position`` stands in."""
        return next((g for g in self.gaps if g.c <= position < g.d), None)

    def _in_source(self, words: Iterable[str]) -> int | None:
        """The first place in the source prompt of the first of ``words`` that it has."""
        for word in words:
            exact = [k for k, w in enumerate(self.source) if bare(w) == bare(word)]
            near = [k for k, w in enumerate(self.source) if alike(w, word)]
            for place in exact or near:
                if not is_function(self.source[place]):
                    return place
        return None

    # words that changed

    def _of_change(self, gap: _Gap) -> Iterator[int | None]:
        before, after = self.source[gap.a : gap.b], self.target[gap.c : gap.d]
        if all(bare(w) in DETERMINERS for w in (*before, *after)):
            return
        shown = " ".join(after or before)
        if all(is_function(w) for w in (*before, *after)):
            self.passed_over.append(shown)
            return
        heads = list(self._heads(gap.a, gap.b))
        if heads:
            for place in heads:
                yield self._checked(place, shown)
            return
        content = [not _ends_phrase(self.target, k) for k in range(gap.c, gap.d)]
        if any(bare(w) in MEDIA for w in after):
            yield None
            return
        # inserted: adjectives before a phrase are of its head, anything else is a new thing
        trailing = 0
        while trailing < len(content) and content[-1 - trailing]:
            trailing += 1
        if not before and bare(after[0]) == "with" and self._is_noun(gap.a - 1):
            yield self._checked(gap.a - 1, shown)
            return
        head = next(iter(self._heads(gap.b, gap.b + 1)), None)
        if not trailing or any(content[: len(content) - trailing]) or head is None:
            raise _in_doubt(f"the change {shown!r} belongs to no word of the source prompt")
        if closes(after[-1]) and not is_adjective(after[-1]):
            raise _in_doubt(f"the change {shown!r} belongs to no word of the source prompt")
        yield self._checked(head, shown)

    def _replaced(self, gap: _Gap) -> int | None:
        """The head of the last phrase that the gap took out of the source."""
        return next(reversed(list(self._heads(gap.a, gap.b))), None)

    def _heads(self, start: int, end: int) -> Iterator[int]:
        """The head of each phrase that begins in source[start:end]; a phrase may go beyond."""
        at = start
        while at < min(end, len(self.source)):
            if is_function(self.source[at]):
                at += 1
                continue
            at = _head(self.source, at)
            yield at
            at += 1

    def _is_noun(self, place: int) -> bool:
        """Whether a phrase of the source ends at ``place``, and may be gone on with."""
        word = self.source[place] if place >= 0 else ","
        return not is_function(word) and not closes(word)

    def _checked(self, place: int, change: str) -> int | None:
        """``place``, if what stands there can be a noun; None for a noun of the picture itself."""
        if bare(self.source[place]) in MEDIA:
            return None
        copula = place > 0 and bare(self.source[place - 1]) in COPULAS
        if copula or is_adjective(self.source[place]):
            word = bare(self.source[place])
            raise _in_doubt(f"the change {change!r} belongs to {word!r}, which is no noun")
        return place


def _head(words: Sequence[str], start: int) -> int:
    """The last word of the phrase that ``words[start]`` stands in."""
    at = start
    while (
        at + 1 < len(words)
        and not _ends_phrase(words, at + 1)
        and not (closes(words[at]) and not is_adjective(words[at]))
    ):
        at += 1
    return at


def _ends_phrase(words: Sequence[str], at: int) -> bool:
    """Whether a phrase that stands before ``words[at]`` ends there.

    An "and" or "or" between adjectives does not: "a blue and white cup".
    """
    if bare(words[at]) in ("and", "or") and 0 < at < len(words) - 1:
        joined = is_adjective(words[at - 1]) and not closes(words[at - 1])
        return not joined or is_function(words[at + 1])
    return is_function(words[at])


def _in_doubt(problem: str) -> InputError:
    return InputError(
        "p2p.blend_words",
        f"cannot be told from the prompts: {problem}",
        "name the source words that may change (--blend-word), give a mask, or let the edit reach "
        "everywhere (--no-blend, blend_over none)",
    )
