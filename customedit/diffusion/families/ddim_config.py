"""Which schedulers have a DDIM form, as far as their configurations tell. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from customedit.diffusion.families.layout import SUPPORTED
from customedit.errors import InputError

SCHEDULERS: Final = frozenset(
    f"{name}Scheduler"
    for name in (
        "DDIM", "DDIMInverse", "DDIMParallel", "DDPM", "DDPMParallel", "DEISMultistep",
        "DPMSolverMultistep", "DPMSolverMultistepInverse", "DPMSolverSDE", "DPMSolverSinglestep",
        "EulerAncestralDiscrete", "EulerDiscrete", "HeunDiscrete", "KDPM2AncestralDiscrete",
        "KDPM2Discrete", "LMSDiscrete", "PNDM", "SASolver", "UniPCMultistep",
    )
)  # fmt: skip
"""Schedulers of diffusers whose configuration a DDIMScheduler takes over as it is."""

_FEW_STEPS: Final = frozenset({"LCMScheduler", "TCDScheduler"})


def check_scheduler(config: Mapping[str, Any]) -> None:
    """Raises InputError for a scheduler whose noise schedule has no DDIM form."""
    name = config.get("_class_name")
    if name in _FEW_STEPS:
        raise InputError(
            "base",
            f"its scheduler is a {name}: the model is distilled for a few steps (LCM, TCD), and "
            "DDIM does not draw with it",
            "use the model it was distilled from",
        )
    flow = " with use_flow_sigmas" if config.get("use_flow_sigmas") else ""
    if flow or (name is not None and name not in SCHEDULERS):
        raise InputError(
            "base", f"its scheduler is a {name}{flow}, which has no DDIM form", SUPPORTED
        )
