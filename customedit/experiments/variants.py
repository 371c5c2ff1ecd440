"""The variants of the study: what is trained, how it is edited, what each ablation leaves out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from customedit.concepts.prompts import ConceptPrompts
from customedit.concepts.settings import Way
from customedit.images.masks import read_mask
from customedit.mini import samples
from customedit.schemas.requests import EditMethod, EditOptions, InversionKind, P2POptions

STRENGTHS: Final = (0.2, 0.4, 0.6, 0.8)

LOOKS: Final = ("plaid", "scales", "leopard", "waves")
"""The looks that comparisons are made with."""


@dataclass(frozen=True)
class Variant:
    """One way to do it.

    name: in tables; way: of training; augmented: whether prompts have the attribute word; prior:
    whether class images are kept to; swap: word swap instead of refinement; union: the union mask
    instead of the source's; inversion: of the source; editors, strengths: what is run.
    """

    name: str
    way: Way = "custom-diffusion"
    augmented: bool = True
    prior: bool = True
    swap: bool = False
    union: bool = False
    inversion: InversionKind = "direct"
    editors: tuple[EditMethod, ...] = ("p2p",)
    strengths: tuple[float, ...] = STRENGTHS

    @property
    def trained(self) -> str:
        """Names what is trained: variants with equal names share their concepts."""
        plain = "" if self.augmented else "-plain"
        return f"{self.way}{plain}{'' if self.prior else '-no-prior'}"

    def prompts(self, look: samples.Look) -> ConceptPrompts:
        """What the concept is trained with."""
        return ConceptPrompts(look.token, look.noun, look.attribute if self.augmented else "")

    def target(self, source: samples.Source, look: samples.Look) -> str:
        """The target prompt of ``source``."""
        if self.swap:
            return re.sub(rf"\b{source.noun}\b", look.token, source.prompt, count=1)
        prompt = source.target_prompt(look)
        return prompt if self.augmented else prompt.replace(look.phrase, look.token)

    def options(
        self,
        source: samples.Source,
        look: samples.Look,
        editor: EditMethod,
        strength: float,
        steps: int,
    ) -> EditOptions:
        """The edit of ``source`` by this variant."""
        p2p = None
        if editor == "p2p":
            words = None
            if self.union:
                words = [look.token] if self.swap else [look.token, source.noun]
            p2p = P2POptions(
                way="replace" if self.swap else "refine",
                blend_over="union" if self.union else "source",
                blend_words=[source.noun],
                blend_target_words=words,
            )
        return EditOptions(
            source_prompt=source.prompt,
            target_prompt=self.target(source, look),
            method=editor,
            strengths=[strength],
            steps=steps,
            inversion=self.inversion if editor == "p2p" else "direct",
            p2p=p2p,
            preserve=False,
        )


def true_mask(source: samples.Source) -> Tensor:
    """Where the thing of ``source`` is, [h, w] in [0, 1]."""
    return torch.from_numpy(read_mask(source.mask).values)


BOTH: Final[tuple[EditMethod, ...]] = ("p2p", "sdedit")

VARIANTS: Final = (
    Variant("Custom Diffusion", editors=BOTH),
    Variant("DreamBooth", way="dreambooth", editors=BOTH),
    Variant("Textual Inversion", way="textual-inversion", editors=BOTH),
    Variant("no augmented prompt", augmented=False),
    Variant("no prior preservation", prior=False),
    Variant("word swap", swap=True),
    Variant("union mask", union=True),
    Variant("DDIM inversion", inversion="ddim"),
    Variant("negative-prompt inversion", inversion="negative-prompt"),
    Variant("null-text inversion", inversion="null-text", strengths=(0.4,)),
)
"""The comparison and the ablations; each differs from the first in one thing."""


@dataclass(frozen=True)
class Plan:
    """How much is run: looks and sources, DDIM steps, training steps (None for the defaults)."""

    looks: tuple[samples.Look, ...]
    sources: tuple[samples.Source, ...]
    variants: tuple[Variant, ...] = VARIANTS
    steps: int = 50
    training_steps: int | None = None

    @classmethod
    def whole(cls) -> Plan:
        """Four looks on every sixth source; 25 DDIM steps, so that two hours suffice."""
        looks = tuple(x for x in samples.looks() if x.name in LOOKS)
        return cls(looks, samples.sources()[::6], steps=25)

    @classmethod
    def quick(cls) -> Plan:
        """Minutes instead of hours, for checks: its figures mean nothing."""
        variants = tuple(a for a in VARIANTS if a.inversion != "null-text")
        return cls(samples.looks()[:1], samples.sources()[:1], variants, steps=4, training_steps=3)
