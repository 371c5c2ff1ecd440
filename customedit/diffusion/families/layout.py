"""What a family's folder holds, as data. No torch: the front end and ``folder`` read it."""

from __future__ import annotations

import dataclasses
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
    configuration may have; optional: whether a base may be without it; embedding: what its vectors
    are called in an embedding's file for bases of several text encoders.
    """

    part: str
    tokenizer: str
    encoder_class: str = "CLIPTextModel"
    tokenizer_class: str = "CLIPTokenizer"
    kinds: tuple[str, ...] = ("clip_text_model", "clip")
    optional: bool = False
    embedding: str = "clip_l"


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

    def with_encoders(self, has: Callable[[str], bool]) -> Layout:
        """The layout of a base that lacks those of the optional encoders that it ``has`` not."""
        encoders = tuple(e for e in self.encoders if not e.optional or has(e.part))
        return dataclasses.replace(self, encoders=encoders)

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
