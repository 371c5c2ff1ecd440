"""What the original code of Stable Diffusion calls a UNet's layers.

Single-file checkpoints and older LoRAs for SDXL name these: ``input_blocks.4.1.proj_in`` is
``down_blocks.1.attentions.0.proj_in`` in diffusers. Blocks are numbered through, a resnet with its
attention being one number, and every change of resolution another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import torch
from torch import nn

_RESNET: Final = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_ENDS: Final = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}


def _blocks(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(original, diffusers) of resnets, attentions and changes of resolution."""
    depth, levels = int(config["layers_per_block"]), len(config["block_out_channels"])
    number = 1
    for level, kind in enumerate(config["down_block_types"]):
        for k in range(depth):
            yield f"input_blocks.{number}.0", f"down_blocks.{level}.resnets.{k}"
            if "CrossAttn" in kind:
                yield f"input_blocks.{number}.1", f"down_blocks.{level}.attentions.{k}"
            number += 1
        if level < levels - 1:
            yield f"input_blocks.{number}.0.op", f"down_blocks.{level}.downsamplers.0.conv"
            number += 1
    yield "middle_block.0", "mid_block.resnets.0"
    yield "middle_block.1", "mid_block.attentions.0"
    yield "middle_block.2", "mid_block.resnets.1"
    number = 0
    for level, kind in enumerate(config["up_block_types"]):
        attention = "CrossAttn" in kind
        for k in range(depth + 1):
            yield f"output_blocks.{number}.0", f"up_blocks.{level}.resnets.{k}"
            if attention:
                yield f"output_blocks.{number}.1", f"up_blocks.{level}.attentions.{k}"
            if k == depth and level < levels - 1:
                place = 2 if attention else 1
                after = f"up_blocks.{level}.upsamplers.0.conv"
                yield f"output_blocks.{number}.{place}.conv", after
            number += 1


def unet_names(unet: nn.Module, config: Mapping[str, Any]) -> dict[str, str]:
    """The original path of every module with weights, to its path in ``unet``.

    config: of the UNet.
    """
    starts = {ours: original for original, ours in _blocks(config)}
    resnet = {ours: original for original, ours in _RESNET.items()}
    ends = {ours: original for original, ours in _ENDS.items()}
    names: dict[str, str] = {}
    for path, module in unet.named_modules():
        if not any(True for _ in module.parameters(recurse=False)):
            continue
        start = next((s for s in starts if path == s or path.startswith(f"{s}.")), None)
        if start is None:
            if path in ends:
                names[ends[path]] = path
            continue
        rest = path.removeprefix(start).removeprefix(".")
        if ".resnets." in start:
            rest = resnet[rest]
        names[".".join(part for part in (starts[start], rest) if part)] = path
    return names


def original_states(
    unet: nn.Module, config: Mapping[str, Any], states: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """``states`` under original names, as a state dict of ``unet``; those of no layer left out."""
    found: dict[str, torch.Tensor] = {}
    for original, path in unet_names(unet, config).items():
        for kind in ("weight", "bias"):
            if f"{original}.{kind}" in states:
                found[f"{path}.{kind}"] = states[f"{original}.{kind}"]
    return found
