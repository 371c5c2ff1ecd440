"""A concept's digest: of its contents, whatever file, device and dtype they came through."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from hypothesis import given
from hypothesis import strategies as st

from customedit.concepts.compress import compress
from customedit.concepts.concept import Concept
from customedit.concepts.digest import content_digest, tensors_digest

LAYER = "mid_block.attentions.0.transformer_blocks.0.attn2"


def concept(seed: int = 0, token: str = "<a>") -> Concept:
    generator = torch.Generator().manual_seed(seed)
    vector, key, value = (torch.randn(n, generator=generator) for n in (8, 48, 48))
    return Concept({token: vector}, {LAYER: key.view(6, 8)}, {LAYER: value.view(6, 8)}, noun="cup")


def test_a_file_has_the_digest_of_what_was_saved(tmp_path: Path) -> None:
    made = concept()
    made.save(tmp_path / "a.safetensors")
    loaded = Concept.load(tmp_path / "a.safetensors")
    assert loaded.digest == content_digest(loaded) == content_digest(made)


def test_words_and_dtype_of_use_do_not_count(tmp_path: Path) -> None:
    concept().save(tmp_path / "a.safetensors")
    loaded = Concept.load(tmp_path / "a.safetensors")
    used = dataclasses.replace(
        loaded, noun="jug", base="b", keys={k: v.bfloat16() for k, v in loaded.keys.items()},
        values={k: v.bfloat16() for k, v in loaded.values.items()},
    )  # fmt: skip
    assert content_digest(used) == content_digest(loaded)


def test_other_contents_have_other_digests(tmp_path: Path) -> None:
    made = concept()
    halved = Concept({t: v.half() for t, v in made.tokens.items()}, made.keys, made.values)
    without = Concept(dict(made.tokens))
    digests = {content_digest(c) for c in (made, concept(1), concept(token="<b>"), halved, without)}
    assert len(digests) == 5
    base = {n: torch.zeros(6, 8) for n in made.weights}
    small = compress(made, base, rank=2)
    assert content_digest(small.restore(base)) != content_digest(made)
    small.save(tmp_path / "small.safetensors")
    first, again = (Concept.load(tmp_path / "small.safetensors", base) for _ in range(2))
    assert content_digest(first) == content_digest(again) != content_digest(made)


@given(st.integers(0, 7), st.integers(0, 1))
def test_every_bit_counts_and_the_order_does_not(byte: int, name: int) -> None:
    tensors = {"a": torch.zeros(2), "b": torch.zeros(2)}
    changed = {k: v.clone() for k, v in tensors.items()}
    changed["ab"[name]].view(torch.uint8)[byte] = 1
    assert tensors_digest(changed) != tensors_digest(tensors)
    assert tensors_digest(dict(reversed(tensors.items()))) == tensors_digest(tensors)
