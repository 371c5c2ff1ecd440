"""The words as tokens: a byte-level BPE in CLIP's file format; every known word is one token."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
from transformers import CLIPTokenizer

from customedit.mini.captions import describe
from customedit.mini.scenes import sample_scene
from customedit.mini.vocabulary import words

MAX_TOKENS = 40
"""Length of the text context, start and end tokens included."""

START, END = "<|startoftext|>", "<|endoftext|>"


def _byte_alphabet() -> list[str]:
    """CLIP's 256 printable stand-ins for bytes (the same table as GPT-2's)."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in visible]
    return [chr(b) for b in visible] + [chr(256 + k) for k in range(len(hidden))]


def _merges(corpus: dict[str, int], known: frozenset[str]) -> list[tuple[str, str]]:
    """Byte-pair merges that make each word of ``corpus`` one token, the commonest pair first."""
    split = {w: (*w[:-1], w[-1] + "</w>") for w in corpus}
    merges: list[tuple[str, str]] = []
    while True:
        pairs: dict[tuple[str, str], int] = {}
        for word, parts in split.items():
            for pair in itertools.pairwise(parts):
                pairs[pair] = pairs.get(pair, 0) + corpus[word]
        if not pairs:
            return merges
        best = max(pairs, key=lambda p: (pairs[p], p))
        merges.append(best)
        for word, parts in split.items():
            joined: list[str] = []
            for part in parts:
                if joined and (joined[-1], part) == best:
                    joined[-1] += part
                else:
                    joined.append(part)
            split[word] = tuple(joined)


def write_tokenizer(folder: Path, captions: int = 4000) -> None:
    """Write ``vocab.json``, ``merges.txt`` and the config of the mini's tokenizer to ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    corpus = {w: 1 for w in sorted(words())}
    for seed in range(captions):
        for word in describe(sample_scene(seed), rng).split():
            corpus[word] = corpus.get(word, 0) + 1
    merges = _merges(corpus, words())
    alphabet = _byte_alphabet()
    tokens = [*alphabet, *(c + "</w>" for c in alphabet), *("".join(m) for m in merges)]
    vocab = {t: k for k, t in enumerate(dict.fromkeys([*tokens, START, END]))}
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
    lines = ["#version: 0.2", *(" ".join(m) for m in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    tokenizer = CLIPTokenizer(
        str(folder / "vocab.json"),
        str(folder / "merges.txt"),
        model_max_length=MAX_TOKENS,
        pad_token=END,
    )
    tokenizer.save_pretrained(folder)


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    """The tokenizer that :func:`write_tokenizer` wrote to ``folder``."""
    return CLIPTokenizer.from_pretrained(folder)
