from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from customedit.mini import captions, text
from customedit.mini.scenes import sample_scene
from customedit.mini.vocabulary import LOOKS, words

WORDS = sorted(words())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    text.write_tokenizer(folder, captions=50)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> CLIPTokenizer:
    return text.load_tokenizer(folder)


@pytest.mark.parametrize("word", WORDS)
def test_every_known_word_is_one_token(tokenizer: CLIPTokenizer, word: str) -> None:
    assert tokenizer.tokenize(word) == [word + "</w>"]
    assert tokenizer.tokenize(f"a {word} vase") == ["a</w>", word + "</w>", "vase</w>"]


@given(seed=st.integers(0, 10**6))
def test_captions_come_back_and_fit(tokenizer: CLIPTokenizer, seed: int) -> None:
    caption = captions.describe(sample_scene(seed), np.random.default_rng(seed))
    ids = tokenizer(caption).input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert ids[-1] == tokenizer.eos_token_id
    assert len(ids) == len(caption.split()) + 2 <= text.MAX_TOKENS
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == caption


@pytest.mark.parametrize("word", [*LOOKS, "dragon", "façade", "sofa"])
def test_unknown_words_are_split_into_known_pieces(tokenizer: CLIPTokenizer, word: str) -> None:
    ids = tokenizer(word, add_special_tokens=False).input_ids
    assert len(ids) > len(word.split())
    assert set(ids).isdisjoint(tokenizer.all_special_ids)
    assert tokenizer.decode(ids).strip() == word


def test_case_does_not_matter(tokenizer: CLIPTokenizer) -> None:
    assert tokenizer("A Red VASE").input_ids == tokenizer("a red vase").input_ids


def test_padding_and_cutting_give_the_context_length(tokenizer: CLIPTokenizer) -> None:
    for prompt in ("", "a vase", "a vase " * 40):
        ids = tokenizer(prompt, padding="max_length", truncation=True).input_ids
        assert len(ids) == tokenizer.model_max_length == text.MAX_TOKENS
        assert ids[-1] == tokenizer.eos_token_id == tokenizer.pad_token_id


def test_it_loads_from_the_hub_layout_with_the_stock_class(
    folder: Path, tokenizer: CLIPTokenizer
) -> None:
    stock = CLIPTokenizer.from_pretrained(folder)
    assert stock.get_vocab() == tokenizer.get_vocab()


def test_writing_it_again_gives_the_same_files(folder: Path, tmp_path: Path) -> None:
    text.write_tokenizer(tmp_path, captions=50)
    written = sorted(path.name for path in folder.iterdir())
    assert written == sorted(path.name for path in tmp_path.iterdir())
    for name in written:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name
