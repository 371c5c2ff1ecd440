from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from customedit.editing.prompt_to_prompt import cross_replace, equalizer, refine, replace
from customedit.editing.prompt_words import find
from customedit.errors import InputError

START, END, LENGTH = 98, 99, 12

# Few different tokens, so that repeats and ties are common.
tokens = st.lists(st.integers(1, 4), max_size=LENGTH - 2)


def padded(prompt: list[int], length: int = LENGTH) -> list[int]:
    return [START, *prompt] + [END] * (length - 1 - len(prompt))


def reference_map(source: list[int], target: list[int]) -> list[int]:
    """Source position of each target token, -1 for none: the recursion, written top down."""
    from functools import cache

    @cache
    def score(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return 0
        same = 1 if source[i - 1] == target[j - 1] else -1
        return max(score(i, j - 1), score(i - 1, j), score(i - 1, j - 1) + same)

    i, j, out = len(source), len(target), [-1] * len(target)
    while i and j:
        if score(i, j) == score(i, j - 1):
            j -= 1
        elif score(i, j) == score(i - 1, j):
            i -= 1
        else:
            i, j = i - 1, j - 1
            out[j] = i
    return out


def longest_common(a: list[int], b: list[int]) -> int:
    """Length of the longest common subsequence, by trying all of a's."""
    for n in range(len(a), 0, -1):
        for kept in combinations(a, n):
            rest = iter(b)
            if all(token in rest for token in kept):
                return n
    return 0


@given(tokens, tokens)
def test_refine_is_the_reference_alignment(source: list[int], target: list[int]) -> None:
    mapper, taken = refine(padded(source), padded(target), LENGTH)
    found = reference_map([START, *source, END], [START, *target, END])
    expected = torch.zeros(LENGTH, LENGTH)
    for j in range(LENGTH):
        i = found[j] if j < len(found) else j
        if i >= 0:
            expected[i, j] = 1
    assert mapper.dtype == taken.dtype == torch.float32
    assert torch.equal(mapper, expected)
    assert torch.equal(taken, expected.sum(0))


@given(st.lists(st.integers(1, 3), max_size=7), st.lists(st.integers(1, 3), max_size=7))
def test_refine_keeps_as_many_tokens_as_can_be_in_order(
    source: list[int], target: list[int]
) -> None:
    mapper, taken = refine(padded(source), padded(target), LENGTH)
    inner = range(1, len(target) + 1)
    columns = [j for j in inner if taken[j] == 1]
    rows = [int(mapper[:, j].argmax()) for j in columns]
    assert len(columns) == longest_common(source, target)
    assert rows == sorted(set(rows))
    assert [padded(source)[i] for i in rows] == [padded(target)[j] for j in columns]


@given(tokens)
def test_refine_of_a_prompt_by_itself_changes_nothing(prompt: list[int]) -> None:
    mapper, taken = refine(padded(prompt), padded(prompt), LENGTH)
    assert torch.equal(mapper, torch.eye(LENGTH))
    assert bool((taken == 1).all())


def test_an_inserted_word_keeps_its_map_and_moves_the_rest() -> None:
    mapper, taken = refine(padded([1, 2, 3]), padded([1, 7, 8, 2, 3]), LENGTH)
    assert taken.tolist() == [1, 1, 0, 0, 1, 1] + [1] * 6
    assert mapper.argmax(0)[[0, 1, 4, 5, 6, 7]].tolist() == [0, 1, 2, 3, 4, 7]


def test_refine_takes_a_prompt_that_fills_all_columns() -> None:
    full = [START, 1, 2, 3, END]
    assert torch.equal(refine(full, full, 5)[0], torch.eye(5))


def test_refine_wants_padded_prompts() -> None:
    with pytest.raises(InputError, match="target prompt: is 3 tokens long, not 12"):
        refine(padded([1]), [START, 1, END], LENGTH)


def spans(counts: list[int]) -> list[tuple[int, int]]:
    out, at = [], 1
    for n in counts:
        out.append((at, at + n))
        at += n
    return out


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), max_size=4))
def test_a_word_swap_shares_each_words_maps(counts: list[tuple[int, int]]) -> None:
    length = 16
    source, target = spans([m for m, _ in counts]), spans([n for _, n in counts])
    mapper = replace(source, target, length)
    for (a, b), (c, d) in zip(source, target, strict=True):
        block = mapper[a:b, c:d]
        if b - a == d - c:
            assert torch.equal(block, torch.eye(b - a))
        else:
            assert torch.equal(block, torch.full((b - a, d - c), 1 / (d - c)))
        # Nothing of a word's maps is lost or made: each source token's map is spent once.
        assert torch.allclose(block.sum(1), torch.ones(b - a))
        assert mapper[:, c:d].sum() == pytest.approx(float(block.sum()))
    end = target[-1][1] if target else 1
    assert mapper[0].tolist() == [1] + [0] * (length - 1)
    assert mapper[source[-1][1] if source else 1, end] == 1
    assert torch.equal(mapper[:, end + 1 :], torch.eye(length)[:, end + 1 :])


def test_equal_prompts_swap_nothing() -> None:
    words = spans([1, 2, 1])
    assert torch.equal(replace(words, words, 8), torch.eye(8))


def test_a_word_swap_names_both_counts_and_the_way_out() -> None:
    with pytest.raises(InputError, match=r"has 3 words and the source prompt has 2.*use refine"):
        replace(spans([1, 1]), spans([1, 1, 1]), 8)


def test_a_word_swap_wants_prompts_that_fit() -> None:
    with pytest.raises(InputError, match="ends at column 8 of 8"):
        replace(spans([3, 1]), spans([3, 4]), 8)


@given(st.dictionaries(st.integers(0, 9), st.floats(-4, 4, width=32)))
def test_an_equalizer_is_one_but_where_told(factors: dict[int, float]) -> None:
    expected = [factors.get(k, 1.0) for k in range(10)]
    assert equalizer(10, factors).tolist() == expected


@pytest.mark.parametrize("factors", [{10: 1.0}, {-1: 1.0}, {1: float("nan")}, {1: float("inf")}])
def test_an_equalizer_refuses(factors: dict[int, float]) -> None:
    with pytest.raises(InputError):
        equalizer(10, factors)


shares = st.tuples(st.integers(0, 100), st.integers(0, 100)).map(sorted)


@given(st.integers(1, 100), shares, st.dictionaries(st.integers(0, 5), shares))
def test_cross_replace_switches_on_and_off(
    steps: int, default: list[int], per_column: dict[int, list[int]]
) -> None:
    def share(pair: list[int]) -> tuple[float, float]:
        return pair[0] / 100, pair[1] / 100

    def of_the_papers_code(pair: list[int]) -> list[float]:
        """google/prompt-to-prompt's count: a table of steps + 1 rows, of which steps are read."""
        table = [0.0] * (steps + 1)
        first, last = (int(bound * len(table)) for bound in share(pair))
        table[first:last] = [1.0] * (last - first)
        return table[:steps]

    alpha = cross_replace(6, steps, share(default), {k: share(v) for k, v in per_column.items()})
    assert alpha.shape == (steps, 6) and alpha.dtype == torch.float32
    for column in range(6):
        assert alpha[:, column].tolist() == of_the_papers_code(per_column.get(column, default))


def test_cross_replace_with_one_number_starts_at_once() -> None:
    def on(alpha: Tensor) -> list[float]:
        return alpha.sum(0).tolist()

    assert on(cross_replace(2, 50, 0.4)) == [20, 20]
    assert on(cross_replace(2, 50, 0.0)) == [0, 0]
    assert on(cross_replace(2, 50, 1.0, {1: (0.0, 0.58)})) == [50, 29]
    assert on(cross_replace(2, 50, 0.99)) == [50, 50]  # not floor(0.99 x 50)
    assert on(cross_replace(2, 6, 0.8)) == [5, 5]


@pytest.mark.parametrize("default", [1.2, -0.1, (0.5, 0.4), (0.0, 2.0), float("nan")])
def test_cross_replace_refuses(default: float | tuple[float, float]) -> None:
    with pytest.raises(InputError, match="cross_replace"):
        cross_replace(4, 10, default)


def test_cross_replace_refuses_columns_and_steps_that_are_not_there() -> None:
    with pytest.raises(InputError, match="column: is 4"):
        cross_replace(4, 10, 0.4, {4: (0.0, 1.0)})
    with pytest.raises(InputError, match="steps: is 0"):
        cross_replace(4, 0, 0.4)


@pytest.mark.parametrize(
    ("word", "places"),
    [("cat", [1, 5]), ("CAT.", [1, 5]), ("<cat>", [7]), ("a", [0, 4]), ("-", [3]), ("étoile", [6])],
)
def test_find_reads_past_case_and_punctuation(word: str, places: list[int]) -> None:
    prompt = "A cat,  on\t- a “Cat” étoile! <Cat>."
    assert find(prompt.split(), word) == places


@given(st.lists(st.text("abc", min_size=1), min_size=1), st.data())
def test_every_word_of_a_prompt_is_found(prompt: list[str], data: st.DataObject) -> None:
    k = data.draw(st.integers(0, len(prompt) - 1))
    assert k in find(prompt, prompt[k])


def test_find_lists_the_words_there_are() -> None:
    with pytest.raises(InputError, match=r"source_prompt: has no word 'dog'.*a, cat"):
        find(["a", "cat"], "dog", field="source_prompt")
    with pytest.raises(InputError, match="none"):
        find([], "dog")
