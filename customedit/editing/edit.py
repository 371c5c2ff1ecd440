"""One edit from picture to picture: what the CLI, the sweep and the service call.

Inverts (or reads a kept inversion), edits by Prompt-to-Prompt or SDEdit, decodes, and puts the
source's own pixels back outside the edit where that is wanted. The result carries its recipe.
"""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal, get_args

from PIL import Image
from torch import Tensor

import customedit
from customedit import pixels
from customedit.diffusion.base import Base
from customedit.diffusion.engine import Method
from customedit.diffusion.text import TextContext, Tokens, Weighted
from customedit.editing.alignment import bare
from customedit.editing.inversion import Inversion, Kind, empty_text, invert
from customedit.editing.prompt_to_prompt import STRENGTH, P2PSettings, prompt_to_prompt
from customedit.editing.sdedit import SDEDIT_STRENGTH, sdedit
from customedit.errors import InputError
from customedit.prompt_syntax import CONCEPT

MethodName = Literal["p2p", "sdedit"]
METHODS: Final = get_args(MethodName)


@dataclass(frozen=True)
class EditSettings:
    """What is asked for.

    source_prompt: the picture in words; target_prompt: the same with what is to change. method: p2p
    or sdedit; strength: None for the method's default. For p2p higher keeps more of the source; for
    sdedit higher takes more of the reference. p2p: the expert settings, None for those that
    ``default_p2p`` derives from the prompts. preserve: outside the mask the source's own pixels
    come back at full size; feather: the edge of that mask in source pixels. inversion: how the
    source is inverted for p2p. guidance: None for the base's own.
    everywhere: the concepts' weights read every row's text, the source's and the empty one, too, as
    in a model that was customised as a whole; inversions stay the base's.
    """

    source_prompt: str
    target_prompt: str
    method: MethodName = "p2p"
    strength: float | None = None
    steps: int = 50
    guidance: float | None = None
    seed: int = 0
    inversion: Kind = "direct"
    p2p: P2PSettings | None = None
    preserve: bool = False
    feather: float = 8.0
    everywhere: bool = False

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError("method", f"{self.method!r} is none", f"take {' or '.join(METHODS)}")
        for name in ("source_prompt", "target_prompt"):
            if not getattr(self, name).strip() and not (name == "source_prompt" and self.drawn):
                raise InputError(name, "is empty", "say in words what the picture shows")
        if self.guidance is not None and not 0 <= self.guidance <= 50:
            raise InputError("guidance", f"{self.guidance} is not from 0 to 50", "7.5 is usual")
        if not 0 <= self.seed < 2**63:
            raise InputError("seed", f"{self.seed} is not from 0 to 2^63 - 1")
        if self.strength is not None and not 0 <= self.strength <= 1:
            raise InputError("strength", f"{self.strength} is not from 0 to 1")

    @property
    def drawn(self) -> bool:
        """Whether the source prompt is of no use (SDEdit)."""
        return self.method == "sdedit"


@dataclass(frozen=True)
class EditResult:
    """What came out.

    image: at the working size, or at the source's with ``preserve``; working: the decoded edit as
    the model drew it; source: the source through the model's autoencoder, at the working size;
    mask: [h, w] in [0, 1] where the edit was kept to; maps: [2, rows, columns, tokens] on request;
    latents: [1, C, h, w]; recipe: everything for an exact rerun.
    """

    image: Image.Image
    working: Image.Image
    source: Image.Image
    latents: Tensor
    mask: Tensor | None
    maps: Tensor | None
    recipe: dict[str, Any] = field(default_factory=dict)


def edited_word(source: Tokens, target: Tokens) -> str | None:
    """The word of the source prompt that a concept in the target prompt is said of.

    The first word after the concept's token that the source prompt has, too: "cup" for "a photo of
    a cup" and "a photo of a <plaid> patterned cup". None without a concept or such a word.
    """
    there = {bare(w) for w in source.words}
    for at, word in enumerate(target.words):
        if CONCEPT.search(word):
            for later in target.words[at + 1 :]:
                if bare(later) in there:
                    return bare(later)
    return None


def default_p2p(source: Tokens, target: Tokens, strength: float | None) -> P2PSettings:
    """Custom-Edit's: refinement, and a local blend by the source's map of the edited word."""
    share = STRENGTH if strength is None else strength
    word = edited_word(source, target)
    if word is None:
        return P2PSettings(strength=share)
    return P2PSettings(strength=share, blend_over="source", blend_words=(word,))


def recipe(base: Base, settings: EditSettings, concepts: Sequence[Weighted]) -> dict[str, Any]:
    """Everything that decides the result, and the versions that it was made with."""
    return {
        "settings": dataclasses.asdict(settings),
        "base": {"name": base.name, "fingerprint": base.fingerprint, "dtype": str(base.dtype)},
        "concepts": [
            {"tokens": sorted(entry.concept.tokens), "weight": entry.weight} for entry in concepts
        ],
        "versions": {
            "customedit": customedit.__version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "diffusers", "transformers")},
        },
    }


def edit(
    base: Base,
    image: Image.Image,
    settings: EditSettings,
    concepts: Sequence[Weighted] = (),
    *,
    mask: Tensor | None = None,
    keep: Path | None = None,
    inversion: Inversion | None = None,
    record: bool = False,
) -> Method[EditResult]:
    """Edit ``image``.

    concepts: those that the target prompt may name, with their weights. mask: the user's own, [h,
    w] in [0, 1]. keep: a folder where inversions are kept and found. inversion: the source's, made
    before with equal settings; else it is made here. record: hand the attention maps back.

    Raises InputError for prompts and settings that do not fit, naming the field.
    """
    guidance = base.guidance if settings.guidance is None else settings.guidance
    settings = dataclasses.replace(settings, guidance=guidance)
    everywhere = settings.everywhere
    target = base.text(settings.target_prompt, concepts, "target_prompt", everywhere=everywhere)
    reading = concepts if everywhere else ()
    latents = base.encode(image)
    maps = None
    if settings.method == "sdedit":
        edited = yield from sdedit(
            base,
            latents,
            target,
            steps=settings.steps,
            guidance=guidance,
            seed=settings.seed,
            strength=SDEDIT_STRENGTH if settings.strength is None else settings.strength,
            empty=base.text("", reading, everywhere=everywhere),
        )
        where = mask
    else:
        source = base.text(settings.source_prompt, concepts, "source_prompt", everywhere=everywhere)
        p2p = _chosen_p2p(settings, source, target, mask)
        if inversion is None:
            inversion = yield from invert(
                base,
                latents,
                settings.source_prompt,
                kind=settings.inversion,
                steps=settings.steps,
                guidance=guidance,
                keep=keep,
            )
        found = yield from prompt_to_prompt(
            base,
            inversion,
            source,
            target,
            settings=p2p,
            guidance=guidance,
            mask=mask,
            record=record,
            empty=empty_text(base, inversion, reading),
        )
        edited, where, maps = found.latents, found.mask, found.maps
        settings = dataclasses.replace(settings, p2p=p2p)
    working, back = base.decode(edited)[0], base.decode(latents)[0]
    final = working
    if settings.preserve:
        if where is None:
            raise InputError("preserve", "needs a mask", "give blend words or a mask of your own")
        coarse = where if mask is None else None
        region = pixels.source_region(image, mask=mask, coarse=coarse)
        final = pixels.paste_preserved(image, working, region, feather=settings.feather)
    return EditResult(final, working, back, edited, where, maps, recipe(base, settings, concepts))


def _chosen_p2p(
    settings: EditSettings, source: TextContext, target: TextContext, mask: Tensor | None
) -> P2PSettings:
    """The expert settings, or those that follow from the prompts."""
    assert source.tokens is not None and target.tokens is not None
    if settings.p2p is not None:
        return settings.p2p
    chosen = default_p2p(source.tokens, target.tokens, settings.strength)
    if mask is not None:
        return dataclasses.replace(chosen, blend_over="mask")
    return chosen
