"""Recipes of training: named sets of settings, written once for library, commands, REST and page.

``paper`` is Custom Diffusion as published (arXiv 2212.04488), with which Custom-Edit trains. The
others keep what is learned to the thing that wears it: a look that leaks leaves ghosts and changes
the rest of the picture. Which recipe a base takes by default stands in its profile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

from customedit.errors import InputError

RecipeName = Literal["paper", "contained"]
NAMES: Final[tuple[RecipeName, ...]] = get_args(RecipeName)


@dataclass(frozen=True)
class Recipe:
    """Settings that go together.

    about: what it does, in a sentence; rate: the learning rate, as a share of the base's default;
    settings: fields of ``TrainingSettings`` that differ from the paper's.
    """

    about: str
    rate: float
    settings: Mapping[str, Any]


RECIPES: Final[Mapping[RecipeName, Recipe]] = MappingProxyType(
    {
        "paper": Recipe("Custom Diffusion as published.", 1.0, MappingProxyType({})),
        "contained": Recipe(
            "The concept acts on its token's columns alone, the rate falls, the last steps are "
            "averaged, and the loss counts where the references' thing is.",
            1.0,
            MappingProxyType(
                {
                    "columns": "token",
                    "rate_schedule": "cosine",
                    "ema": 0.95,
                    "snr_gamma": 5.0,
                    "crop_cells": 12,
                    "weigh_cells": True,
                    "focus": "noun",
                }
            ),
        ),
    }
)


def recipe(name: str) -> Recipe:
    """The recipe of that name. Raises InputError for another."""
    if name not in NAMES:
        raise InputError("recipe", f"{name!r} is unknown", f"use one of {', '.join(NAMES)}")
    return RECIPES[name]


def has_prior(settings: Mapping[str, Any]) -> bool:
    """Whether class images are trained on, as far as ``settings`` say; what is None is not known.

    Without keys and values that act on their words there is nothing to preserve: they name no
    token.
    """
    way = settings.get("way")
    if way == "textual-inversion" or (
        way == "custom-diffusion" and settings.get("columns") == "token"
    ):
        return False
    return 0 not in (settings.get("class_images"), settings.get("prior_weight"))


def without_effect(settings: Mapping[str, Any]) -> dict[str, str]:
    """The fields of ``TrainingSettings`` that are not off and yet change nothing, and why.

    settings: what is None is not known, and is not held against the others.
    """
    way, found = settings.get("way"), {}
    if way in ("textual-inversion", "dreambooth"):
        if settings.get("columns") == "token":
            found["columns"] = f"{way} has no keys and values of its own"
        if settings.get("rank"):
            found["rank"] = f"{way} trains no changes of low rank"
    if way != "lora":
        for name in ("lora_layers", "alpha", "train_text_encoder"):
            if settings.get(name):
                found[name] = "it is of the way lora"
    if settings.get("crop_cells") and settings.get("augment_crops") is False:
        found["crop_cells"] = "references are not framed at random"
    if (settings.get("prior_classes") or 1) > 1 and not has_prior(settings):
        found["prior_classes"] = "there are no class images"
    return found


_OFF: Final[Mapping[str, float]] = {
    "class_images": 0, "prior_weight": 0, "crops": 1, "crop_cells": 0,
}  # fmt: skip
"""The value with which each of these asks for nothing."""


def given_without_effect(given: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, str]:
    """The fields of ``given`` that are not off and change nothing beside ``settings``, and why.

    Recipes and profiles may have these all the same, for other trainings. given: what was asked
    for; settings: as for ``without_effect``, with what is given.
    """
    found: dict[str, str] = {}
    way = settings.get("way")
    for name, other in (("class_images", "prior_weight"), ("prior_weight", "class_images")):
        if way == "textual-inversion":
            found[name] = "textual-inversion has no class images"
        elif way == "custom-diffusion" and settings.get("columns") == "token":
            found[name] = (
                "the concept acts on its token's columns, and class images name no token; "
                'columns "prompt" has them'
            )
        elif settings.get(other) == 0:
            found[name] = f"{other} is 0"
    if settings.get("augment_crops") is False:
        found["crops"] = "references are not framed at random"
    if settings.get("crops") == 1:
        found["crop_cells"] = "crops is 1, which is the whole reference"
    return {
        name: why
        for name, why in found.items()
        if given.get(name) is not None and given[name] != _OFF[name]
    }
