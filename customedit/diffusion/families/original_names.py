"""What the original code of FLUX.1 and Stable Diffusion 3 calls a transformer's layers.

LoRAs of kohya's scripts, ComfyUI, XLabs and Black Forest Labs name these. A layer there may be
several of diffusers' in one: queries, keys and values of a block are one matrix, whose rows are
theirs one after another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Stacked:
    """Layers of diffusers that are one layer elsewhere.

    layers: their paths, in the order of the rows; swapped: whether the two halves of the rows stand
    the other way round (shift and scale of the last modulations).
    """

    layers: tuple[str, ...]
    swapped: bool = False


Table = Mapping[str, tuple[str, ...]]
"""Original path within a block to diffusers' paths within it."""

_FLUX_DOUBLE: Table = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "img_attn.proj": ("attn.to_out.0",),
    "txt_attn.proj": ("attn.to_add_out",),
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
    "img_mod.lin": ("norm1.linear",),
    "txt_mod.lin": ("norm1_context.linear",),
}
_FLUX_SINGLE: Table = {
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear1.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),  # XLabs' part of it
    "linear2": ("proj_out",),
    "modulation.lin": ("norm.linear",),
}
_FLUX_REST: Table = {
    "img_in": ("x_embedder",),
    "txt_in": ("context_embedder",),
    "time_in.in_layer": ("time_text_embed.timestep_embedder.linear_1",),
    "time_in.out_layer": ("time_text_embed.timestep_embedder.linear_2",),
    "guidance_in.in_layer": ("time_text_embed.guidance_embedder.linear_1",),
    "guidance_in.out_layer": ("time_text_embed.guidance_embedder.linear_2",),
    "vector_in.in_layer": ("time_text_embed.text_embedder.linear_1",),
    "vector_in.out_layer": ("time_text_embed.text_embedder.linear_2",),
    "final_layer.linear": ("proj_out",),
}
_SD3_BLOCK: Table = {
    "x_block.attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
    "context_block.attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "x_block.attn.proj": ("attn.to_out.0",),
    "x_block.attn2.proj": ("attn2.to_out.0",),
    "context_block.attn.proj": ("attn.to_add_out",),
    "x_block.mlp.fc1": ("ff.net.0.proj",),
    "x_block.mlp.fc2": ("ff.net.2",),
    "context_block.mlp.fc1": ("ff_context.net.0.proj",),
    "context_block.mlp.fc2": ("ff_context.net.2",),
    "x_block.adaLN_modulation.1": ("norm1.linear",),
    "context_block.adaLN_modulation.1": ("norm1_context.linear",),
}
_SD3_REST: Table = {
    "x_embedder.proj": ("pos_embed.proj",),
    "context_embedder": ("context_embedder",),
    "t_embedder.mlp.0": ("time_text_embed.timestep_embedder.linear_1",),
    "t_embedder.mlp.2": ("time_text_embed.timestep_embedder.linear_2",),
    "y_embedder.mlp.0": ("time_text_embed.text_embedder.linear_1",),
    "y_embedder.mlp.2": ("time_text_embed.text_embedder.linear_2",),
    "final_layer.linear": ("proj_out",),
}
_LAST_MODULATION = "final_layer.adaLN_modulation.1"
_SWAPPED = "norm_out.linear"


def flux_names(config: Mapping[str, Any]) -> dict[str, Stacked]:
    """FLUX.1's original paths of a FluxTransformer2DModel with this configuration."""
    parts = [
        ("double_blocks.{}.", "transformer_blocks.{}.", int(config["num_layers"]), _FLUX_DOUBLE),
        (
            "single_blocks.{}.", "single_transformer_blocks.{}.",
            int(config["num_single_layers"]), _FLUX_SINGLE,
        ),
    ]  # fmt: skip
    names = {n: Stacked(layers) for n, layers in _blocks(parts, lambda *_: True)}
    names |= {name: Stacked(layers) for name, layers in _FLUX_REST.items()}
    return names | {_LAST_MODULATION: Stacked((_SWAPPED,), swapped=True)}


def sd3_names(config: Mapping[str, Any]) -> dict[str, Stacked]:
    """Stable Diffusion 3's original paths of a SD3Transformer2DModel with this configuration."""
    count = int(config["num_layers"])
    dual = set(config.get("dual_attention_layers") or ())
    last = count - 1

    def there(number: int, name: str) -> bool:
        if "attn2" in name:
            return number in dual
        only_read = name.startswith(("context_block.attn.proj", "context_block.mlp"))
        return not (number == last and only_read)

    parts = [("joint_blocks.{}.", "transformer_blocks.{}.", count, _SD3_BLOCK)]
    names = {n: Stacked(layers) for n, layers in _blocks(parts, there)}
    names |= {name: Stacked(layers) for name, layers in _SD3_REST.items()}
    modulation = f"joint_blocks.{last}.context_block.adaLN_modulation.1"
    names[modulation] = Stacked(names[modulation].layers, swapped=True)
    return names | {_LAST_MODULATION: Stacked((_SWAPPED,), swapped=True)}


def _blocks(
    parts: list[tuple[str, str, int, Table]], there: Callable[[int, str], bool]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    for original, ours, count, table in parts:
        for number in range(count):
            for name, layers in table.items():
                if there(number, name):
                    start = ours.format(number)
                    yield original.format(number) + name, tuple(start + n for n in layers)
