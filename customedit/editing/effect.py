"""Options of an edit that would change nothing: refused, so that nobody looks for a difference.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence

from customedit.editing.method_settings import Strength, first_drawn_step, step_of
from customedit.errors import InputError
from customedit.schemas.methods import (
    EXPERTS,
    MasaCtrlOptions,
    P2POptions,
    PlugAndPlayOptions,
)
from customedit.schemas.requests import EditOptions


def check_methods(options: EditOptions) -> None:
    """Refuse settings of other methods, and an inversion where there is no choice of one."""
    method = options.method
    for name in EXPERTS:
        if name != method and getattr(options, name) is not None:
            raise InputError(name, f"has no effect on {method}", f"leave it out, or use {name}")
    given = "inversion" in options.model_fields_set and options.inversion != "direct"
    if method != "p2p" and given:
        raise InputError("inversion", f"has no effect on {method}", "leave it out, or use p2p")


def check_strengths_act(options: EditOptions) -> None:
    """Refuse strengths, and changes beyond 1/2, where expert settings decide all that they would.

    Below 1/2 a change also says when an edit begins (``strength_of_change``).
    """
    expert = options.expert
    if isinstance(expert, P2POptions) and None not in (expert.cross_steps, expert.self_steps):
        refuse_strengths(
            options,
            "p2p.cross_steps and p2p.self_steps are both given",
            "leave out one of these, which then follows the strength",
        )
    if isinstance(expert, MasaCtrlOptions) and expert.layer == 1:
        refuse_strengths(
            options, "masactrl.layer is 1, so that no layer asks the source", "give a layer below 1"
        )


def refuse_strengths(options: EditOptions, why: str, remedy: str) -> None:
    """Refuse strengths and changes that have no effect. why: a sentence; remedy: against it.

    Raises InputError of ``strengths`` or ``change`` if the options have such.
    """
    if options.strengths is not None:
        raise InputError("strengths", f"have no effect: {why}", f"leave them out, or {remedy}")
    change = options.change
    if change == "auto" or (change is not None and change > 0.5):
        given = "auto compares values" if change == "auto" else f"is {change:g}"
        problem = f"{given}, and has no effect above 0.5: {why}"
        raise InputError("change", problem, f"give 0.5 or less, or {remedy}")


def check_experts(options: EditOptions, strengths: Sequence[Strength]) -> None:
    """Refuse expert settings that others leave nothing to do. strengths: of each picture."""
    expert = options.expert
    if isinstance(expert, P2POptions):
        shares = [s.strength for s in strengths]
        if expert.cross_steps is not None:
            shares = [expert.cross_steps]
        for word in expert.reweight:
            if not any(shares) and word not in expert.words:
                where = "strength" if expert.cross_steps is None else "p2p.cross_steps"
                raise InputError(
                    "p2p.reweight",
                    f"has no effect on {word!r}: {where} is 0",
                    f"give it more, or {word!r} steps of its own in p2p.words",
                )
    idle: dict[str, str] = {}
    if isinstance(expert, MasaCtrlOptions) and expert.layer == 1:
        idle["within_region"] = "masactrl.layer is 1, so that no layer asks the source"
    if isinstance(expert, PlugAndPlayOptions):
        if expert.layer == 1:
            idle["attention_steps"] = "pnp.layer is 1, so that every layer keeps its own maps"
        elif expert.attention_steps == 0:
            idle["layer"] = "pnp.attention_steps is 0"
    for name, why in idle.items():
        if getattr(expert, name) is not None:
            raise InputError(f"{options.method}.{name}", f"has no effect: {why}", "leave it out")


def check_guided(options: EditOptions, strengths: Sequence[Strength]) -> None:
    """Refuse an interval of guidance in which no step of any picture lies.

    strengths: of each picture. Raises InputError of ``guidance_end``.
    """
    if (options.guidance_start, options.guidance_end) == (0, 1) or options.change == 0:
        return
    steps = options.steps
    first, end = step_of(options.guidance_start, steps), step_of(options.guidance_end, steps)
    if first >= end:
        raise InputError(
            "guidance_end",
            f"leaves none of {steps} steps guided",
            f"end it 1/{steps} after guidance_start, or later",
        )
    drawn = min(first_drawn_step(options.method, strength, steps) for strength in strengths)
    if drawn >= end:
        raise InputError(
            "guidance_end",
            f"leaves none of the steps guided that are drawn, the last {steps - drawn} of {steps}",
            f"give {(drawn + 1) / steps:g} or more",
        )


def check_feather(options: EditOptions, *, preserve: bool, region: bool) -> None:
    """Refuse a soft edge where nothing is pasted. region: whether the edit has one."""
    if options.feather is not None and not preserve:
        why = "preserve is false" if region else "the edit has no region"
        raise InputError("feather", f"has no effect: {why}", "leave it out, or preserve the source")
