"""Tokens counted without a model are those that the model's own reading makes."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import CLIPTokenizer

from customedit.diffusion.base import Base
from customedit.diffusion.facts import BaseFacts, TokenizerFacts
from customedit.diffusion.text import tokenize
from customedit.errors import InputError
from customedit.prompt_syntax import check_prompt

from .flow_folders import t5_tokenizer

CONCEPTS = {
    "<look>": torch.zeros(8),
    "<many>": torch.zeros(5, 8),
    "<lora>": torch.zeros(0, 8),
}
COLUMNS = {token: len(torch.atleast_2d(vectors)) for token, vectors in CONCEPTS.items()}
PROMPTS = [
    "",
    "a photo of a red cup on a table",
    "A Photo of a RED cup, isn't it?  We'll see: 2 cups, 3.14!",
    "a <look> patterned cup and a <many>-like thing <lora>",
    "<look><many>cup<look>, 'a<look>'s",
    "naïve café — Ünïcödé “quotes” … ½ ﬁne",
    "e\u0301 decomposed, I\u0307stanbul, Σίσυφος, ΟΔΟΣ",
    "漢字かな交じり文 한국어 العربية हिन्दी",
    "emoji 🫖🏽 👩‍👩‍👧 and a\u200bzero width\u00a0space\ttab\nline",
    "a_b-c/d\\e ### $$$ @@ 12345 x" + "y" * 200,
]


def fuzzed(seed: int) -> str:
    chosen = random.Random(seed)
    alphabet = "abcdefgh zyx  ABC 019 .,'!-_/é ß漢🫖\u0301\u200d\u00a0"
    parts = ["".join(chosen.choices(alphabet, k=chosen.randrange(12))) for _ in range(12)]
    names = [chosen.choice(["", "", *CONCEPTS]) for _ in parts]
    return " ".join(part + name for part, name in zip(parts, names, strict=True))


def readable(prompt: str) -> bool:
    """Whether it has no syntax that is refused before tokens are counted."""
    try:
        check_prompt(prompt, CONCEPTS)
    except InputError:
        return False
    return True


@pytest.fixture(scope="module")
def clip_like(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    """CLIP's own layout: 256 bytes, the same at a word's end, merges, start and end; 77 tokens."""
    folder = tmp_path_factory.mktemp("clip")
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in visible]
    letters = [*map(chr, visible), *(chr(256 + k) for k in range(len(hidden)))]
    merges = ["c u", "cu p</w>", "p h", "o t", "ph ot", "phot o</w>", "t h", "th e</w>", "i n</w>"]
    ends = [f"{letter}</w>" for letter in letters]
    joined = ["".join(merge.split()) for merge in merges]
    vocabulary = [*letters, *ends, *joined, "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: k for k, token in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    return CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77,
        pad_token="<|endoftext|>",
    )  # fmt: skip


def test_the_counts_are_equal(base: Base, clip_like: CLIPTokenizer) -> None:
    lengths = set()
    for tokenizer in (base.tokenizer, clip_like, t5_tokenizer()):
        facts, whole = TokenizerFacts.of(tokenizer), BaseFacts.of([tokenizer], "f")
        for prompt in filter(readable, [*PROMPTS, *map(fuzzed, range(300))]):
            counted = facts.count(prompt, COLUMNS)
            try:
                read = tokenize(tokenizer, prompt, CONCEPTS, "prompt")
            except InputError as error:
                assert counted > facts.length
                with pytest.raises(InputError) as refused:
                    whole.check(prompt, COLUMNS, "prompt")
                assert str(refused.value) == str(error)
                continue
            whole.check(prompt, COLUMNS, "prompt")
            end = read.spans[-1][1] if read.spans else facts.marks - 1
            assert counted == end + 1, prompt
            lengths.add(counted)
    assert len(lengths) > 30


@pytest.mark.parametrize("words", [38, 39])
def test_the_limit_is_the_same(base: Base, words: int) -> None:
    prompt, facts = " ".join(["cup"] * words), BaseFacts.of([base.tokenizer], "f")
    fits = words == 38
    for check in (
        lambda: facts.check(prompt, {}, "target_prompt"),
        lambda: base.tokens(prompt, (), "target_prompt"),
    ):
        if fits:
            check()
        else:
            with pytest.raises(InputError, match=r"^target_prompt: takes 41 tokens .* by 1 tokens"):
                check()


def test_each_tokenizer_of_a_base_is_a_limit(base: Base, clip_like: CLIPTokenizer) -> None:
    facts = BaseFacts.of([clip_like, base.tokenizer], "f")
    facts.check("a red cup", {}, "prompt")
    with pytest.raises(InputError, match="the model reads 40"):
        facts.check(" ".join(["cup"] * 39), {}, "prompt")
    with pytest.raises(InputError, match="the model reads 77"):
        facts.check(" ".join(["table"] * 39), {}, "prompt")


def test_facts_are_read_again_as_they_were_written(base: Base) -> None:
    facts = BaseFacts.of([base.tokenizer], base.fingerprint)
    again = BaseFacts.model_validate_json(facts.model_dump_json())
    assert again == facts and again.tokenizers[0].count("a red cup", {}) == 5


def test_a_limit_of_an_earlier_call_is_no_limit_of_the_count(
    base: Base, clip_like: CLIPTokenizer
) -> None:
    clip_like("a cup", truncation=True, max_length=4, padding="max_length")
    facts = TokenizerFacts.of(clip_like)
    assert facts.count("a", {}) == 3 and facts.count("a cup and a cup", {}) > 6


def test_no_torch_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom customedit.diffusion.facts import BaseFacts\n"
        "facts = BaseFacts.model_validate_json(open(sys.argv[1]).read())\n"
        "count = facts.tokenizers[0].count('a red cup', {})\n"
        "print(count, 'torch' in sys.modules, 'transformers' in sys.modules)"
    )
    facts = BaseFacts.of([Base.load().tokenizer], "f")
    (tmp_path / "facts.json").write_text(facts.model_dump_json())
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "facts.json")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["5", "False", "False"]
