"""Textual-inversion embeddings of other programs (arXiv 2208.01618): read, and written.

| made by | file | what is in it |
|---|---|---|
| diffusers' script | ``learned_embeds.*`` | ``{"<token>": [width] or [n, width]}`` |
| AUTOMATIC1111 | ``name.pt`` | ``{"string_to_param": {"*": [n, width]}, "name": ...}`` |
| several | ``name.safetensors`` | ``{"emb_params": [n, width]}``; the file's name is the token |
| several, for SDXL | the same | ``{"clip_l": [n, width], "clip_g": [n, width]}``, also ``t5xxl`` |
| diffusers, for SDXL | ``name_emb.safetensors`` | ``{"text_encoders_0": [n, width], ...}`` |

A token of n vectors takes n columns of the prompt. Where a base has several text encoders, a vector
holds theirs one after another (``Family.embedding_parts``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file
from torch import Tensor

from customedit.concepts.files.entries import TRUSTED, StateDict, plain_tensor, portable
from customedit.errors import InputError
from customedit.files import replacing
from customedit.prompt_syntax import CONCEPT

UNNAMED: Final = ""
"""A token that the file does not name."""

_PART: Final = re.compile(r"clip_[lg]|t5xxl|text_encoders_\d")


def read_embeddings(state: StateDict, parts: Mapping[str, int] | None) -> dict[str, Tensor] | None:
    """Tokens to [width] or [n, width], spelt as in the file; None if it holds no embeddings.

    parts: ``Family.embedding_parts`` of the base, None if it is not known.

    Raises:
        InputError: naming the file, for vectors that are no finite floats, or are not those of the
            base's text encoders.
    """
    entries, path = state.entries, state.path
    if entries and all(_PART.fullmatch(name) for name in entries):
        return {UNNAMED: _joined_parts(state, parts)}
    if "string_to_param" in entries:
        params = entries["string_to_param"]
        if not isinstance(params, Mapping) or not params:
            raise InputError("concept", f"{path} has no vectors in string_to_param", TRUSTED)
        name = str(entries.get("name") or UNNAMED)
        named = {name if str(k) == "*" else str(k): v for k, v in params.items()}
    elif "emb_params" in entries:
        named = {UNNAMED: entries["emb_params"]}
    elif entries and all(_is_vectors(n, v) for n, v in entries.items()):
        named = dict(entries)
    else:
        return None
    return {token: plain_tensor(v, token or "its vectors", path) for token, v in named.items()}


def _joined_parts(state: StateDict, parts: Mapping[str, int] | None) -> Tensor:
    """[n, width] of a file that has the vectors of each text encoder on their own."""
    path, there = state.path, ", ".join(sorted(state.entries))
    if parts is None:
        raise InputError(
            "base", "is missing", f"{path} has vectors of {there}: give the base it is for"
        )
    numbered = {f"text_encoders_{k}": name for k, name in enumerate(parts)}
    vectors = {
        numbered.get(name, name): torch.atleast_2d(plain_tensor(value, name, path))
        for name, value in state.entries.items()
    }
    fits = vectors.keys() == parts.keys() and len(vectors) > 1
    if not fits or any(v.shape[-1] != parts[name] for name, v in vectors.items()):
        wanted = ", ".join(f"{name} of width {width}" for name, width in parts.items())
        found = ", ".join(f"{name} of width {v.shape[-1]}" for name, v in vectors.items())
        raise InputError(
            "concept",
            f"{path} is an embedding of {found}; this base's text encoders are {wanted}",
            "use one that was trained for this base",
        )
    if len({len(v) for v in vectors.values()}) > 1:
        raise InputError("concept", f"{path} has other numbers of vectors in {there}", TRUSTED)
    return torch.cat([vectors[name] for name in parts], -1)


def _is_vectors(name: str, value: Any) -> bool:
    return "." not in name and isinstance(value, Tensor) and value.ndim in (1, 2)


def read_bundled(state: StateDict) -> dict[str, Tensor]:
    """The embeddings inside a LoRA's file (``bundle_emb.{token}.emb_params`` of kohya's kind)."""
    form = re.compile(r"bundle_emb\.(.+?)\.(?:emb_params|string_to_param\.\*)")
    matches = ((form.fullmatch(name), value) for name, value in state.entries.items())
    return {m[1]: plain_tensor(v, m[0], state.path) for m, v in matches if m}


def save_embedding(vectors: Tensor, path: Path, parts: Mapping[str, int]) -> None:
    """Write [width] or [n, width] as A1111, ComfyUI and diffusers read it.

    parts: ``Family.embedding_parts``: ``emb_params`` for one, else each under its name.
    """
    matrix = torch.atleast_2d(vectors)
    entries = {"emb_params": matrix}
    if len(parts) > 1:
        entries = dict(zip(parts, matrix.split(list(parts.values()), -1), strict=True))
    with replacing(path) as draft:
        save_file(portable(entries), draft, {"format": "pt"})


def spelled(name: str) -> str | None:
    """``name`` as a concept token: ``<cat-toy>`` for "Cat Toy"; None if nothing of it can be kept.

    A token that is well spelt stays as it is.
    """
    if CONCEPT.fullmatch(name):
        return name
    plain = re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-_")[:63]
    return f"<{plain}>" if plain else None


def final_files(files: list[Path]) -> list[Path]:
    """``files`` of a training folder without those of earlier steps (``name-steps-500``).

    Of each name the file without steps is the final one; without it that of the most steps.
    """
    best: dict[tuple[Path, str], tuple[float, Path]] = {}
    for path in files:
        match = re.fullmatch(r"(.+)-steps-(\d+)", path.stem)
        name, steps = (match[1], float(match[2])) if match else (path.stem, float("inf"))
        chosen_before = best.get((path.parent, name))
        if chosen_before is None or steps > chosen_before[0]:
            best[path.parent, name] = steps, path
    chosen = {path for _, path in best.values()}
    return [p for p in files if p in chosen]
