"""Which layers of a base a name in a LoRA's file means.

| style | a name of FLUX.1 |
|---|---|
| diffusers | ``transformer.transformer_blocks.0.attn.to_q`` |
| PEFT | ``base_model.model.transformer_blocks.0.attn.to_q`` |
| kohya | ``lora_unet_double_blocks_0_img_attn_qkv``, ``lora_te1_...``, ``lora_te3_...`` |
| kohya, of diffusers' layers | ``lora_transformer_transformer_blocks_0_attn_to_q`` |
| ComfyUI | ``diffusion_model.double_blocks.0.img_attn.qkv`` |
| BFL | ``double_blocks.0.img_attn.qkv`` |
| XLabs | ``double_blocks.0.processor.qkv_lora1``, of which 1 is the image's and 2 the text's |

Names of a base's own code are a question to its family (``Family.original_names``); a layer there
may be several of the base's, one after another.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Final

from customedit.diffusion.families.original_names import Stacked

if TYPE_CHECKING:
    from customedit.diffusion.base import Base

_XLABS: Final = re.compile(
    r"(?P<start>(?:diffusion_model\.)?(?P<kind>double|single)_blocks\.\d+)"
    r"\.processor\.(?P<layer>qkv|proj)_lora(?P<stream>[12]?)\.(?P<factor>down|up)\.weight"
)
_XLABS_LAYERS: Final[Mapping[tuple[str, str, str], str]] = {
    ("double", "qkv", "1"): "img_attn.qkv",
    ("double", "proj", "1"): "img_attn.proj",
    ("double", "qkv", "2"): "txt_attn.qkv",
    ("double", "proj", "2"): "txt_attn.proj",
    ("single", "qkv", ""): "linear1.qkv",
    ("single", "proj", ""): "linear2",
}
_FLAT_STARTS: Final = ("lora_unet_", "lora_transformer_", "lycoris_")
_DOTTED_STARTS: Final = ("base_model.model.", "model.diffusion_model.", "diffusion_model.")
_T5_NUMBER: Final = "3"
"""kohya's scripts call T5 the third text encoder, also where it is the second."""


def plain_name(name: str) -> str:
    """The name of an entry as other styles spell it: XLabs' have the layer before ``lora``."""
    match = _XLABS.fullmatch(name)
    if match is None:
        return name
    layer = _XLABS_LAYERS.get((match["kind"], match["layer"], match["stream"]))
    return name if layer is None else f"{match['start']}.{layer}.lora_{match['factor']}.weight"


def style_of(names: Collection[str]) -> str:
    """What the key style of a file is called."""
    if any(n.startswith(("lora_unet_", "lora_te", "lora_transformer_")) for n in names):
        return "kohya"
    if any(n.startswith("base_model.model.") for n in names):
        return "PEFT"
    if any(_XLABS.fullmatch(n) for n in names):
        return "XLabs"
    starts = ("diffusion_model.", "model.diffusion_model.", "text_encoders.")
    if any(n.startswith(starts) for n in names):
        return "ComfyUI"
    if any(n.startswith(("double_blocks.", "single_blocks.", "joint_blocks.")) for n in names):
        return "BFL"
    if any(".processor." in n for n in names):
        return "old diffusers"
    return "diffusers"


class LayerNames:
    """The names of a base's layers in every style."""

    def __init__(self, base: Base) -> None:
        family = base.family
        self.layers = family.adaptable
        self.denoiser = f"{family.layout.denoiser}."
        self.prefixes = (self.denoiser, *(encoder.prefix for encoder in family.encoders))
        self._original = {
            name: Stacked(tuple(self.denoiser + layer for layer in found.layers), found.swapped)
            for name, found in family.original_names().items()
        }
        self._encoders = {
            f"text_encoders.{encoder.embedding}.transformer.": f"{encoder.part}."
            for encoder in family.layout.encoders
        }  # as ComfyUI calls them
        self._flat: dict[str, Stacked] = {}
        for path in self.layers:
            if path.startswith(self.denoiser):
                inner = _flattened(path.removeprefix(self.denoiser))
                self._flat |= {start + inner: Stacked((path,)) for start in _FLAT_STARTS}
        for name, found in self._original.items():
            self._flat["lora_unet_" + _flattened(name)] = found
        for number, encoder in enumerate(family.encoders, 1):
            own = _T5_NUMBER if encoder.is_t5 else str(number)
            starts = [f"lora_te{own}_", *(["lora_te_"] if number == 1 else [])]
            for path in self.layers:
                if path.startswith(encoder.prefix):
                    inner = _flattened(path.removeprefix(encoder.prefix))
                    for start in starts:
                        self._flat[start + inner] = Stacked((path,))
                        self._flat[f"{start}text_model_{inner}"] = Stacked((path,))

    def find(self, name: str) -> Stacked | None:
        """The layers of the base that a name in a file means, None for none of its own."""
        if name in self._flat:
            return self._flat[name]
        plain = name
        for start in _DOTTED_STARTS:
            plain = plain.removeprefix(start)
        if plain in self._original:
            return self._original[plain]
        for start, prefix in self._encoders.items():
            if plain.startswith(start):
                plain = prefix + plain.removeprefix(start)
        plain = plain.replace(".processor.", ".").replace("text_model.", "")
        plain = re.sub(r"\.to_out$", ".to_out.0", plain)
        starts = ("",) if plain.startswith(self.prefixes) else self.prefixes
        path = next((s + plain for s in starts if s + plain in self.layers), None)
        return None if path is None else Stacked((path,))


def _flattened(path: str) -> str:
    return path.replace(".", "_")
