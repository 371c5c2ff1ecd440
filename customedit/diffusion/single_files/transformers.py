"""The transformers of Stable Diffusion 3 and FLUX.1 in checkpoints of the original layout."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

from customedit.diffusion.families.original_names import Stacked

_HEAD: Final = 64
"""Width of an attention head in every published Stable Diffusion 3."""

_NORMS: Final[Mapping[str, Mapping[str, str]]] = {
    "joint_blocks": {
        "x_block.attn.ln_q.weight": "attn.norm_q.weight",
        "x_block.attn.ln_k.weight": "attn.norm_k.weight",
        "x_block.attn2.ln_q.weight": "attn2.norm_q.weight",
        "x_block.attn2.ln_k.weight": "attn2.norm_k.weight",
        "context_block.attn.ln_q.weight": "attn.norm_added_q.weight",
        "context_block.attn.ln_k.weight": "attn.norm_added_k.weight",
    },
    "double_blocks": {
        "img_attn.norm.query_norm.scale": "attn.norm_q.weight",
        "img_attn.norm.key_norm.scale": "attn.norm_k.weight",
        "txt_attn.norm.query_norm.scale": "attn.norm_added_q.weight",
        "txt_attn.norm.key_norm.scale": "attn.norm_added_k.weight",
    },
    "single_blocks": {
        "norm.query_norm.scale": "attn.norm_q.weight",
        "norm.key_norm.scale": "attn.norm_k.weight",
    },
}
"""Of queries and keys, within a block; they are no layers, so that no LoRA names them."""

_BLOCKS: Final[Mapping[str, str]] = {
    "joint_blocks": "transformer_blocks",
    "double_blocks": "transformer_blocks",
    "single_blocks": "single_transformer_blocks",
}
_BLOCK: Final = re.compile(r"(joint_blocks|double_blocks|single_blocks)\.(\d+)\.(.+)")


def transformer_states(
    states: Mapping[str, Tensor], names: Mapping[str, Stacked], model: nn.Module
) -> dict[str, Tensor]:
    """``states`` under original names, as a state dict of ``model``; those of no layer left out.

    names: of the layers (``original_names``), each of which may be several of the model's.
    """
    sizes = {path: len(value) for path, value in model.state_dict().items()}
    found: dict[str, Tensor] = {}
    for name, value in states.items():
        start, _, kind = name.rpartition(".")
        if (stacked := names.get(start)) is not None:
            paths = [f"{layer}.{kind}" for layer in stacked.layers]
            lengths = [sizes.get(path, 0) for path in paths]
            if sum(lengths) != len(value):  # a transformer of other sizes: filling names the layer
                lengths = [len(value), *[0] * (len(paths) - 1)]
            whole = torch.cat(value.chunk(2)[::-1]) if stacked.swapped else value
            found |= zip(paths, whole.split(lengths), strict=True)
        elif (block := _BLOCK.fullmatch(name)) and block[3] in _NORMS[block[1]]:
            found[f"{_BLOCKS[block[1]]}.{block[2]}.{_NORMS[block[1]][block[3]]}"] = value
        elif name == "pos_embed":
            found["pos_embed.pos_embed"] = value
    return found


def sd3_config(states: Mapping[str, Tensor]) -> dict[str, Any]:
    """The configuration of SD3Transformer2DModel that the shapes of ``states`` tell.

    states: under original names, without prefix. Raises KeyError for one that is missing.
    """
    width = len(states["context_embedder.weight"])
    blocks = [match for n in states if (match := _BLOCK.fullmatch(n))]
    normed = any(match[3] == "x_block.attn.ln_q.weight" for match in blocks)
    dual = {int(match[2]) for match in blocks if match[3].startswith("x_block.attn2.")}
    channels = states["x_embedder.proj.weight"].shape[1]
    return {
        "_class_name": "SD3Transformer2DModel",
        "sample_size": 128,
        "patch_size": states["x_embedder.proj.weight"].shape[-1],
        "in_channels": channels,
        "out_channels": channels,
        "num_layers": 1 + max(int(match[2]) for match in blocks),
        "attention_head_dim": _HEAD,
        "num_attention_heads": width // _HEAD,
        "caption_projection_dim": width,
        "joint_attention_dim": states["context_embedder.weight"].shape[1],
        "pooled_projection_dim": states["y_embedder.mlp.0.weight"].shape[1],
        "pos_embed_max_size": math.isqrt(states["pos_embed"].shape[1]),
        "dual_attention_layers": sorted(dual),
        "qk_norm": "rms_norm" if normed else None,
    }
