"""The expert settings of each editing method, and presets of edits."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field, StrictBool

from customedit.schemas.fields import (
    MAX_WORDS,
    NUMBER,
    RequestModel,
    Share,
    Word,
    Words,
)

EditMethod = Literal["p2p", "sdedit", "masactrl", "pnp", "ddpm", "directedit", "flowedit"]
InversionKind = Literal["direct", "null-text", "negative-prompt", "ddim"]
P2PWay = Literal["refine", "replace"]
BlendOver = Literal["source", "union", "mask", "none"]


class RegionOptions(RequestModel):
    """Where an edit may change the picture; all methods have these."""

    blend_over: Annotated[
        BlendOver | None,
        Field(
            description="What decides the edited region: the source's attention maps, those of "
            "source and target, the mask, or nothing; left out, it follows from the request."
        ),
    ] = None
    blend_words: Annotated[
        Words, Field(description="Words of the source prompt whose region may change.")
    ] = []
    blend_target_words: Annotated[
        Words | None,
        Field(description="Words of the target prompt for `union`; left out, the same words."),
    ] = None
    subtract: Annotated[
        Words, Field(description="Words of the source prompt whose region must not change.")
    ] = []
    threshold: Annotated[
        Share | None,
        Field(description="Share of the attention map's maximum that belongs to the region."),
    ] = None
    blend_start: Annotated[
        Share | None, Field(description="Share of the steps before which nothing is blended.")
    ] = None


class P2POptions(RegionOptions):
    """Expert settings of Prompt-to-Prompt; the strength stands in the edit."""

    way: Annotated[
        P2PWay,
        Field(
            description="How the prompts are aligned: `refine` adds words, `replace` swaps them "
            "one for one."
        ),
    ] = "refine"
    cross_steps: Annotated[
        Share | None,
        Field(
            description="Share of the steps that take the source's cross-attention maps; left "
            "out, the strength."
        ),
    ] = None
    self_steps: Annotated[
        Share | None,
        Field(
            description="Share of the steps that take the source's self-attention maps; left "
            "out, the strength."
        ),
    ] = None
    words: Annotated[
        dict[Word, tuple[Share, Share]],
        Field(
            max_length=MAX_WORDS,
            description="For single words of the target prompt: from which to which share of the "
            "steps they take the source's maps.",
        ),
    ] = {}
    reweight: Annotated[
        dict[Word, Annotated[float, Field(ge=-10, le=10), NUMBER]],
        Field(
            max_length=MAX_WORDS,
            description="For single words of the target prompt: the factor on their attention.",
        ),
    ] = {}


class SDEditOptions(RegionOptions):
    """Expert settings of SDEdit; the strength stands in the edit. Words need a source prompt."""


class MasaCtrlOptions(RegionOptions):
    """Expert settings of MasaCtrl; the strength stands in the edit."""

    layer: Annotated[
        Share | None,
        Field(
            description="Share of the self-attention layers, from the input, that keep the "
            "target's own keys and values; left out, 0.625 (10 of 16)."
        ),
    ] = None
    within_region: Annotated[
        StrictBool | None,
        Field(
            description="Whether the region attends to the source's region alone, and what is "
            "outside to what is outside; left out, wherever the edit has a region."
        ),
    ] = None


class PlugAndPlayOptions(RegionOptions):
    """Expert settings of Plug-and-Play; the strength stands in the edit."""

    attention_steps: Annotated[
        Share | None,
        Field(
            description="Share of the steps that take the source's self-attention maps; left "
            "out, 5/8 of the strength."
        ),
    ] = None
    layer: Annotated[
        Share | None,
        Field(
            description="Share of the self-attention layers, from the input, that keep the "
            "target's own maps; left out, 0.5."
        ),
    ] = None
    block: Annotated[
        float | None,
        Field(
            ge=0,
            lt=1,
            description="Which block of the decoder takes the source's features, as a share of "
            "their number; left out, 1/3 (block 4 of 12).",
        ),
        NUMBER,
    ] = None


class DdpmOptions(RegionOptions):
    """Expert settings of edit-friendly DDPM; the strength stands in the edit."""

    source_guidance: Annotated[
        float | None,
        Field(
            ge=0,
            le=50,
            description="Guidance with which the source's noise is read; left out, 3.5. 1 needs "
            "one row less.",
        ),
        NUMBER,
    ] = None


class DirectEditOptions(RegionOptions):
    """Expert settings of DirectEdit; the strength stands in the edit."""


class FlowEditOptions(RegionOptions):
    """Expert settings of FlowEdit; the strength stands in the edit."""

    source_guidance: Annotated[
        float | None,
        Field(
            ge=0,
            le=50,
            description="Guidance of the source's velocity; left out, a quarter of the guidance, "
            "but not below 1.",
        ),
        NUMBER,
    ] = None
    samples: Annotated[
        int | None,
        Field(
            ge=1,
            le=8,
            description="Drawings of noise that each step averages over; left out, 1.",
        ),
        NUMBER,
    ] = None


EXPERTS: Final[dict[str, type[RegionOptions]]] = {
    "p2p": P2POptions,
    "sdedit": SDEditOptions,
    "masactrl": MasaCtrlOptions,
    "pnp": PlugAndPlayOptions,
    "ddpm": DdpmOptions,
    "directedit": DirectEditOptions,
    "flowedit": FlowEditOptions,
}
"""The expert settings of each method, which are the field of the method's name."""

Preset = Literal["paper"]
PRESETS: Final[dict[str, dict[str, Any]]] = {
    "paper": {"method": "p2p", "inversion": "null-text", "preserve": False}
}
"""What each preset sets: ``paper`` is Prompt-to-Prompt with null-text inversion, as Custom-Edit
(arXiv 2305.15779) publishes it, and nothing is pasted back."""
