"""The variants of the study: what is trained, how it is edited, what each ablation leaves out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch
from torch import Tensor

from customedit.concepts.prompts import ConceptPrompts
from customedit.concepts.settings import Way
from customedit.errors import InputError
from customedit.images.masks import read_mask
from customedit.metrics.lookbench.dataset import Bench, bundled
from customedit.metrics.lookbench.looks import Look
from customedit.metrics.lookbench.sources import Source
from customedit.mini import samples
from customedit.schemas.methods import EditMethod, InversionKind, P2POptions, SDEditOptions
from customedit.schemas.recipes import RecipeName, given_without_effect, recipe
from customedit.schemas.requests import EditOptions

STRENGTHS: Final = (0.2, 0.4, 0.6, 0.8)

LOOKS: Final = ("plaid", "scales", "leopard", "waves")
"""The looks that ``experiments.pairs`` compares with."""

RARE: Final = "q"
"""DreamBooth's identifier on the bundled base: one token of its vocabulary that no training caption
has, as "sks" is for Stable Diffusion."""

Words = Literal["caption", "best"]
"""An edit without a concept: by the look's first wording, or by the one that does best."""

Training = Mapping[str, Any]
"""What differs from ``TrainingSettings.of`` the base."""


@dataclass(frozen=True)
class Variant:
    """One way to do it.

    name: in tables; way: of training; recipe: of training, None for that of the base's profile;
    words: plain words instead of a concept; augmented: whether prompts have the attribute word;
    prior: whether class images are kept to; swap: word swap instead of refinement; union: the union
    mask instead of the source's; inversion: of the source; editors, strengths: what is run;
    budgets: trainings to choose from, by the tuning sources; without any, what the plan's first
    variant chose, so that an ablation differs from it in one thing.
    """

    name: str
    way: Way = "custom-diffusion"
    recipe: RecipeName | None = "paper"
    words: Words | None = None
    augmented: bool = True
    prior: bool = True
    swap: bool = False
    union: bool = False
    inversion: InversionKind = "direct"
    editors: tuple[EditMethod, ...] = ("p2p",)
    strengths: tuple[float, ...] = STRENGTHS
    budgets: tuple[Training, ...] = ()

    @property
    def trained(self) -> str:
        """Names what is trained: variants with equal names and settings share their concepts."""
        plain = "" if self.augmented else "-plain"
        return f"{self.way}{plain}{'' if self.prior else '-no-prior'}"

    def prompts(self, look: Look) -> ConceptPrompts:
        """What the concept is trained with."""
        return ConceptPrompts(look.token, look.noun, look.attribute if self.augmented else "")

    def target(self, source: Source, look: Look, wording: str = "") -> str:
        """The target prompt of ``source``; wording: the plain words instead of a concept."""
        if self.words is not None:
            return source.target_prompt(wording)
        if self.swap:
            return re.sub(rf"\b{source.noun}\b", look.token, source.prompt, count=1)
        return source.target_prompt(look.phrase if self.augmented else look.token)

    def options(
        self,
        source: Source,
        look: Look,
        editor: EditMethod,
        strength: float,
        steps: int,
        seed: int = 0,
        wording: str = "",
    ) -> EditOptions:
        """The edit of ``source`` by this variant."""
        p2p = None
        if editor == "p2p":
            targets = None
            if self.union:
                targets = [look.token] if self.swap else [look.token, source.noun]
            p2p = P2POptions(
                way="replace" if self.swap else "refine",
                blend_over="union" if self.union else "source",
                blend_words=[source.noun],
                blend_target_words=targets,
            )
        return EditOptions(
            source_prompt=source.prompt,
            target_prompt=self.target(source, look, wording),
            method=editor,
            strengths=[strength],
            steps=steps,
            seeds=[seed],
            inversion=self.inversion if editor == "p2p" else "direct",
            p2p=p2p,
            sdedit=SDEditOptions(blend_over="none") if editor == "sdedit" else None,
            preserve=False,
        )


def true_mask(source: samples.Source) -> Tensor:
    """Where the thing of ``source`` is, [h, w] in [0, 1]."""
    return torch.from_numpy(read_mask(source.mask).values)


BOTH: Final[tuple[EditMethod, ...]] = ("p2p", "sdedit")

CUSTOM_BUDGETS: Final[tuple[Training, ...]] = ({}, {"steps": 400})

DREAMBOOTH_BUDGETS: Final[tuple[Training, ...]] = tuple(
    {"initial": RARE, "steps": steps, "rate": rate}
    for steps, rate in (
        (400, 5e-6),  # the paper's rate; fewer steps of it teach less
        *((steps, rate) for rate in (5e-5, 1e-4, 2e-4) for steps in (200, 400)),
    )
)
"""The bundled base's own rate is 1e-4, with one on either side of it."""

INVERSION_BUDGETS: Final[tuple[Training, ...]] = tuple(
    {"steps": steps, "rate": rate, "sentences": "varied"}
    for rate in (5e-3, 1e-2)
    for steps in (1000, 3000)
)
"""Of Textual Inversion."""

VARIANTS: Final = (
    Variant("Custom Diffusion", editors=BOTH, budgets=CUSTOM_BUDGETS),
    Variant("DreamBooth", way="dreambooth", editors=BOTH, budgets=DREAMBOOTH_BUDGETS),
    Variant("Textual Inversion", way="textual-inversion", editors=BOTH, budgets=INVERSION_BUDGETS),
    Variant("default recipe", recipe=None, editors=BOTH, budgets=CUSTOM_BUDGETS),
    Variant("caption", words="caption", editors=BOTH),
    Variant("best words", words="best", editors=BOTH),
    Variant("no augmented prompt", augmented=False),
    Variant("no prior preservation", prior=False),
    Variant("word swap", swap=True),
    Variant("union mask", union=True),
    Variant("DDIM inversion", inversion="ddim"),
    Variant("negative-prompt inversion", inversion="negative-prompt"),
    Variant("null-text inversion", inversion="null-text"),
)
"""The comparison and the ablations; each ablation differs from the first in one thing."""


@dataclass(frozen=True)
class Plan:
    """How much is run: pairs of a bench, training seeds, DDIM steps.

    training: what every training takes beside its budget; for checks.
    """

    bench: Bench
    seeds: tuple[int, ...] = (0, 1, 2)
    variants: tuple[Variant, ...] = VARIANTS
    steps: int = 50
    training: Training | None = None

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise InputError("seeds", f"are {list(self.seeds)}", "give one or more, all different")
        if not self.bench.tuning:
            raise InputError("bench", "has no tuning sources", "add some: budgets need them")

    @classmethod
    def of(
        cls,
        looks: Sequence[str] | None = None,
        sources: int | None = None,
        seeds: int | None = None,
        variants: Sequence[str] | None = None,
        steps: int | None = None,
    ) -> Plan:
        """Looks by name on so many of LookBench's public sources, with so many training seeds.

        Left out: all eight looks, 12 sources, 3 seeds, all variants, 50 steps.

        Raises InputError for unknown names and numbers out of range.
        """
        known = {variant.name: variant for variant in VARIANTS}
        for name in variants or ():
            if name not in known:
                raise InputError(
                    "variant", f"{name!r} is unknown", f"take one of {', '.join(known)}"
                )
        first = VARIANTS[0].name  # which the others are compared with
        chosen = tuple(v for v in VARIANTS if not variants or v.name in (first, *variants))
        bench = bundled("public").select(looks or (), sources or 12)
        return cls(bench, tuple(range(seeds or 3)), chosen, steps or 50)

    @classmethod
    def quick(cls) -> Plan:
        """Minutes instead of hours, for checks: its figures mean nothing."""
        variants = tuple(v for v in VARIANTS if v.inversion != "null-text")
        few = {"steps": 3, "class_images": 2, "class_steps": 2, "crops": 2}
        return cls(bundled("small").select((), 1), (0, 1), variants, 4, few)

    def training_of(self, variant: Variant, budget: Training, default: str) -> dict[str, Any]:
        """What a training of ``variant`` with ``budget`` differs in from the defaults.

        default: the recipe of the base's profile.
        """
        none = {} if variant.prior else {"class_images": 0}
        named = {"way": variant.way, "recipe": variant.recipe or default}
        given = {**budget, **(self.training or {}), **none, **named}
        everything = {**recipe(named["recipe"]).settings, **given}
        idle = given_without_effect(given, everything)  # of what the plan has for all variants
        return {name: value for name, value in given.items() if name not in idle}
