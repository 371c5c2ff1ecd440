"""LoRAs of other programs, and of their kin LoCon, LoHa and LoKr: read for a base, and written.

| key style | a key |
|---|---|
| kohya | ``lora_unet_down_blocks_0_..._attn1_to_q.lora_down.weight``, ``lora_te1_...`` |
| PEFT | ``base_model.model.down_blocks.0....attn1.to_q.lora_A.weight`` |
| diffusers | ``unet.down_blocks.0....attn1.to_q.lora.down.weight``, also ``lora_A`` |
| old diffusers | ``down_blocks.0....attn1.processor.to_q_lora.down.weight`` |
| ComfyUI | ``diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight`` |
| BFL | ``double_blocks.0.img_attn.qkv.lora_A.weight`` |
| XLabs | ``double_blocks.0.processor.qkv_lora1.down.weight`` |

LyCORIS writes kohya's names with ``hada_w1_a``, ``lokr_w1`` and so on, and ``lora_mid`` or
``hada_t1`` where a convolution's kernel is a factor of its own. The scale is alpha / rank; a file
without alpha means 1, as all these programs take it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from customedit.concepts.checks import shape_text
from customedit.concepts.files.entries import TRUSTED, StateDict, plain_tensor
from customedit.concepts.files.identify import lora_families
from customedit.concepts.files.lora_names import LayerNames, plain_name, style_of
from customedit.concepts.files.stacked import split, swapped
from customedit.diffusion.adapters import (
    TRANSFORMER,
    UNET,
    Adapter,
    Hadamard,
    Kronecker,
    LowRank,
    Whole,
)
from customedit.errors import InputError

if TYPE_CHECKING:
    from customedit.diffusion.base import Base

LORA_WEIGHTS: Final = "pytorch_lora_weights.safetensors"
"""The file that ``pipe.load_lora_weights`` looks for in a folder."""

PEFT_CONFIG: Final = "adapter_config.json"

_FACTORS: Final = re.compile(
    r"(?P<module>.+?)"
    r"(?:"
    r"[._]lora(?:_linear_layer)?[._](?P<low>down|up|mid|A|B)(?:\.default)?\.weight"
    r"|\.(?P<kin>hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2))"
    r"|\.(?P<other>alpha|diff|diff_b|dora_scale|lora_magnitude_vector(?:\.default)?(?:\.weight)?)"
    r")"
)
_LOW: Final = {"down": "down", "A": "down", "up": "up", "B": "up", "mid": "mid"}


@dataclass(frozen=True)
class Lora:
    """What was read of a LoRA's file.

    adapters: by the paths of the base's layers; style: of its keys; layers: how many the file has;
    unused: those that this base does not have or that are of an unknown kind.
    """

    adapters: dict[str, Adapter]
    style: str
    layers: int
    unused: tuple[str, ...]

    @property
    def kinds(self) -> list[str]:
        """The kinds of its adapters, as users call them."""
        return sorted({_called(a) for a in self.adapters.values()})


@dataclass
class _Group:
    """The entries of one layer in the file."""

    factors: dict[str, Tensor] = field(default_factory=dict)
    alpha: float | None = None


def read_lora(state: StateDict, base: Base, *, allow_unused: bool = False) -> Lora:
    """The adapters that a LoRA's file has for ``base``.

    allow_unused: take what fits and leave the rest.

    Raises:
        InputError: naming file and layer, for a LoRA of another model, layers or keys that are not
            used (unless allowed), factors that do not go together, and weight decomposition (DoRA).
    """
    path = state.path
    groups, unknown = _grouped(state)
    families = lora_families(state.entries)
    names = LayerNames(base)
    alpha_of = _peft_alphas(state, names.prefixes)
    adapters: dict[str, Adapter] = {}
    unused, misfits = list(unknown), list[str]()
    for name, group in groups.items():
        found = names.find(name)
        if found is None or not group.factors:
            unused.append(name)
            continue
        weights = [names.layers[layer].weight for layer in found.layers]
        shape = (sum(len(w) for w in weights), *weights[0].shape[1:])
        if group.alpha is None:
            group.alpha = alpha_of(found.layers[0])
        if twice := adapters.keys() & set(found.layers):
            raise InputError("concept", f"{path} changes {min(twice)} twice", TRUSTED)
        adapter = _adapter(group, shape, ", ".join(found.layers), path)
        if adapter.shape == shape:
            whole = swapped(adapter) if found.swapped else adapter
            parts = split(whole, [len(w) for w in weights])
            adapters |= zip(found.layers, parts, strict=True)
        else:
            unused.append(name)
            where = name if len(weights) > 1 else found.layers[0]
            misfits.append(f"{where} is {shape_text(shape)} and not {shape_text(adapter.shape)}")
    ours = base.family.layout.name
    if families and ours not in families and (unused or not adapters):
        raise InputError(
            "concept",
            f"{path} is a LoRA for {' or '.join(families)}; this base is {ours}",
            "use one that was trained for this base",
        )
    if not adapters or (unused and not allow_unused):
        why = misfits[0] if misfits else f"it has no {min(unused, default='layer')}"
        raise InputError(
            "concept",
            f"{path} is a LoRA of which this base can use {len(adapters)} of "
            f"{len(groups) + len(unknown)} layers: {why}",
            "use one that was trained for this base"
            + ("; `allow_unused` takes what fits" if adapters else ""),
        )
    return Lora(
        adapters, style_of(state.entries), len(groups) + len(unknown), tuple(sorted(unused))
    )


def _grouped(state: StateDict) -> tuple[dict[str, _Group], list[str]]:
    """Entries by the layer they change, and the names that are of no known kind."""
    groups: dict[str, _Group] = {}
    unknown: list[str] = []
    for name, value in state.entries.items():
        if name.startswith("bundle_emb."):
            continue
        match = _FACTORS.fullmatch(plain_name(name))
        if match is None or match["other"] == "diff_b":
            unknown.append(name)
            continue
        group = groups.setdefault(match["module"], _Group())
        tensor = plain_tensor(value, name, state.path)
        other = match["other"]
        if other == "alpha":
            group.alpha = float(tensor)
        elif other is not None and other != "diff":
            raise InputError(
                "concept",
                f"{state.path} is a DoRA (it has {name}): its weights are decomposed",
                "use a LoRA without weight decomposition",
            )
        else:
            group.factors[_LOW.get(match["low"] or "", match["kin"] or "diff")] = tensor
    return groups, unknown


def _peft_alphas(state: StateDict, prefixes: Sequence[str]) -> Callable[[str], float | None]:
    """Gives the alpha of a layer that PEFT keeps beside its factors.

    In ``adapter_config.json``, or in the file's metadata, where diffusers writes it.
    """
    config: dict[str, Any] = {}
    try:
        beside = state.path.with_name(PEFT_CONFIG)
        if "lora_adapter_metadata" in state.metadata:
            config = json.loads(state.metadata["lora_adapter_metadata"])
        elif beside.is_file() and beside.stat().st_size < 1 << 20:
            config = json.loads(beside.read_text("utf-8"))
        config = dict(config)
    except (ValueError, TypeError, OSError, RecursionError) as error:
        raise InputError(
            "concept", f"{state.path} has settings of PEFT that cannot be read ({error})", TRUSTED
        ) from None
    for setting in ("use_rslora", "use_dora", "alpha_pattern", "rank_pattern"):
        if any(config.get(start + setting) for start in ("", *prefixes)):
            raise InputError(
                "concept", f"{state.path} uses PEFT's {setting}", "merge it into a plain LoRA first"
            )

    def alpha_of(layer: str) -> float | None:
        prefix = next(p for p in prefixes if layer.startswith(p))
        alpha = config.get(f"{prefix}lora_alpha", config.get("lora_alpha"))
        return float(alpha) if isinstance(alpha, int | float) else None

    return alpha_of


def _adapter(group: _Group, shape: tuple[int, ...], name: str, path: Path) -> Adapter:
    """The adapter of a weight of this shape that the entries of one group make."""
    try:
        adapter = _made(group, shape)
    except (KeyError, ValueError, RuntimeError, IndexError) as error:
        raise InputError(
            "concept", f"{path} has factors for {name} that make no change ({error})", TRUSTED
        ) from None
    if not math.isfinite(adapter.scale):
        raise InputError("concept", f"{path} has an alpha of {name} that is not finite", TRUSTED)
    return adapter


def _made(group: _Group, shape: tuple[int, ...]) -> Adapter:
    """The adapter of a weight of this shape. Raises ValueError or KeyError for factors amiss."""
    f, kernel = group.factors, shape[2:]

    def scale(rank: int) -> float:
        return 1.0 if group.alpha is None else group.alpha / rank

    def fitted(down: Tensor) -> Tensor:
        """[r, in] or [r, in, kh, kw] as the layer has it, whichever way the file writes it."""
        return down.flatten(1).unflatten(1, (-1, *kernel)) if kernel else down.flatten(1)

    if "diff" in f:
        return Whole(f["diff"].reshape(shape))
    if "up" in f:
        up, down = f["up"].flatten(1), f["down"]
        if "mid" in f:  # down is 1 x 1, the kernel is between the two
            down = torch.einsum("mr...,ri->mi...", f["mid"], down.flatten(1))
        return LowRank(up, fitted(down), scale=scale(len(down)))
    if "hada_w1_a" in f:
        w1, w2 = _loha_pair(f, "1"), _loha_pair(f, "2")
        rank = len(f["hada_w1_b"])
        made = Hadamard(w1[0], fitted(w1[1]), w2[0], fitted(w2[1]), scale=scale(rank))
        plain = made.low_rank()
        return plain if plain.numbers <= math.prod(shape) else made
    left, left_rank = _lokr_factor(f, "w1", ())
    right, right_rank = _lokr_factor(f, "w2", kernel)
    rank_of_either = right_rank or left_rank  # without either, alpha has no meaning
    return Kronecker(left, right, scale=scale(rank_of_either) if rank_of_either else 1.0)


def _loha_pair(f: Mapping[str, Tensor], number: str) -> tuple[Tensor, Tensor]:
    """(up [out, r], down [r, in...]) of one of a LoHa's two matrices."""
    a, b = f[f"hada_w{number}_a"], f[f"hada_w{number}_b"]
    core = f.get(f"hada_t{number}")
    if core is None:
        return a, b
    return a.mT, torch.einsum("ij...,jr->ir...", core, b)


def _lokr_factor(
    f: Mapping[str, Tensor], name: str, kernel: tuple[int, ...]
) -> tuple[Tensor, int | None]:
    """One of a LoKr's two factors, and its rank if the file keeps it as a product."""
    if f"lokr_{name}" in f:
        whole = f[f"lokr_{name}"]
        if name == "w2" and kernel and whole.ndim == 2:
            whole = whole.unflatten(1, (-1, *kernel))
        return whole, None
    a, b = f[f"lokr_{name}_a"], f[f"lokr_{name}_b"]
    core = f.get("lokr_t2") if name == "w2" else None
    if core is not None:
        return torch.einsum("ij...,ip,jr->pr...", core, a, b), len(b)
    product = a @ b.flatten(1)
    return (product.unflatten(1, (-1, *kernel)) if kernel else product), len(b)


def _called(adapter: Adapter) -> str:
    if isinstance(adapter, LowRank):
        return "LoCon" if adapter.down.ndim == 4 else "LoRA"
    return {Hadamard: "LoHa", Kronecker: "LoKr", Whole: "full differences"}[type(adapter)]


# writing


def lora_entries(adapters: Mapping[str, Adapter], encoders: int = 1) -> dict[str, Tensor]:
    """``adapters`` under kohya's names, which diffusers, A1111, ComfyUI and InvokeAI read.

    encoders: how many text encoders the base has; of several, kohya's names have the numbers.

    Those of a transformer are under diffusers' own names instead (``_transformer_entries``).
    All layers have one alpha: diffusers (0.42) ignores those that differ, says nothing of it but a
    warning, and draws with other scales.
    """
    if any(path.startswith(TRANSFORMER) for path in adapters):
        return _transformer_entries(adapters)
    # a layer of scale 0 has no alpha that could be shared: its factors are written as zeros
    alphas = {alpha for a in adapters.values() if (alpha := a.scale * _rank(a))}
    alpha = alphas.pop() if len(alphas) == 1 else float(max(map(_rank, adapters.values())) or 1)
    entries: dict[str, Tensor] = {}
    for path, adapter in adapters.items():
        part, _, inner = path.partition(".")
        if path.startswith(UNET):
            start = "lora_unet_"
        elif path.startswith(TRANSFORMER):
            start = "lora_transformer_"
        elif inner.startswith("encoder.block."):  # T5, the third wherever it stands
            start = "lora_te3_"
        elif encoders == 1:
            start = "lora_te_text_model_"
        else:
            number = part.removeprefix("text_encoder").lstrip("_") or "1"
            own_name = inner.startswith("text_projection")  # beside the text model
            start = f"lora_te{number}_" + ("" if own_name else "text_model_")
        name = start + inner.replace(".", "_")
        entries |= {f"{name}.{k}": v for k, v in _kohya_factors(adapter, alpha).items()}
    return entries


def _transformer_entries(adapters: Mapping[str, Adapter]) -> dict[str, Tensor]:
    """``adapters`` of a transformer as diffusers and ComfyUI read them, their scales in ``lora_B``.

    Raises:
        InputError: for a kind of change, or a layer, that diffusers loads from no file.
    """
    entries: dict[str, Tensor] = {}
    for path, adapter in adapters.items():
        low = adapter.low_rank() if isinstance(adapter, Hadamard) else adapter
        if not isinstance(low, LowRank):
            raise InputError(
                "format", f"diffusers has no place for {_called(adapter)} ({path})", "choose own"
            )
        if ".encoder.block." in path:
            raise InputError("format", f"diffusers loads no LoRA for T5 ({path})", "choose own")
        name = path.replace(".encoder.layers.", ".text_model.encoder.layers.")
        entries[f"{name}.lora_A.weight"] = low.down
        entries[f"{name}.lora_B.weight"] = low.up * low.scale
    return entries


def _rank(adapter: Adapter) -> int:
    """What alpha is divided by; 0 for adapters that have none."""
    if isinstance(adapter, LowRank | Hadamard):
        return int((adapter.up if isinstance(adapter, LowRank) else adapter.up1).shape[1])
    return 0


def _kohya_factors(adapter: Adapter, alpha: float) -> dict[str, Tensor]:
    """The entries of one layer; what ``alpha`` does not say of the scale is in the factors."""
    rest = adapter.scale * _rank(adapter) / alpha

    def scaled(factor: Tensor, by: float) -> Tensor:
        return factor if by == 1 else factor * by

    if isinstance(adapter, LowRank):
        up = scaled(adapter.up, rest)
        factors = {
            "lora_down.weight": adapter.down,
            "lora_up.weight": up[:, :, None, None] if adapter.down.ndim == 4 else up,
        }
    elif isinstance(adapter, Hadamard):
        factors = {
            "hada_w1_a": scaled(adapter.up1, rest),
            "hada_w1_b": adapter.down1.flatten(1),
            "hada_w2_a": adapter.up2,
            "hada_w2_b": adapter.down2.flatten(1),
        }
    elif isinstance(adapter, Kronecker):
        return {"lokr_w1": scaled(adapter.left, adapter.scale), "lokr_w2": adapter.right}
    else:
        return {"diff": adapter.delta()}
    return factors | {"alpha": torch.tensor(alpha)}
