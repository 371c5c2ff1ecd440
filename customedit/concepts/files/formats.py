"""Concepts in other programs' files: diffusers' Custom Diffusion, and adobe's original code.

The door to ``diffusers_format`` and ``adobe_format``: one ``load`` for both, told by a file's
contents, and what writes them. How stock diffusers loads what is written is at the top of
``diffusers_format``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from customedit.concepts.checks import check_finite
from customedit.concepts.concept import Concept
from customedit.concepts.files import adobe, diffusers, pickles
from customedit.concepts.files.adobe import save_adobe, save_adobe_compressed
from customedit.concepts.files.diffusers import DIFFUSERS_WEIGHTS, Suffix, save_diffusers
from customedit.concepts.files.own import FORMAT, MAX_BYTES, check_size
from customedit.concepts.files.state_dict import AGAIN, Found, plain
from customedit.errors import InputError

__all__ = [
    "DIFFUSERS_WEIGHTS",
    "Suffix",
    "Unsaid",
    "load",
    "save_adobe",
    "save_adobe_compressed",
    "save_diffusers",
]

_NAMES = ("<*>", "learned_embeds*", DIFFUSERS_WEIGHTS, "*delta*")


@dataclass(frozen=True)
class Unsaid:
    """What other programs' files do not tell of a concept; the first fields are as in ``Concept``.

    rename: tokens as in the file to tokens as they shall be, for those not spelt like ``<name>``.
    """

    noun: str = ""
    attribute: str = ""
    base: str = ""
    prompts: tuple[str, ...] = ()
    images: int = 0
    rename: Mapping[str, str] = field(default_factory=dict)


def load(
    sources: Path | Sequence[Path],
    unsaid: Unsaid | None = None,
    *,
    base_weights: Mapping[str, Tensor] | None = None,
    max_bytes: int = MAX_BYTES,
) -> Concept:
    """Read a concept of diffusers or adobe from a folder, a file or several; told by its contents.

    Of a folder, the files named as both programs name them are read; where one is there as
    safetensors and as pickle, the pickle is left alone. Pickles are read with ``weights_only``,
    so that none can run anything.

    sources: for diffusers the folder, or the weights' file and each token's; for adobe the delta;
    base_weights: ``{layer}.to_k.weight`` and ``{layer}.to_v.weight`` of the base, needed for
    adobe's compressed deltas only; max_bytes: of each file, and of what it holds.

    Raises:
        InputError: naming the file, for one that is missing, too large, truncated, of no known
            kind, would run code, or holds what no concept has (trained queries, whole encoders).
    """
    unsaid = unsaid or Unsaid()
    paths = _files([sources] if isinstance(sources, Path) else sources)
    tokens: dict[str, Tensor] = {}
    weights: dict[str, Tensor] = {}
    for path in paths:
        found = _sort(_read(path, max_bytes), path, base_weights)
        check_finite(found.tokens | found.weights, str(path))
        for held, new in ((tokens, found.tokens), (weights, found.weights)):
            twice = held.keys() & new.keys()
            if twice:
                raise InputError(
                    "concept", f"{path} gives {min(twice)} a second time", "leave one file out"
                )
            held.update(new)
    named = {unsaid.rename.get(t, t): _single(t, v) for t, v in tokens.items()}
    if len(named) < len(tokens):
        raise InputError("rename", "gives two tokens one name", "give each its own")
    return Concept(
        tokens=named,
        keys=_of(weights, "to_k"),
        values=_of(weights, "to_v"),
        noun=unsaid.noun,
        attribute=unsaid.attribute,
        base=unsaid.base,
        prompts=unsaid.prompts,
        recipe={"imported": [p.name for p in paths]},
        images=unsaid.images,
    )


def _files(sources: Sequence[Path]) -> list[Path]:
    """Each file that is meant; of twins in a folder, the one that is no pickle."""
    files: list[Path] = []
    for source in sources:
        if not source.is_dir():
            files.append(source)
            continue
        safe = {p.stem: p for k in _NAMES for p in sorted(source.glob(f"{k}.safetensors"))}
        pickled = {p.stem: p for k in _NAMES for p in sorted(source.glob(f"{k}.bin"))}
        found = [*{**pickled, **safe}.values()]
        if not found:
            raise InputError(
                "concept",
                f"{source} holds no file named like diffusers' ({DIFFUSERS_WEIGHTS}.*, <token>.*) "
                "or adobe's (delta.bin)",
                "give the file itself",
            )
        deltas = [p for p in found if "delta" in p.stem]
        if len(deltas) > 1:
            raise InputError(
                "concept", f"{source} holds {len(deltas)} deltas", "give one of the files itself"
            )
        files += found
    if not files:
        raise InputError("concept", "no file is given", "give a folder or files")
    return files


def _read(path: Path, max_bytes: int) -> Mapping[str, Any]:
    check_size(path, max_bytes)
    held = _read_safe(path) if path.suffix == ".safetensors" else pickles.read(path, max_bytes)
    if not isinstance(held, Mapping) or not all(isinstance(k, str) for k in held):
        raise InputError(
            "concept",
            f"{path} holds a {type(held).__name__}, no named entries",
            "give a file of diffusers' or adobe's Custom Diffusion",
        )
    return held


def _read_safe(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("format") == FORMAT:
                raise InputError("concept", f"{path} is our own format", "use Concept.load")
            return {n: file.get_tensor(n) for n in file.keys()}  # noqa: SIM118  # no mapping
    except (SafetensorError, OSError) as error:
        raise InputError(
            "concept", f"{path} is truncated or no safetensors file ({error})", AGAIN
        ) from None


def _sort(held: Mapping[str, Any], path: Path, base_weights: Mapping[str, Tensor] | None) -> Found:
    """Tokens and weights of one file, by what its entries are called."""
    if "unet" in held or "modifier_token" in held:
        return adobe.contents(held, path, base_weights)
    if any("custom_diffusion" in k for k in held):
        return Found({}, diffusers.weights_of(held, path))
    if held and all(isinstance(v, Tensor) and v.ndim in (1, 2) for v in held.values()):
        dotted = next((k for k in held if "." in k), None)
        if dotted is None:
            return Found({k: plain(v, k, path) for k, v in held.items()}, {})
    if "state_dict" in held:
        raise InputError(
            "concept",
            f"{path} is of adobe's first code, on CompVis' Stable Diffusion",
            "turn it into diffusers' with src/convert.py of adobe-research/custom-diffusion",
        )
    raise InputError(
        "concept",
        f"{path} is no Custom Diffusion file (it has {sorted(held)[:3]})",
        "give weights or tokens of diffusers, or a delta of adobe's code",
    )


def _single(token: str, vector: Tensor) -> Tensor:
    """[width] of [width] or [1, width]."""
    if vector.ndim == 2 and len(vector) == 1:
        return vector[0]
    if vector.ndim != 1:
        raise InputError(
            "tokens", f"{token} has shape {tuple(vector.shape)}", "give one vector a token"
        )
    return vector


def _of(weights: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """Layer to weight of ``part``, to_k or to_v."""
    end = f".{part}.weight"
    return {n.removesuffix(end): w for n, w in weights.items() if n.endswith(end)}
