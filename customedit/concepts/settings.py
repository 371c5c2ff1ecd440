"""How a concept is trained: every setting with its limits, and the defaults for a base.

The defaults are Custom Diffusion's (arXiv 2212.04488); what goes beyond the paper is off. Named
sets of settings are in ``schemas.recipes``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from customedit.diffusion.base import Base
from customedit.diffusion.ddim import DDIMSchedule
from customedit.diffusion.text import Columns
from customedit.errors import InputError
from customedit.schemas.recipes import (
    NAMES,
    given_without_effect,
    has_prior,
    recipe,
    without_effect,
)

Way = Literal["custom-diffusion", "textual-inversion", "dreambooth", "lora"]
RateSchedule = Literal["constant", "linear", "cosine"]
Focus = Literal["picture", "noun"]
LoraLayers = Literal["cross-attention", "attention", "all"]
Sentences = Literal["photo", "varied"]

_LIMITS: Final[dict[str, tuple[float, float]]] = {
    "steps": (1, 20_000),
    "rate": (1e-9, 1.0),
    "batch": (1, 32),
    "class_images": (0, 1000),
    "class_steps": (1, 1000),
    "crops": (1, 1000),
    "prior_weight": (0, 100),
    "instance_weight": (0, 100),
    "rank": (0, 1024),
    "ema": (0, 0.9999),
    "snr_gamma": (0, 1000),
    "crop_cells": (0, 256),
    "prior_classes": (1, 50),
    "alpha": (1e-3, 1024),
}

_CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "way": get_args(Way),
    "recipe": NAMES,
    "columns": get_args(Columns),
    "rate_schedule": get_args(RateSchedule),
    "focus": get_args(Focus),
    "lora_layers": get_args(LoraLayers),
    "sentences": get_args(Sentences),
}


@dataclass(frozen=True)
class TrainingSettings:
    """How a concept is trained; the defaults are those of ``TrainingSettings.of`` for SD bases.

    way: what is trained; steps: optimisation steps; rate: of AdamW; batch: references in a step
    (and as many class images); class_images: for prior preservation, 0 for none; prior_weight: of
    their loss; instance_weight: of the references' loss (the public scripts' masked loss amounts to
    4, the formula says 1); crops: framings kept of each reference; initial: word whose embedding V*
    starts from, None for the profile's rare word or else the attribute; seed: decides everything by
    chance; augment_crops: whether references are framed at random.

    Beyond the paper, all off by default:

    recipe: the name of the set of settings it was made from; columns: the columns of a prompt that
    the concept's keys and values act on, "prompt" for all or "token" for V*'s alone, in training
    and use; rate_schedule: how the rate falls towards 0 at the end; rank: of the changes of keys
    and values, or of a LoRA, trained as factors, 0 for whole matrices; ema: decay of the moving
    average of what is trained, which becomes the concept, 0 for the last step itself; snr_gamma:
    of min-SNR weighting (arXiv 2303.09556), 0 for none, the paper takes 5; crop_cells: latent cells
    a side that a reference pasted on a canvas has at the least; weigh_cells: whether every counted
    cell weighs the same, instead of every row; focus: "noun" counts the loss where the base sees
    the references' noun; prior_classes: how many classes the class images show, the references'
    own among them; sentences: "varied" words the references' prompts by turns (``prompts.FORMS``).

    Of way "lora": lora_layers: the UNet's layers that are changed; alpha: the changes are times
    alpha / rank, None for alpha = rank; train_text_encoder: whether the text encoder's attention is
    changed as well.

    Raises:
        InputError: for a number out of range, an unknown name, and a setting without effect.
    """

    way: Way = "custom-diffusion"
    steps: int = 500
    rate: float = 4e-5
    batch: int = 2
    class_images: int = 200
    class_steps: int = 50
    prior_weight: float = 1.0
    instance_weight: float = 1.0
    augment_crops: bool = True
    crops: int = 24
    initial: str | None = None
    weight_decay: float = 1e-2
    clip: float = 1.0
    checkpoint_every: int = 100
    preview_every: int = 0
    seed: int = 0
    recipe: str = "paper"
    columns: Columns = "prompt"
    rate_schedule: RateSchedule = "constant"
    rank: int = 0
    ema: float = 0.0
    snr_gamma: float = 0.0
    crop_cells: int = 0
    weigh_cells: bool = False
    focus: Focus = "picture"
    prior_classes: int = 1
    sentences: Sentences = "photo"
    lora_layers: LoraLayers | None = None
    alpha: float | None = None
    train_text_encoder: bool = False

    def __post_init__(self) -> None:
        for name, (low, high) in _LIMITS.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise InputError(name, f"{value} is out of range", f"give {low:g} to {high:g}")
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise InputError(name, f"{value!r} is unknown", f"use one of {', '.join(choices)}")
        if self.way == "lora" and self.rank < 1:
            raise InputError("rank", "of a LoRA is 0", "give 1 or more, such as 8")
        for name, reason in without_effect(vars(self)).items():
            raise InputError(name, f"has no effect: {reason}", "leave it out")

    @property
    def has_prior(self) -> bool:
        """Whether class images are trained on."""
        return has_prior(vars(self))

    @property
    def lora_scale(self) -> float:
        """Alpha / rank."""
        return 1.0 if self.alpha is None else self.alpha / self.rank

    @classmethod
    def of(cls, base: Base, **changes: Any) -> TrainingSettings:
        """The settings for ``base``, with ``changes`` (None is left out).

        A change comes before the recipe, the recipe before the profile, the profile before the
        defaults above. What of a recipe or a profile has no effect beside the changes is left out.

        Raises:
            InputError: as the settings do, and for framings larger than the base's latents.
        """
        given = {name: value for name, value in changes.items() if value is not None}
        way, name = given.get("way", cls.way), given.get("recipe", base.profile.recipe)
        chosen = recipe(name)
        own = {**base.profile.training.of(way)}
        own["rate"] = chosen.rate * own.get("rate", cls.rate)
        start = {"recipe": name, **own, **chosen.settings}
        everything = {**_DEFAULTS, **start, **given}
        idle = {
            **without_effect(everything),
            **given_without_effect(given, everything),
            **_unfit(base, everything),
        }
        for setting in idle.keys() & given.keys():
            raise InputError(setting, f"has no effect: {idle[setting]}", "leave it out")
        found = cls(**{k: v for k, v in start.items() if k not in idle} | given)
        found.check(base)
        return found

    def check(self, base: Base) -> None:
        """Check the numbers against ``base``. Raises InputError."""
        cells, classes = base.side // base.factor, max(1, len(base.profile.nouns))
        limits = {"crop_cells": (cells, "cells a side"), "prior_classes": (classes, "nouns")}
        if base.shapes:
            largest = max(min(shape) for shape in base.shapes.values())
            limits["rank"] = (largest, "as the largest rank of its keys and values")
        for name, (most, what) in limits.items():
            value = getattr(self, name)
            if value > most:
                raise InputError(
                    name, f"is {value}, and this base has {most} {what}", f"give {most} or less"
                )


_DEFAULTS: Final = {field.name: field.default for field in dataclasses.fields(TrainingSettings)}


def _unfit(base: Base, settings: Mapping[str, Any]) -> dict[str, str]:
    """The settings that are not off and have no meaning for ``base``, and why."""
    found: dict[str, str] = {}
    if settings["snr_gamma"] and not isinstance(base.schedule, DDIMSchedule):
        found["snr_gamma"] = "this base matches a flow, which has no such weights"
    if settings["columns"] == "token" and not base.weights:
        found["columns"] = "this base's text changes from layer to layer"
    return found
