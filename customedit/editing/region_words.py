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
3. A change of the medium ("photo" -> "painting", "in the style of ...") is of the whole picture.
4. Plurals, possessives and hyphens do not count: "cups", "cup's" and "tea-cup" are found as "cup".
5. A function word, a verb or an adjective is never the word. Where the rules find no noun, the
   request is refused with the ways to say it: a word, a mask, or everywhere.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from customedit.editing.prompt_words import align, bare
from customedit.errors import InputError
from customedit.schemas.patterns import TOKEN_IN_TEXT

DETERMINERS: Final = frozenset(
    "a an the this that these those his her its their my our your some any each every no another "
    "one two three four five six seven eight nine ten several many few both".split()
)
FUNCTION_WORDS: Final = DETERMINERS | frozenset(
    # prepositions and what stands with them
    "on in at of by with without beside besides near under underneath over above below behind "
    "before after between among against around across along through into onto inside outside from "
    "to toward towards off up down upon within beneath like as than next front top close far away "
    "for during about "
    # conjunctions, relative words, pronouns, auxiliaries, adverbs of degree
    "and or but nor while whereas if which who whose whom where when it they he she we you i them "
    "him us me is are was were be being been am has have had having do does did can could will "
    "would should may might must not very quite rather too so also just only almost".split()
)
_VERBS: Final = frozenset(
    "stand sit lie lay hang rest walk run jump fly swim sleep eat drink play ride hold wear look "
    "lean float drive cross carry face watch fill contain cover surround show depict make place "
    "put set pour grow live wait smile".split()
)
ADJECTIVES: Final = frozenset(
    # colours
    "red orange yellow green blue purple violet pink brown black white grey gray beige cyan magenta "
    "turquoise golden silvery crimson maroon navy teal dark light bright pale colorful colourful "
    # sizes, ages, states, surfaces
    "big large small little tiny huge giant tall short long wide narrow thick thin round square "
    "flat old new young ancient modern antique fresh clean dirty wet dry broken empty full open "
    "glossy matte shiny smooth rough soft hard plain transparent ceramic wooden metallic woollen "
    "woolen furry fluffy beautiful pretty ugly cute happy sad".split()
)
MEDIA: Final = frozenset(
    "photo photograph photography picture image painting drawing sketch rendering render "
    "illustration watercolor watercolour etching engraving cartoon style art artwork "
    "poster postcard screenshot mosaic collage".split()
)
"""Nouns of the picture itself, not of a thing in it."""

_COPULAS: Final = frozenset("is are was were be being looks appears seems becomes turned".split())
_NOUNS_IN_ED: Final = frozenset("bed seed weed shed sled steed deed reed feed breed bleed".split())
_IRREGULAR: Final = {
    "men": "man", "women": "woman", "children": "child", "people": "person", "feet": "foot",
    "teeth": "tooth", "geese": "goose", "mice": "mouse", "oxen": "ox", "dice": "die",
}  # fmt: skip
_CLOSING: Final = (",", ";", ".", ":", "!", "?", ")")


@dataclass(frozen=True)
class ConceptWords:
    """A concept as far as words go: its tokens, the noun it was taught on, its attribute."""

    tokens: tuple[str, ...]
    noun: str = ""
    attribute: str = ""


def region_words(
    source_prompt: str, target_prompt: str, concepts: Sequence[ConceptWords] = ()
) -> tuple[str, ...]:
    """The words of the source prompt whose region may change, in its order; by the module's rule.

    Empty: the whole picture may (a change of the medium), or the prompts are alike.

    Raises:
        InputError: (blend_words) if the rule finds no noun for a change.
    """
    reader = _Reader(source_prompt, target_prompt, concepts)
    places: set[int] = set()
    for place in reader.places():
        if place is None:
            return ()
        places.add(place)
    words = (bare(reader.source[place]) for place in sorted(places))
    return tuple(dict.fromkeys(words))


@dataclass(frozen=True)
class _Gap:
    """What stands between two aligned words: source[a:b] became target[c:d]."""

    a: int
    b: int
    c: int
    d: int


class _Reader:
    """Two prompts and what is said in them."""

    def __init__(self, source: str, target: str, concepts: Sequence[ConceptWords]) -> None:
        self.source, self.target = source.split(), target.split()
        self.concepts = {token: c for c in concepts for token in c.tokens}
        pairs = align([bare(w) for w in self.source], [bare(w) for w in self.target])
        ends = [(-1, -1), *pairs, (len(self.source), len(self.target))]
        self.gaps = [
            _Gap(i + 1, k, j + 1, m)
            for (i, j), (k, m) in zip(ends, ends[1:], strict=False)
            if (i + 1, j + 1) != (k, m)
        ]

    def places(self) -> Iterator[int | None]:
        """The source position that each change is of; None for the whole picture."""
        for at, word in enumerate(self.target):
            for found in TOKEN_IN_TEXT.finditer(word):
                yield self._of_concept(at, found.group())
        for gap in self.gaps:
            if not any(TOKEN_IN_TEXT.search(w) for w in self.target[gap.c : gap.d]):
                yield from self._of_change(gap)

    # a concept

    def _of_concept(self, at: int, token: str) -> int | None:
        concept = self.concepts.get(token, ConceptWords((token,)))
        phrase = self._phrase_of(at, concept)
        taught = concept.noun.split()[-1:] if concept.noun else []
        for noun in taught:
            for k in phrase:
                if alike(self.target[k], noun) and (there := self._in_source([noun])) is not None:
                    return there
        head = phrase[-1] if phrase else None
        if head is not None and not _is_adjective(self.target[head], concept):
            if (there := self._in_source([self.target[head]])) is not None:
                return there
            if bare(self.target[head]) in MEDIA:
                return None
        else:
            head = None
        gap = self._gap_at(at if head is None else head)
        if gap is not None:
            if (replaced := self._replaced(gap)) is not None:
                return self._checked(replaced, token)
            if head is None and any(bare(w) in MEDIA for w in self.target[gap.c : gap.d]):
                return None
        if head is None and (there := self._in_source(taught)) is not None:
            return there
        raise _in_doubt(f"{token} is said of no word of the source prompt")

    def _phrase_of(self, at: int, concept: ConceptWords) -> list[int]:
        """Positions of the target's words that the concept at ``at`` is said of."""
        phrase: list[int] = []
        closed = _closes(self.target[at])
        for k in range(at + 1, len(self.target)):
            word = self.target[k]
            if closed or TOKEN_IN_TEXT.search(word) or _ends_phrase(self.target, k):
                break
            phrase.append(k)
            closed = _closes(word) and not _is_adjective(word, concept)
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
                if not _is_function(self.source[place]):
                    return place
        return None

    # words that changed

    def _of_change(self, gap: _Gap) -> Iterator[int | None]:
        before, after = self.source[gap.a : gap.b], self.target[gap.c : gap.d]
        if all(bare(w) in DETERMINERS for w in (*before, *after)):
            return
        shown = " ".join(after or before)
        heads = list(self._heads(gap.a, gap.b))
        if heads:
            for head in heads:
                yield None if bare(self.source[head]) in MEDIA else self._checked(head, shown)
            return
        content = [not _is_function(w) for w in after]
        if any(bare(w) in MEDIA for w in after):
            yield None
            return
        # inserted: adjectives before a phrase are of its head, anything else is a new thing
        trailing = 0
        while trailing < len(content) and content[-1 - trailing]:
            trailing += 1
        if before == [] and bare(after[0]) == "with" and gap.a > 0:
            if not _is_function(self.source[gap.a - 1]) and not _closes(self.source[gap.a - 1]):
                yield self._checked(gap.a - 1, shown)
                return
        head = next(iter(self._heads(gap.b, gap.b + 1)), None)
        if not trailing or any(content[: len(content) - trailing]) or head is None:
            raise _in_doubt(f"the change {shown!r} belongs to no word of the source prompt")
        if _closes(after[-1]) and not _is_adjective(after[-1]):
            raise _in_doubt(f"the change {shown!r} belongs to no word of the source prompt")
        yield self._checked(head, shown)

    def _replaced(self, gap: _Gap) -> int | None:
        """The head of the last phrase that the gap took out of the source."""
        return next(reversed(list(self._heads(gap.a, gap.b))), None)

    def _heads(self, start: int, end: int) -> Iterator[int]:
        """The head of each phrase that begins in source[start:end]; a phrase may go beyond."""
        at = start
        while at < min(end, len(self.source)):
            if _is_function(self.source[at]):
                at += 1
                continue
            while (
                at + 1 < len(self.source)
                and not _ends_phrase(self.source, at + 1)
                and not (_closes(self.source[at]) and not _is_adjective(self.source[at]))
            ):
                at += 1
            yield at
            at += 1

    def _checked(self, place: int, change: str) -> int:
        """``place``, if what stands there can be a noun."""
        copula = place > 0 and bare(self.source[place - 1]) in _COPULAS
        if copula or _is_adjective(self.source[place]):
            word = bare(self.source[place])
            raise _in_doubt(f"the change {change!r} belongs to {word!r}, which is no noun")
        return place


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
    found = [word[:-1]]
    if word.endswith("ies"):
        found.append(word[:-3] + "y")
    if word.endswith("ves"):
        found += [word[:-3] + "f", word[:-3] + "fe"]
    if word.endswith(("ches", "shes", "xes", "ses", "zes", "oes")):
        found.append(word[:-2])
    return found


def _closes(word: str) -> bool:
    return word.endswith(_CLOSING)


def _ends_phrase(words: Sequence[str], at: int) -> bool:
    """Whether a phrase that stands before ``words[at]`` ends there.

    An "and" or "or" between adjectives does not: "a blue and white cup".
    """
    if bare(words[at]) in ("and", "or") and 0 < at < len(words) - 1:
        joined = _is_adjective(words[at - 1]) and not _closes(words[at - 1])
        return not joined or _is_function(words[at + 1])
    return _is_function(words[at])


def _is_function(word: str) -> bool:
    """Whether a phrase ends before ``word``: a function word, a common verb, or no word at all."""
    plain = bare(word)
    if plain in FUNCTION_WORDS or not any(c.isalnum() for c in plain):
        return True
    stems = {plain, plain.removesuffix("s"), plain.removesuffix("es")}
    if plain.endswith("ing"):
        stem = plain.removesuffix("ing")
        stems |= {stem, stem + "e", stem[:-1] if stem[-2:-1] == stem[-1:] else stem}
    return bool((stems - {plain}) & _VERBS)


def _is_adjective(word: str, concept: ConceptWords | None = None) -> bool:
    """Whether ``word`` is the concept's attribute, in ADJECTIVES, or a participle in -ed."""
    plain = bare(word)
    if concept is not None and plain in concept.attribute.casefold().split():
        return True
    if plain in ADJECTIVES:
        return True
    return plain.endswith("ed") and len(plain) > 4 and plain not in _NOUNS_IN_ED


def _in_doubt(problem: str) -> InputError:
    return InputError(
        "blend_words",
        f"cannot be told from the prompts: {problem}",
        "name the source words that may change (--blend-word), give a mask, or let the edit reach "
        "everywhere (--no-blend, blend_over none)",
    )
