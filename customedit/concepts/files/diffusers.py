"""diffusers' Custom Diffusion files, written and read.

``pytorch_custom_diffusion_weights.safetensors`` or ``.bin`` with whole weights under
``{layer}.processor.to_k_custom_diffusion.weight``, and one file ``<plaid>.safetensors`` or
``.bin`` a token. Stock diffusers (0.42) reads what ``save_diffusers`` writes with

    pipe.unet.load_attn_procs(
        folder, weight_name="pytorch_custom_diffusion_weights.safetensors", _pipeline=pipe
    )
    pipe.load_textual_inversion(folder, weight_name="<plaid>.safetensors")

``_pipeline=pipe`` must be there: without it ``load_attn_procs`` reads the file, says nothing and
changes nothing (``UNet2DConditionLoadersMixin.load_attn_procs``, where the processors are set
inside ``if _pipeline is not None``). Nor can it load the safetensors file that diffusers itself
saves ("4 processors != 8 layers"), which lacks the entries of the self-attention; ours has them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from customedit.concepts.checks import check_finite
from customedit.concepts.concept import Concept
from customedit.concepts.files.entries import (
    foreign_entry,
    plain_tensor,
    portable,
    write_pickle,
)
from customedit.concepts.files.lora import LORA_WEIGHTS, lora_entries
from customedit.errors import InputError
from customedit.files import replacing

DIFFUSERS_WEIGHTS = "pytorch_custom_diffusion_weights"
Suffix = Literal[".safetensors", ".bin"]

_WEIGHT = re.compile(r"(?:unet\.)?(.+\.attn2)\.processor\.(to_[kv])_custom_diffusion\.weight")


def save_diffusers(
    concept: Concept,
    folder: Path,
    *,
    suffix: Suffix = ".safetensors",
    layers: Iterable[str] | None = None,
    parts: Mapping[str, int] | None = None,
) -> list[Path]:
    """Write ``concept`` for stock diffusers, and return the files: the weights', then each token's.

    The call that loads them is at the top of this module (with ``.bin`` for pickles). A concept
    without weights (Textual Inversion) has token files only.

    layers: all cross-attention layers of the base (``Base.layers``), to be given if the concept
    customises only some, because diffusers wants an entry for each; each has a self-attention
    ``attn1`` beside it, as in Stable Diffusion.

    parts: ``Family.embedding_parts`` of a base with several text encoders, whose vectors are
    written each under its name, for ``pipe.load_textual_inversion(state[part], token, text_encoder,
    tokenizer)``.

    Adapters go into ``pytorch_lora_weights.safetensors``, for ``pipe.load_lora_weights(folder)``.

    Raises:
        InputError: if the concept has layers that are not in ``layers``.
    """
    check_finite(concept.tensors, "concept")
    written = []
    if concept.keys:
        path = folder / f"{DIFFUSERS_WEIGHTS}{suffix}"
        _write(path, _processors(concept, list(concept.keys if layers is None else layers), suffix))
        written.append(path)
    if concept.adapters:
        path = folder / LORA_WEIGHTS
        _write(path, portable(lora_entries(concept.adapters, len(parts) if parts else 1)))
        written.append(path)
    for token, vector in concept.tokens.items():
        if vector.numel():  # else it stands for adapters alone
            path = folder / f"{token}{suffix}"
            entries = {token: vector}
            if parts is not None and len(parts) > 1:
                split = torch.atleast_2d(vector).split(list(parts.values()), -1)
                entries = dict(zip(parts, split, strict=True))
            _write(path, portable(entries))
            written.append(path)
    return written


def _processors(concept: Concept, layers: list[str], suffix: Suffix) -> dict[str, Any]:
    """What ``load_attn_procs`` makes processors of: one entry or two for each of the UNet's.

    It takes whatever has length 0 for a processor that trained nothing. A pickle holds {} for it,
    as diffusers writes; safetensors holds tensors only, and one without numbers does as well.
    """
    unknown = [n for n in concept.keys if n not in layers]
    if unknown:
        raise InputError(
            "layers", f"lack the concept's {unknown[0]}", "give those of the base it was made for"
        )
    empty: Callable[[], Any] = dict if suffix == ".bin" else lambda: torch.zeros(0)
    entries: dict[str, Any] = {}
    for layer in layers:
        entries[f"{layer.removesuffix('attn2')}attn1.processor"] = empty()
        if layer not in concept.keys:
            entries[f"{layer}.processor"] = empty()
    named = {
        name.replace(".to_", ".processor.to_").replace(".weight", "_custom_diffusion.weight"): w
        for name, w in concept.weights.items()
    }
    return entries | portable(named)


def _write(path: Path, entries: dict[str, Any]) -> None:
    if path.suffix == ".safetensors":
        with replacing(path) as draft:
            save_file(entries, draft, {"format": "pt"})
    else:
        write_pickle(path, entries)


def read_weights(entries: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """``{layer}.to_k.weight`` and so on of a weights' file.

    Raises:
        InputError: naming the file, for an entry that no concept has.
    """
    weights: dict[str, Tensor] = {}
    for name, value in entries.items():
        if name.endswith(".processor") and _is_empty(value):
            continue  # a processor that trained nothing
        match = _WEIGHT.fullmatch(name)
        if not match:
            raise foreign_entry(name, path)
        weights[f"{match[1]}.{match[2]}.weight"] = plain_tensor(value, name, path)
    return weights


def _is_empty(value: Any) -> bool:
    return value.numel() == 0 if isinstance(value, Tensor) else value == {}
