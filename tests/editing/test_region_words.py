"""The word that a region is read from: a table of cases, and what holds for all prompts."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from customedit.editing.prompt_words import (
    ADJECTIVES,
    FUNCTION_WORDS,
    MEDIA,
    alike,
    bare,
    find,
)
from customedit.editing.region_words import ConceptWords, keeps_things, region_words
from customedit.errors import InputError
from customedit.metrics.lookbench.dataset import bundled
from customedit.mini import samples

PLAID = ConceptWords(("<plaid>",), "cup", "patterned")
UNKNOWN = ConceptWords(("<plaid>",))  # imported: nobody knows what it was taught on

CONCEPTS = [
    # the noun it was taught on
    ("a photo of a cup on a table", "a photo of a <plaid> patterned cup on a table", "cup"),
    ("a photo of a Cup, on a table", "a photo of a <plaid> patterned cup, on a table", "cup"),
    # plurals, possessives and hyphens
    ("two cups on a table", "two <plaid> patterned cups on a table", "cups"),
    ("two cups on a table", "a <plaid> patterned cup on a table", "cups"),
    ("an old tea-cup on a table", "an old <plaid> patterned teacup on a table", "tea-cup"),
    ("a teacup on a table", "a <plaid> patterned tea-cup on a table", "teacup"),
    ("a cup on a table", "a <plaid>-patterned cup on a table", "cup"),
    ("two knives on a table", "two <plaid> knives on a table", "knives"),
    # the head noun of the phrase, where that is another
    ("a vase beside a cup", "a <plaid> patterned vase beside a cup", "vase"),
    ("a big old red house on a hill", "a <plaid> big old red house on a hill", "house"),
    ("a red vase on a table", "an old <plaid> patterned red vase on a table", "vase"),
    ("a cat and a dog", "a <plaid> patterned cat and a dog", "cat"),
    ("a dog sitting on grass", "a <plaid> patterned dog sitting on grass", "dog"),
    ("a vase stands on a table", "a <plaid> vase stands on a table", "vase"),
    # nouns differ: the head of the words that were replaced
    ("a cat on a sofa", "a <plaid> patterned dog on a sofa", "cat"),
    ("a red cat on a sofa", "a <plaid> red dog on a sofa", "cat"),
    ("an old cat on a sofa", "an old <plaid> patterned old dog on a sofa", "cat"),
    # the token stands for the noun
    ("a cat on a sofa", "a <plaid> on a sofa", "cat"),
    ("a red cat on a sofa", "a <plaid> on a sofa", "cat"),
    # adjectives that are joined
    ("a blue and white vase", "a <plaid> blue and white vase", "vase"),
    ("a blue vase", "a <plaid> patterned, shiny vase", "vase"),
]

TAUGHT = [
    ("a cup on a table", "a cup, <plaid> patterned, on a table", "cup"),
    ("a cup gleams on a table", "a <plaid> patterned cup gleams on a table", "cup"),
    ("the cup's handle", "the <plaid> patterned cup's handle", "cup's"),
]
"""Told by the noun that the concept was taught on alone."""

WORDS = [
    ("a cup on a table", "a red cup on a table", ["cup"]),
    ("a cup on a table", "an old cup on a table", ["cup"]),
    ("a red cup on a table", "a blue cup on a table", ["cup"]),
    ("a red cup", "a striped red cup", ["cup"]),
    ("a red cup", "a red striped cup", ["cup"]),
    ("a red cup on a table", "a cup on a table", ["cup"]),
    ("a cat on a sofa", "a dog on a sofa", ["cat"]),
    ("a cat on a sofa", "a dog with a hat on a sofa", ["cat"]),
    ("two cats", "two dogs", ["cats"]),
    ("a red cup on a wooden table", "a blue ball on a marble table", ["cup", "table"]),
    ("a cup and a ball", "a cup", ["ball"]),
    ("a cup on a table", "a cup", ["table"]),
    ("a green vase on a table", "a green vase with white stripes on a table", ["vase"]),
    ("a blue and white vase", "a red and white vase", ["vase"]),
    ("a white cup", "a red and white checkered cup", ["cup"]),
    ("a white cup", "a red or white cup", ["cup"]),
    ("a cup on a table", "a red cup upon a table", ["cup"]),
    ("a tea-cup", "a red tea-cup", ["tea-cup"]),
    # the medium is of the whole picture
    ("a photo of a cup", "a painting of a cup", []),
    ("a photo of a cup", "an old photo of a cup", []),
    ("a photo of a cup", "a black and white photo of a cup", []),
    ("a cup on a table", "a cup on a table in the style of van gogh", []),
    # nothing that is said changes
    ("a cup", "a cup", []),
    ("a cup", "the cup", []),
]

DOUBTS = [
    ("a cup on a table", "a cup beside a table"),
    ("a cup that is red", "a cup that is blue"),
    ("a photo of a cup", "a photo of a bowl of cherries and a cup"),
    ("a dog sitting on grass", "a dog running on grass"),
    ("a cup on a table", "a cup on a table by a window"),
    ("a cup", "a cup and a plate"),
    ("a white cup", "a red plate and white cup"),
]


@pytest.mark.parametrize(("source", "target", "word"), CONCEPTS + TAUGHT)
def test_a_concept_is_said_of_its_noun(source: str, target: str, word: str) -> None:
    assert region_words(source, target, [PLAID]) == (word,)


@pytest.mark.parametrize(("source", "target", "word"), CONCEPTS)
def test_without_the_noun_it_was_taught_on_the_head_is_found(
    source: str, target: str, word: str
) -> None:
    assert region_words(source, target, [UNKNOWN]) == (word,)


@pytest.mark.parametrize(("source", "target", "words"), WORDS)
def test_words_alone_tell_their_region(source: str, target: str, words: list[str]) -> None:
    assert region_words(source, target) == tuple(words)


@pytest.mark.parametrize(("source", "target"), DOUBTS)
def test_in_doubt_the_ways_to_say_it_are_told(source: str, target: str) -> None:
    with pytest.raises(InputError, match=r"p2p\.blend_words: cannot be told.*--blend-word.*mask"):
        region_words(source, target)


def test_a_concept_of_no_word_is_asked_about() -> None:
    with pytest.raises(InputError, match="<plaid> is said of no word"):
        region_words("a big house", "a big house with <plaid>", [PLAID])


def test_a_style_is_of_the_whole_picture() -> None:
    assert region_words("a cup on a table", "a cup in the style of <plaid>", [UNKNOWN]) == ()
    assert region_words("a photo of a cup", "a <plaid> painting of a cup", [PLAID]) == ()
    assert region_words("a photo of a cup", "a <plaid> photo of a cup", [PLAID]) == ()
    # a word for the medium that differs by chance does not widen what a concept is said of
    assert region_words("a photo of a cup", "a picture of a <plaid> cup", [PLAID]) == ("cup",)


def test_two_concepts_have_two_words() -> None:
    other = ConceptWords(("<dots>",), "jug", "patterned")
    source, target = "a cup and a vase", "a <plaid> patterned cup and a <dots> patterned vase"
    assert region_words(source, target, [PLAID, other]) == ("cup", "vase")


def test_every_sample_tells_its_noun() -> None:
    for source in samples.sources():
        for look in samples.looks():
            concept = ConceptWords((look.token,), look.noun, look.attribute)
            found = region_words(source.prompt, source.target_prompt(look), [concept])
            assert found == (source.noun,)
        for target in (source.colour_prompt, source.pattern_prompt):
            assert region_words(source.prompt, target) == (source.noun,)


def test_every_wording_of_lookbench_tells_its_noun() -> None:
    """Plain words for each look on each source; none where they are what the source is."""
    bench = bundled("full")
    wordings = 0
    for source in bench.sources:
        for words in sorted({words for look in bench.looks for words in look.words}):
            target = source.target_prompt(words)
            kept = target == source.prompt
            assert region_words(source.prompt, target) == (() if kept else (source.noun,)), target
            wordings += 1
    assert wordings > 1000


_noun = st.sampled_from(["cup", "cat", "teapot", "houses", "oil-lamp", "box", "city"])
_adjectives = st.lists(st.sampled_from(sorted(ADJECTIVES)), max_size=3)
_place = st.sampled_from(["on a table", "in front of a wall", "with a hat", "beside a dog", ""])


@given(_noun, _adjectives, _adjectives, _place)
def test_adjectives_and_places_never_matter(
    noun: str, before: list[str], after: list[str], place: str
) -> None:
    source = " ".join(["a photo of a", *before, noun, place])
    target = " ".join(["a photo of a", *after, "<plaid> patterned", *before, noun, place])
    assert region_words(source, target, [PLAID]) == (noun,)


_word = st.one_of(
    st.sampled_from(sorted(FUNCTION_WORDS | ADJECTIVES | MEDIA)),
    st.sampled_from(["cup", "cat", "dog", "<plaid>", "and", ",", "patterned", "standing"]),
)
_prompt = st.lists(_word, max_size=9).map(" ".join)


@given(_prompt, _prompt)
def test_whatever_the_prompts_no_function_word_is_taken(source: str, target: str) -> None:
    source = source.replace("<plaid>", "lamp")
    try:
        words = region_words(source, target, [PLAID])
    except InputError as error:
        assert error.field == "p2p.blend_words"
        return
    for word in words:
        assert find(source.split(), word)  # it is in the source, as the blend looks it up
        assert word not in FUNCTION_WORDS | ADJECTIVES | MEDIA and word == bare(word)


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [("cup", "cups", True), ("Cup.", "cup", True), ("boxes", "box", True), ("bus", "bu", False),
     ("glass", "glas", False), ("city", "cities", True), ("men", "man", True),
     ("cup", "cap", False), ("oil-lamp", "lamp", True), ("oil-lamp", "oil", False),
     ("leaves", "leaf", True)],
)  # fmt: skip
def test_nouns_that_are_one(a: str, b: str, same: bool) -> None:
    assert alike(a, b) is alike(b, a) is same


def test_the_rule_needs_no_torch() -> None:
    code = (
        "import sys; import customedit.editing.settings, customedit.editing.plan;"
        "assert not {'torch', 'diffusers', 'transformers', 'numpy', 'PIL'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("source", "target", "words", "kept"),
    [
        ("a cup on a table", "a red cup on a table", ["cup"], True),
        ("a red cup on a table", "a <plaid> patterned cup on a table", ["cup"], True),
        ("a red cup on a table", "a cup on a table", ["cup"], True),
        ("an orange cup on a table", "a <plaid> patterned cup on a table", ["cup"], True),
        ("two cups", "two blue and white cups", ["cups"], True),
        ("a cup by a wall", "a red cup by a green wall", ["cup", "wall"], True),
        ("a cup by a wall", "a red cup by a green wall", ["cup"], False),
        ("a cup on a table", "a jug on a table", ["cup"], False),
        ("a cat on a mat", "a cat with a hat on a mat", ["cat"], False),
        ("a cup on a table", "a red jug on a table", ["cup"], False),
        ("a cat", "a cat sleeping", ["cat"], False),
        ("a photo of a cup", "a <plaid>", ["cup"], False),
        ("a cup", "a red cup", [], False),
        ("a cup", "a cup", ["cup"], False),
    ],
)
def test_things_that_stay_what_they_are(
    source: str, target: str, words: list[str], kept: bool
) -> None:
    assert keeps_things(source, target, words) is kept


def test_a_concept_of_several_was_taught_on_each_of_their_nouns() -> None:
    look = ConceptWords(("<a>", "<b>"), "tea cup + vase", "patterned + shiny")
    for noun in ("cup", "vase"):
        target = f"a table, a <a> shiny patterned {noun} from above"
        assert region_words(f"a table, a {noun} from above", target, [look]) == (noun,)
        assert region_words(f"a {noun} on a table", f"a {noun} on a table, <b>", [look]) == (noun,)
    with pytest.raises(InputError, match="<b> is said of no word"):  # of one or the other
        region_words("a cup and a vase", "a cup and a vase, <b>", [look])
