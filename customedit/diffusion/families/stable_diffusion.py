"""Stable Diffusion 1.x and 2.x: one CLIP text encoder, whose final states the UNet reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from customedit.diffusion.families.clip import check_clip
from customedit.diffusion.families.known import STABLE_DIFFUSION
from customedit.diffusion.families.layout import Layout
from customedit.diffusion.families.unet import UNetFamily
from customedit.diffusion.text import Encoded, PromptRow
from customedit.errors import InputError


class StableDiffusion(UNetFamily):
    """Stable Diffusion 1.x or 2.x."""

    layout: ClassVar[Layout] = STABLE_DIFFUSION

    @classmethod
    def assemble(cls, parts: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
        """A pipeline, which corrects the scheduler: steps_offset 1, no clip_sample."""
        without = {"safety_checker": None, "feature_extractor": None}
        return super().assemble({**without, **parts}, {**options, "requires_safety_checker": False})

    def check(self, name: str) -> None:
        """Raise InputError unless tokenizer, text encoder and UNet go together."""
        (encoder,) = self.encoders
        width, read = encoder.model.config.hidden_size, self.denoiser.config.cross_attention_dim
        if read != width:
            raise InputError(
                "base",
                f"{name} has a text encoder with states of width {width}, its UNet reads {read}",
                "use the text encoder that the base was trained with",
            )
        check_clip(encoder.model, encoder.tokenizer, name)

    def encode(self, rows: Sequence[PromptRow]) -> list[Encoded]:
        """The text encoder's final states."""
        (encoder,) = self.encoders
        return [Encoded(states) for states in encoder.run(rows).last_hidden_state]
