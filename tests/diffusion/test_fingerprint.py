"""Which bases are told apart, and which concepts are taken."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from customedit import mini
from customedit.concepts.concept import Concept
from customedit.diffusion.base import Base
from customedit.errors import InputError

from . import folders
from .conftest import change


def _weights(path: str) -> list[str]:
    with safe_open(mini.path() / path, "pt") as file:
        return list(file.keys())


@pytest.fixture(scope="module")
def concept(base: Base) -> Concept:
    made = change(base, "<a>", 1)
    return Concept(made.tokens, made.keys, made.values, base=base.concept_fingerprint)


@pytest.mark.parametrize("part", [folders.UNET, folders.TEXT, folders.VAE])
def test_one_number_of_any_part_makes_another_base(part: str, base: Base, tmp_path: Path) -> None:
    """Of a weight that no sample of the keys and values holds, by less than float16 tells."""
    folder = folders.copied(tmp_path)
    names = [n for n in _weights(part) if "attn2.to_k" not in n and "attn2.to_v" not in n]

    def nudged(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        wide = folders.widened(tensors)
        name = names[len(names) // 2]
        flat = wide[name].view(-1)
        flat[-1] = torch.nextafter(flat[-1], torch.tensor(torch.inf))
        return wide

    folders.reweigh(folder / part, nudged)
    assert Base.load(folder).fingerprint != base.fingerprint


def test_equal_values_are_one_base_whatever_the_file_and_the_dtype(
    base: Base, tmp_path: Path
) -> None:
    folder = folders.copied(tmp_path)
    for part in (folders.UNET, folders.TEXT, folders.VAE):
        folders.reweigh(folder / part, folders.widened)
    folders.shard(folder / folders.UNET)
    other = Base.load(folder, dtype=torch.bfloat16)
    assert other.fingerprint == base.fingerprint and len(base.fingerprint) == 32
    assert other.concept_fingerprint == base.concept_fingerprint
    assert Base.load(dtype=torch.float16).fingerprint == base.fingerprint


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("vae/config.json", {"scaling_factor": 1.0}),
        ("unet/config.json", {"norm_eps": 1e-6}),
        ("text_encoder/config.json", {"hidden_act": "gelu"}),
        ("tokenizer/tokenizer_config.json", {"model_max_length": 30}),
    ],
)
def test_settings_that_change_a_result_make_another_base(
    file: str, changes: dict[str, object], base: Base, tmp_path: Path
) -> None:
    folder = folders.copied(tmp_path)
    folders.configure(folder / file, changes)
    assert Base.load(folder).fingerprint != base.fingerprint


def test_settings_that_are_defaults_make_no_difference(base: Base, tmp_path: Path) -> None:
    """As a release of diffusers adds one."""
    folder = folders.copied(tmp_path)
    folders.configure(folder / "unet" / "config.json", {"time_embedding_type": ..., "dropout": ...})
    folders.configure(folder / "unet" / "config.json", {"_diffusers_version": "0.99.0"})
    assert Base.load(folder).fingerprint == base.fingerprint


def test_a_concept_is_taken_by_copies_of_its_base_and_by_no_other(
    base: Base, concept: Concept, tmp_path: Path
) -> None:
    folder = folders.copied(tmp_path)
    autoencoder = next(n for n in _weights(folders.VAE) if n.endswith("weight"))
    folders.reweigh(folder / folders.VAE, folders.nudged(autoencoder, 0.01))
    other = Base.load(folder)  # another autoencoder: other inversions, the same concepts
    assert other.fingerprint != base.fingerprint
    assert concept.for_base(other).base == base.concept_fingerprint
    for part, name in (
        (folders.UNET, next(n for n in _weights(folders.UNET) if "attn2.to_k" in n)),
        (folders.TEXT, _weights(folders.TEXT)[3]),
    ):
        again = folders.copied(tmp_path / part.replace("/", "-"))
        folders.reweigh(again / part, folders.nudged(name, 0.01))
        with pytest.raises(InputError, match=r"concept: was made for the base .*, this is .*"):
            concept.for_base(Base.load(again))


def _named_by_earlier_versions(base: Base) -> str:
    """What concept files of version 0.1 name: a digest of some key and value weights."""
    digest = hashlib.sha256(json.dumps(list(base.layers)).encode())
    for layer in base.layers:
        for part in ("to_k", "to_v"):
            name = f"{layer}.{part}.weight"
            numbers = base.denoiser.state_dict()[name].flatten()
            every = max(1, len(numbers) // 64)
            digest.update(f"{name}{tuple(base.weights[name].shape)}".encode())
            digest.update(numbers[::every][:64].half().numpy().tobytes())
    return digest.hexdigest()[:16]


def test_concept_files_of_earlier_versions_are_still_taken(base: Base, concept: Concept) -> None:
    earlier = dataclasses.replace(concept, base=_named_by_earlier_versions(base))
    assert earlier.for_base(base).base == base.concept_fingerprint
    assert dataclasses.replace(concept, base="").for_base(base).base == ""
    with pytest.raises(InputError, match="was made for the base 0123456789abcdef, this is"):
        dataclasses.replace(concept, base="0123456789abcdef").for_base(base)
