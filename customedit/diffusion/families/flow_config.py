"""Which transformers and schedulers of flow matching can be driven, by their configurations.

No torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from customedit.diffusion.families.layout import SUPPORTED
from customedit.errors import InputError

SCHEDULER: Final = "FlowMatchEulerDiscreteScheduler"
SCHEDULER_FILE: Final = "scheduler/scheduler_config.json"

_REFUSED: Final[Mapping[str, str]] = {
    "invert_sigmas": "runs the schedule the other way round",
    "stochastic_sampling": "draws new noise at each step, so that no inversion leads back",
    "use_karras_sigmas": "has times of its own",
    "use_exponential_sigmas": "has times of its own",
    "use_beta_sigmas": "has times of its own",
    "shift_terminal": "ends above the picture",
}
"""Settings that are not followed, and what each does."""

_FLUX_INPUTS: Final[Mapping[int, str]] = {
    2: "FLUX.1 Canny or Depth, which also read a picture of edges or depth",
    6: "FLUX.1 Fill, which also reads a picture and its mask",
}
"""How often a FLUX transformer's input holds the latents, if not once, and which model that is."""


def check_scheduler(config: Mapping[str, Any]) -> None:
    """Raises InputError, naming it, for a scheduler or a setting that is not followed."""
    name = config.get("_class_name", SCHEDULER)
    if name != SCHEDULER:
        raise InputError("base", f"its scheduler is a {name}, not a {SCHEDULER}", SUPPORTED)
    for setting, what in _REFUSED.items():
        if config.get(setting):
            raise InputError(
                "base",
                f"its scheduler has {setting}, which {what}",
                f"turn it off in {SCHEDULER_FILE}",
            )


def check_sd3(config: Mapping[str, Any], vae: Mapping[str, Any], name: str) -> None:
    """Raises InputError for a transformer that does not take and give the autoencoder's latents."""
    latent = vae.get("latent_channels", 4)
    for part, default in (("in_channels", 16), ("out_channels", 16)):
        if config.get(part, default) != latent:
            raise InputError(
                "base",
                f"{name} has a transformer with {part} {config.get(part, default)}, its latents "
                f"have {latent}",
                SUPPORTED,
            )
    _check_blocks(config, name)


def check_flux(config: Mapping[str, Any], vae: Mapping[str, Any], name: str) -> None:
    """Raises InputError for a transformer that does not take and give four latent cells a token."""
    latent = vae.get("latent_channels", 4)
    taken = config.get("in_channels", 64)
    given = config.get("out_channels") or taken
    if taken != 4 * latent or given != 4 * latent:
        use = _FLUX_INPUTS.get(taken // (4 * latent)) if taken % (4 * latent) == 0 else None
        raise InputError(
            "base",
            f"{name} has a transformer that takes {taken} channels and gives {given}, four cells "
            f"of its latents have {4 * latent}" + (f": it is {use}" if use else ""),
            SUPPORTED,
        )
    if config.get("patch_size", 1) != 1:
        raise InputError(
            "base", f"{name} has a transformer with patch_size {config['patch_size']}", SUPPORTED
        )
    _check_blocks(config, name)


def _check_blocks(config: Mapping[str, Any], name: str) -> None:
    """Raises InputError for a transformer without joint blocks, where nothing reads the text."""
    count = config.get("num_layers", 1)
    if not isinstance(count, int) or count < 1:
        raise InputError("base", f"{name} has a transformer with num_layers {count!r}", SUPPORTED)
