"""Digests of a base: what an inversion or a recipe must match, and what a concept must match.

Three, since they answer different questions:

* ``whole``: every weight and setting that changes a result. Inversions, class images, checkpoints
  and recipes are kept under it.
* ``for_concepts``: the weights that a concept stands on, the cross-attention's keys and values and
  the text encoders. A concept file names it. It is rounded to float16, so that a concept made on a
  float32 folder is used on the float16 copy of it.
* ``sampled``: what files written before named: 64 numbers of each key and value weight. It is
  computed to recognise those files and is not written any more.

All are of the weights as they are in the file, before they are rounded to what a base computes in.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import torch
from torch import Tensor

from customedit.diffusion.families.layout import EncoderLayout, Layout

_THREADS: Final = min(8, os.cpu_count() or 1)
_TEXT_SETTINGS: Final = ("hidden_act", "layer_norm_eps", "num_attention_heads")
"""Of a text encoder, those that its weights do not show."""
_T5_SETTINGS: Final = (
    "feed_forward_proj", "layer_norm_epsilon", "num_heads", "relative_attention_max_distance",
)  # fmt: skip


def whole(pipeline: Any, layout: Layout) -> str:
    """A digest, 32 hex digits, of all weights, exact, and of the settings that change results.

    Weights are digested as float32: a file in float16 and one in float32 that hold equal values
    have equal digests, and any other value gives another.
    """
    digest = hashlib.sha256()
    for name in (layout.denoiser, *(e.part for e in _encoders(pipeline, layout)), "vae"):
        _add_weights(digest, name, getattr(pipeline, name), torch.float32)
    for name in (layout.denoiser, "vae"):
        digest.update(_canonical(_changed_settings(getattr(pipeline, name))))
    _add_text_settings(digest, pipeline, layout)
    if layout.options:
        digest.update(_canonical({name: pipeline.config[name] for name in layout.options}))
    return digest.hexdigest()[:32]


def for_concepts(
    pipeline: Any, layout: Layout, layers: Sequence[str], key_values: Mapping[str, Tensor]
) -> str:
    """A digest of the weights that concepts change and of the text encoders; 32 hex digits.

    Weights are digested as float16. key_values: ``Family.weights``, of ``layers``.
    """
    digest = hashlib.sha256(_canonical(list(layers)))
    _add(digest, key_values, torch.float16)
    for encoder in _encoders(pipeline, layout):
        _add_weights(digest, encoder.part, getattr(pipeline, encoder.part), torch.float16)
    _add_text_settings(digest, pipeline, layout)
    return digest.hexdigest()[:32]


def sampled(layers: Sequence[str], key_values: Mapping[str, Tensor]) -> str:
    """A digest of some key and value weights, 16 hex digits, as concept files once named it."""
    digest = hashlib.sha256(json.dumps(layers).encode())
    for name, weight in key_values.items():
        sample = weight.flatten()[:: max(1, weight.numel() // 64)][:64].float().cpu()
        digest.update(f"{name}{tuple(weight.shape)}".encode())
        digest.update(sample.half().numpy().tobytes())
    return digest.hexdigest()[:16]


def _add_weights(digest: Any, prefix: str, part: torch.nn.Module, dtype: torch.dtype) -> None:
    """Add the weights of ``part``; whole numbers (positions) are no weights."""
    state = {f"{prefix}.{n}": t for n, t in part.state_dict().items() if t.is_floating_point()}
    _add(digest, state, dtype)


def _add(digest: Any, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    """Add names, shapes and numbers in the order of names; the numbers on several threads."""

    def digest_of(tensor: Tensor) -> bytes:
        numbers = tensor.detach().to(dtype).cpu().contiguous()
        return hashlib.sha256(numbers.reshape(-1).numpy().data).digest()

    names = sorted(tensors)
    for name, found in zip(names, _mapped(digest_of, [tensors[n] for n in names]), strict=True):
        digest.update(f"{name}{tuple(tensors[name].shape)}".encode())
        digest.update(found)


def _mapped(function: Callable[[Tensor], bytes], tensors: Sequence[Tensor]) -> Iterator[bytes]:
    """``function`` of each; on threads if all are on the CPU (hashlib frees the lock)."""
    if any(t.device.type != "cpu" for t in tensors):
        return map(function, tensors)
    with ThreadPoolExecutor(_THREADS) as pool:
        return iter(list(pool.map(function, tensors)))


def _changed_settings(part: Any) -> dict[str, Any]:
    """The settings of a part that differ from its class's defaults.

    So that a release of diffusers that adds a setting leaves the digest as it is.
    """
    kind, config = type(part), part.config
    defaults = {n: p.default for n, p in inspect.signature(kind).parameters.items()}
    plain = json.loads(json.dumps({n: config[n] for n in config if n in defaults}, default=str))
    same = json.loads(json.dumps(defaults, default=str))
    return {n: value for n, value in plain.items() if value != same[n]} | {"class": kind.__name__}


def _encoders(pipeline: Any, layout: Layout) -> list[EncoderLayout]:
    """Those that the base has."""
    return [e for e in layout.encoders if getattr(pipeline, e.part) is not None]


def _add_text_settings(digest: Any, pipeline: Any, layout: Layout) -> None:
    for encoder in _encoders(pipeline, layout):
        model, tokenizer = getattr(pipeline, encoder.part), getattr(pipeline, encoder.tokenizer)
        digest.update(_text_settings(tokenizer, model.config))


def _text_settings(tokenizer: Any, config: Any) -> bytes:
    """What decides which states a prompt gets, beside the weights: vocabulary, merges, settings."""
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda entry: (entry[1], entry[0]))
    model: dict[str, Any] = {}
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        model = json.loads(backend.to_str())["model"]
    merges = [m if isinstance(m, str) else " ".join(m) for m in model.get("merges") or ()]
    settings: list[Any] = [getattr(config, name, None) for name in _TEXT_SETTINGS]
    if config.model_type == "t5":
        settings += [getattr(config, name) for name in _T5_SETTINGS]
        settings += [model.get("vocab"), model.get("unk_id")]  # pieces with their scores
    special = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
    limit = min(int(tokenizer.model_max_length), 2**31)
    return _canonical([vocabulary, merges, settings, special, limit])


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
