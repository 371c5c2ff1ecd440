"""From an edit's request to the library's settings; None takes the library's default."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from customedit.diffusion.base import Base
from customedit.diffusion.text import Weighted
from customedit.editing.edit import EditSettings, default_p2p
from customedit.editing.prompt_to_prompt import STRENGTH, P2PSettings
from customedit.editing.sdedit import SDEDIT_STRENGTH
from customedit.schemas.requests import EditRequest, P2POptions


def settings_of(request: EditRequest) -> EditSettings:
    """All but strength, seed and the expert settings."""
    return EditSettings(
        request.source_prompt,
        request.target_prompt,
        method=request.method,
        steps=request.steps,
        inversion=request.inversion,
        preserve=request.preserve,
        feather=request.feather,
        everywhere=request.everywhere,
        guidance=request.guidance,
    )


def pairs(request: EditRequest) -> list[tuple[float, int]]:
    """(strength, seed) of every picture.

    Prompt-to-Prompt draws nothing by chance, so of several seeds it uses the first.
    """
    usual = STRENGTH if request.method == "p2p" else SDEDIT_STRENGTH
    seeds = request.seeds[:1] if request.method == "p2p" else request.seeds
    return [(strength, seed) for strength in request.strengths or [usual] for seed in seeds]


def p2p_of(
    base: Base, request: EditRequest, concepts: Sequence[Weighted], strength: float
) -> P2PSettings | None:
    """The expert settings at ``strength``; None for SDEdit. For the engine's thread alone.

    Left out, the blend is by the given mask, by the blend words, or as ``default_p2p`` derives it.

    Raises InputError for prompts with unknown tokens and settings that do not fit.
    """
    if request.method != "p2p":
        return None
    options = request.p2p or P2POptions()
    known = [token for entry in concepts for token in entry.concept.tokens]
    source = base.tokens(request.source_prompt, known, "source_prompt")
    target = base.tokens(request.target_prompt, known, "target_prompt")
    derived = default_p2p(source, target, strength)
    changes: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in dict(options).items()
        if value is not None and value not in ([], {})
    }
    if options.blend_over == "none":
        changes["blend_words"] = ()
    if options.blend_over is None:
        if request.mask is not None:
            changes["blend_over"] = "mask"
        elif options.blend_words:
            changes["blend_over"] = "source"
    return dataclasses.replace(derived, **changes)
