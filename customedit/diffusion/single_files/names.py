"""What the original code calls the layers of autoencoders and of OpenCLIP's text encoder."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from torch import Tensor, nn

_LEVEL: Final = re.compile(
    r"(encoder|decoder)\.(down|up)_blocks\.(\d+)\."
    r"(?:resnets\.(?P<block>\d+)\.(?P<layer>\w+)|(?P<change>down|up)samplers\.0\.conv)"
)
_MIDDLE: Final = re.compile(r"(encoder|decoder)\.mid_block\.(resnets|attentions)\.(\d+)\.(.+)")
_WORDS: Final[Mapping[str, str]] = {
    "conv_shortcut": "nin_shortcut",
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
_OPEN_CLIP: Final[Mapping[str, str]] = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def vae_names(vae: nn.Module) -> dict[str, str]:
    """The original path of every module with weights of an AutoencoderKL, to its path there.

    The decoder's levels are counted from the other end.
    """
    paths = [n for n, m in vae.named_modules() if any(True for _ in m.parameters(recurse=False))]
    ups = [int(n.split(".")[2]) for n in paths if n.startswith("decoder.up_blocks.")]
    return {_vae_name(path, max(ups, default=0)): path for path in paths}


def _vae_name(path: str, last: int) -> str:
    if match := _LEVEL.fullmatch(path):
        side, way, level = match[1], match[2], int(match[3])
        start = f"{side}.{way}.{last - level if way == 'up' else level}"
        if match["change"]:
            return f"{start}.{match['change']}sample.conv"
        return f"{start}.block.{match['block']}.{_WORDS.get(match['layer'], match['layer'])}"
    if match := _MIDDLE.fullmatch(path):
        side, kind, number, rest = match.groups()
        block = f"block_{int(number) + 1}" if kind == "resnets" else f"attn_{int(number) + 1}"
        return f"{side}.mid.{block}.{_WORDS.get(rest, rest)}"
    return path.replace("conv_norm_out", "norm_out")


def open_clip_states(states: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenCLIP's text encoder as transformers' CLIPTextModelWithProjection calls it.

    states: without prefix; queries, keys and values are one matrix, and the projection is
    transposed.
    """
    return dict(_open_clip_states(states))


def _open_clip_states(states: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name, value in states.items():
        match = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+?)[._](weight|bias)", name)
        if match:
            layer, inner, kind = f"encoder.layers.{match[1]}.", match[2], match[3]
            if inner == "attn.in_proj":
                for part, rows in zip("qkv", value.chunk(3), strict=True):
                    yield f"{layer}self_attn.{part}_proj.{kind}", rows
            elif inner in _OPEN_CLIP:
                yield f"{layer}{_OPEN_CLIP[inner]}.{kind}", value
        elif name == "positional_embedding":
            yield "embeddings.position_embedding.weight", value
        elif name == "text_projection":
            yield "text_projection.weight", value.T.contiguous()
        elif name == "token_embedding.weight":
            yield f"embeddings.{name}", value
        elif name.startswith("ln_final."):
            yield name.replace("ln_final", "final_layer_norm"), value
