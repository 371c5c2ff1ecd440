"""What a family's folder holds, as data. No torch: the front end and ``folder`` read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

SUPPORTED: Final = "use one of the bases that customedit models list names, or one of its kind"

CheckDenoiser: TypeAlias = Callable[[Mapping[str, Any], Mapping[str, Any], str], None]
CheckSchedule: TypeAlias = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class EncoderLayout:
    """A text encoder and its tokenizer.

    part, tokenizer: their folders, which are also their names in diffusers' pipeline;
    encoder_class, tokenizer_class: of transformers; kinds: the ``model_type`` values that its
    configuration may have.
    """

    part: str
    tokenizer: str
    encoder_class: str = "CLIPTextModel"
    tokenizer_class: str = "CLIPTokenizer"
    kinds: tuple[str, ...] = ("clip_text_model", "clip")


@dataclass(frozen=True)
class Layout:
    """The parts of a family's bases.

    name: for people; pipeline: diffusers' class; begins: how the class names in
    ``model_index.json`` begin, diffusers' and its variants'; family: module and class that drive
    it, imported when one is loaded; denoiser: the folder of UNet or transformer; denoiser_class: of
    diffusers; encoders: in the order in which a concept token's embedding holds their vectors;
    check_denoiser: raises InputError for configurations of denoiser and autoencoder that cannot be
    driven, given a name for the base; check_schedule: the same for a scheduler's configuration;
    options: settings of the pipeline that ``model_index.json`` may hold, with their defaults.
    """

    name: str
    pipeline: str
    begins: tuple[str, ...]
    family: tuple[str, str]
    denoiser: str
    denoiser_class: str
    encoders: tuple[EncoderLayout, ...]
    check_denoiser: CheckDenoiser
    check_schedule: CheckSchedule
    options: Mapping[str, Any]

    @property
    def stems(self) -> dict[str, str]:
        """The parts that have weights, and how their weight files begin."""
        return {
            self.denoiser: "diffusion_pytorch_model",
            "vae": "diffusion_pytorch_model",
            **{encoder.part: "model" for encoder in self.encoders},
        }

    @property
    def tokenizers(self) -> tuple[str, ...]:
        """The folders of the tokenizers."""
        return tuple(encoder.tokenizer for encoder in self.encoders)
