"""Concepts in other programs' files: diffusers' Custom Diffusion, and adobe's original code.

diffusers: ``pytorch_custom_diffusion_weights.safetensors`` or ``.bin`` with whole weights under
``{layer}.processor.to_k_custom_diffusion.weight``, and one file ``<plaid>.safetensors`` or
``.bin`` a token. adobe (adobe-research/custom-diffusion): ``delta.bin``, ``{"unet":
{"{layer}.to_k.weight": W'}, "modifier_token": {"<new1>": vector}}``; compressed, each W' is
``{"u": [inner, r], "v": [r, width]}`` with W' = W + u v.

Stock diffusers (0.42) reads what ``save_diffusers`` writes with

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
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from customedit.concepts.compress import LowRankConcept
from customedit.concepts.concept import (
    FORMAT,
    MAX_BYTES,
    Concept,
    base_weight,
    check_finite,
    check_size,
    portable,
    replacing,
    restore,
)
from customedit.errors import InputError

DIFFUSERS_WEIGHTS = "pytorch_custom_diffusion_weights"
Suffix = Literal[".safetensors", ".bin"]

_DIFFUSERS = re.compile(r"(?:unet\.)?(.+\.attn2)\.processor\.(to_[kv])_custom_diffusion\.weight")
_ADOBE = re.compile(r"(?:unet\.)?(.+\.attn2)\.(to_[kv])\.weight")
_NAMES = ("<*>", "learned_embeds*", DIFFUSERS_WEIGHTS, "*delta*")
_AGAIN = "copy or download it again, whole, from someone you trust"


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


@dataclass(frozen=True)
class Found:
    """What one or more files hold: tokens to [1, width] or [width]; weights as in ``Concept``."""

    tokens: dict[str, Tensor]
    weights: dict[str, Tensor]


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


def save_diffusers(
    concept: Concept,
    folder: Path,
    *,
    suffix: Suffix = ".safetensors",
    layers: Iterable[str] | None = None,
) -> list[Path]:
    """Write ``concept`` for stock diffusers, and return the files: the weights', then each token's.

    The call that loads them is at the top of this module (with ``.bin`` for pickles). A concept
    without weights (Textual Inversion) has token files only.

    layers: all cross-attention layers of the base (``Base.layers``), to be given if the concept
    customises only some, because diffusers wants an entry for each; each has a self-attention
    ``attn1`` beside it, as in Stable Diffusion.

    Raises:
        InputError: if the concept has layers that are not in ``layers``.
    """
    check_finite(concept.tokens | concept.weights, "it")
    written = []
    if concept.keys:
        path = folder / f"{DIFFUSERS_WEIGHTS}{suffix}"
        _write(path, _processors(concept, list(concept.keys if layers is None else layers), suffix))
        written.append(path)
    for token, vector in concept.tokens.items():
        path = folder / f"{token}{suffix}"
        _write(path, portable({token: vector}))
        written.append(path)
    return written


def save_adobe(concept: Concept, path: Path) -> None:
    """Write a ``delta.bin`` for adobe-research/custom-diffusion's diffusers code.

    Raises:
        InputError: for numbers that are not finite.
    """
    check_finite(concept.tokens | concept.weights, "it")
    tokens, weights = portable(concept.tokens), portable(concept.weights)
    _write_pickle(path, {"modifier_token": tokens, "unet": weights})


def save_adobe_compressed(concept: LowRankConcept, path: Path) -> None:
    """Write a ``compressed_delta.bin`` for adobe-research/custom-diffusion's diffusers code."""
    thin = {f"{n}.weight": portable({"u": f.up, "v": f.down}) for n, f in concept.factors.items()}
    _write_pickle(path, {"modifier_token": portable(concept.plain.tokens), "unet": thin})


# writing


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
        _write_pickle(path, entries)


def _write_pickle(path: Path, entries: dict[str, Any]) -> None:
    with replacing(path) as draft, draft.open("wb") as stream:
        torch.save(entries, stream)


# reading


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
    held = _read_safe(path) if path.suffix == ".safetensors" else _read_pickle(path, max_bytes)
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
            "concept", f"{path} is truncated or no safetensors file ({error})", _AGAIN
        ) from None


def _read_pickle(path: Path, max_bytes: int) -> Any:
    """What is pickled in ``path``, by torch's own unpickler that calls nothing but tensors' makers.

    Sizes are looked at on both sides of it: archives can be packed, and a tensor of a few bytes
    can claim, by strides of zero, to be of any size.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                _check_room(path, sum(i.file_size for i in archive.infolist()), max_bytes)
        held = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # hostile pickles make the unpickler raise anything
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            "concept",
            f"{path} is truncated, no PyTorch file, or holds more than tensors ({reason[0]})",
            _AGAIN,
        ) from None
    _check_room(path, _bytes(held, path), max_bytes)
    return held


def _check_room(path: Path, size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise InputError(
            "concept",
            f"{path} unpacks to {size} bytes, the limit is {max_bytes}",
            "compress it to low rank, or raise the limit if you trust it",
        )


def _bytes(held: Any, path: Path) -> int:
    """Of all tensors in nested dicts, if each were made whole; dicts may hold themselves."""
    size, left, seen = 0, [held], set()
    while left:
        entry = left.pop()
        if isinstance(entry, Mapping) and id(entry) not in seen:
            seen.add(id(entry))
            left += entry.values()
        elif isinstance(entry, Tensor):
            if entry.layout != torch.strided or entry.is_quantized or entry.device.type != "cpu":
                raise InputError("concept", f"{path} holds a tensor that is not plain", _AGAIN)
            size += entry.numel() * entry.element_size()
    return size


def _sort(held: Mapping[str, Any], path: Path, base_weights: Mapping[str, Tensor] | None) -> Found:
    """Tokens and weights of one file, by what its entries are called."""
    if "unet" in held or "modifier_token" in held:
        return _adobe(held, path, base_weights)
    if any("custom_diffusion" in k for k in held):
        return Found({}, _diffusers(held, path))
    if held and all(isinstance(v, Tensor) and v.ndim in (1, 2) for v in held.values()):
        dotted = next((k for k in held if "." in k), None)
        if dotted is None:
            return Found({k: _plain(v, k, path) for k, v in held.items()}, {})
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


def _diffusers(held: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    for name, value in held.items():
        if name.endswith(".processor") and _empty(value):
            continue  # a processor that trained nothing
        match = _DIFFUSERS.fullmatch(name)
        if not match:
            raise _foreign(name, path)
        weights[f"{match[1]}.{match[2]}.weight"] = _plain(value, name, path)
    return weights


def _empty(value: Any) -> bool:
    return value.numel() == 0 if isinstance(value, Tensor) else value == {}


def _adobe(held: Mapping[str, Any], path: Path, base_weights: Mapping[str, Tensor] | None) -> Found:
    extra = sorted(held.keys() - {"unet", "modifier_token"})
    if extra:
        raise _foreign(extra[0], path)
    tokens, unet = held.get("modifier_token") or {}, held.get("unet") or {}
    if not isinstance(tokens, Mapping) or not isinstance(unet, Mapping):
        raise InputError("concept", f"{path} has 'unet' or 'modifier_token' without names", _AGAIN)
    weights: dict[str, Tensor] = {}
    for name, value in unet.items():
        match = _ADOBE.fullmatch(str(name))
        if not match:
            raise _foreign(str(name), path)
        own = f"{match[1]}.{match[2]}.weight"
        weights[own] = (
            _expanded(value, own, path, base_weights)
            if isinstance(value, Mapping)
            else _plain(value, own, path)
        )
    return Found({str(t): _plain(v, str(t), path) for t, v in tokens.items()}, weights)


def _expanded(
    value: Mapping[str, Any], name: str, path: Path, base_weights: Mapping[str, Tensor] | None
) -> Tensor:
    """W + u v of adobe's compressed delta."""
    if value.keys() != {"u", "v"}:
        raise InputError(
            "concept", f"{path} has {sorted(map(str, value))} for {name}, not u and v", _AGAIN
        )
    up, down = (_plain(value[k], f"{name}.{k}", path) for k in ("u", "v"))
    return restore(up, down, base_weight(base_weights, name, str(path)))


def _foreign(name: str, path: Path) -> InputError:
    return InputError(
        "concept",
        f"{path} holds {name}; a concept has tokens and cross-attention keys and values only",
        "train it without queries, outputs or text encoder (freeze_model crossattn_kv)",
    )


def _plain(value: Any, name: str, path: Path) -> Tensor:
    """``value`` as a tensor of its own, without gradient or strides of zero."""
    if not isinstance(value, Tensor):
        raise InputError(
            "concept", f"{path} holds a {type(value).__name__} for {name}, no tensor", _AGAIN
        )
    plain = value.detach().contiguous()
    check_finite({name: plain}, str(path))
    return plain


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
