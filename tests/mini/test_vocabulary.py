import json

from hypothesis import given
from hypothesis import strategies as st

from customedit.mini import vocabulary
from customedit.mini.vocabulary import CLASSES, COLOURS, LOOKS, as_dict, unknown_words, words

KNOWN = st.lists(st.sampled_from(sorted(words())), min_size=1, max_size=8).map(" ".join)


@given(KNOWN)
def test_known_words_are_not_reported(prompt: str) -> None:
    assert unknown_words(prompt) == []
    assert unknown_words(prompt.upper() + ".") == []


@given(KNOWN, KNOWN)
def test_unknown_words_come_once_and_in_order(before: str, after: str) -> None:
    assert unknown_words(f"{before} dragon {after}, elf dragon") == ["dragon", "elf"]


def test_concept_tokens_are_not_words() -> None:
    assert unknown_words("a photo of a <gold-cracks> patterned vase") == []


def test_words_of_the_kept_out_looks_are_unknown() -> None:
    assert all(unknown_words(look) == look.split() for look in LOOKS)


def test_words_are_lower_case_and_single() -> None:
    assert all(word.isalpha() and word == word.lower() for word in words())


def test_as_dict_is_plain_data() -> None:
    told = as_dict()
    assert json.loads(json.dumps(told)) == told
    assert told["classes"] == list(CLASSES)
    assert set(told["colours"]) == set(COLOURS)
    assert all(unknown_words(example) == [] for example in told["examples"])


def test_the_world_is_as_rich_as_promised() -> None:
    assert len(CLASSES) >= 10
    assert len(COLOURS) >= 10
    assert len(LOOKS) >= 6
    assert len(vocabulary.PATTERNS) >= 6
