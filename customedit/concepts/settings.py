"""How a concept is trained: every setting with its limits, and the defaults for a base."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from customedit.diffusion.base import Base
from customedit.errors import InputError

Way = Literal["custom-diffusion", "textual-inversion", "dreambooth"]


@dataclass(frozen=True)
class TrainingSettings:
    """How a concept is trained; the defaults are those of ``TrainingSettings.of`` for SD bases.

    way: what is trained; steps: optimisation steps; rate: of AdamW; batch: references in a step
    (and as many class images); class_images: for prior preservation, 0 for none; prior_weight: of
    their loss; instance_weight: of the references' loss (the public scripts' masked loss amounts to
    4, the formula says 1); crops: framings kept of each reference; rank: of the
    changes of weights, 0 for whole weights; initial: word whose embedding V*
    starts from, None for the profile's rare word or else the attribute; seed: decides everything by
    chance; augment_crops: whether references are framed at random.
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
    rank: int = 0
    initial: str | None = None
    weight_decay: float = 1e-2
    clip: float = 1.0
    checkpoint_every: int = 100
    preview_every: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        limits: dict[str, tuple[float, float]] = {
            "steps": (1, 20_000),
            "rate": (1e-9, 1.0),
            "batch": (1, 32),
            "class_images": (0, 1000),
            "class_steps": (1, 1000),
            "crops": (1, 1000),
            "rank": (0, 1024),
            "prior_weight": (0, 100),
            "instance_weight": (0, 100),
        }
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise InputError(
                    name, f"{getattr(self, name)} is out of range", f"give {low:g} to {high:g}"
                )
        if self.rank and self.way != "custom-diffusion":
            raise InputError("rank", f"has no effect on {self.way}", "leave it out")
        if self.way not in get_args(Way):
            raise InputError(
                "way", f"{self.way!r} is unknown", f"use one of {', '.join(get_args(Way))}"
            )

    @classmethod
    def of(cls, base: Base, **changes: Any) -> TrainingSettings:
        """The defaults for ``base`` (those of its profile first), with ``changes``."""
        given = {name: value for name, value in changes.items() if value is not None}
        defaults = base.profile.training.of(given.get("way", "custom-diffusion"))
        return cls(**(defaults | given))
