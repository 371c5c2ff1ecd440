"""CLIP's tokenizer (Radford et al., arXiv 2103.00020), from the merges that are bundled.

``clip_merges.txt.gz`` holds the 48,894 merges that CLIP uses of its
``bpe_simple_vocab_16e6.txt.gz`` (MIT licence, OpenAI), one a line.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Final

from transformers import CLIPTokenizer

_MERGES: Final = Path(__file__).with_name("clip_merges.txt.gz")
LENGTH: Final = 77
_START, _END, _WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"


def clip_tokenizer(pad: str = _END) -> CLIPTokenizer:
    """The tokenizer of every CLIP. pad: the token that fills a row."""
    merges = gzip.decompress(_MERGES.read_bytes()).decode("utf-8").split("\n")
    pairs = [(first, second) for first, second in (line.split(" ") for line in merges)]
    letters = _byte_letters()
    words = [*letters, *(letter + _WORD_END for letter in letters)]
    words += [first + second for first, second in pairs]
    vocabulary = {word: number for number, word in enumerate([*words, _START, _END])}
    return CLIPTokenizer(vocabulary, pairs, pad_token=pad, model_max_length=LENGTH)


def _byte_letters() -> list[str]:
    """The letter that stands for each byte, in CLIP's order: printable ones for themselves."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1),
                 *range(ord("®"), ord("ÿ") + 1)]  # fmt: skip
    others = 256 - len(printable)
    return [*map(chr, printable), *(chr(256 + k) for k in range(others))]
