"""What is particular to a base, as data: guidance, training defaults, captions, sizes, vocabulary.

A base folder may hold it in a file of its own, ``customedit.json``; where it does not, a table by
architecture answers. Nothing here imports torch: the front end, which has no model, reads the same
profile as the worker.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from customedit.errors import InputError
from customedit.prompt_syntax import article

FILE: Final = "customedit.json"
"""The profile's file in a base folder."""

MAX_BYTES: Final = 2**20

CAPTIONS: Final = 200
"""Captions that stand for everything a merged concept shall leave alone, as the paper takes."""

_THINGS: Final = (
    "dog", "cat", "horse", "bird", "man", "woman", "child", "car", "bicycle", "train", "house",
    "church", "bridge", "street", "mountain", "river", "beach", "forest", "flower", "tree", "apple",
    "cake", "cup", "chair", "table", "lamp", "book", "guitar", "shoe", "hat",
)  # fmt: skip
_FORMS: Final = (
    "a photo of {}", "a painting of {}", "{} in the snow", "{} at night", "a close up of {}",
    "a drawing of {} on white paper", "{} in front of a window",
)  # fmt: skip


def _ordinary_captions() -> tuple[str, ...]:
    """CAPTIONS captions of everyday things, for models that know many."""
    pairs = itertools.islice(itertools.product(_FORMS, _THINGS), CAPTIONS)
    return tuple(form.format(article(thing)) for form, thing in pairs)


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TrainingDefaults(_Data):
    """Defaults of one way to train; what is None takes that of ``TrainingSettings``.

    steps: optimizer steps; rate: the learning rate; rank: of the changes of weights, 0 for whole
    weights; class_images, class_steps: for prior
    preservation, and the DDIM steps that draw one.
    """

    steps: Annotated[int, Field(ge=1, le=20_000)] | None = None
    rate: Annotated[float, Field(ge=1e-9, le=1)] | None = None
    rank: Annotated[int, Field(ge=0, le=1024)] | None = None
    class_images: Annotated[int, Field(ge=0, le=1000)] | None = None
    class_steps: Annotated[int, Field(ge=1, le=1000)] | None = None


class TrainingProfile(_Data):
    """Training defaults by way of training (``TrainingSettings.way``)."""

    custom_diffusion: TrainingDefaults = Field(default=TrainingDefaults(), alias="custom-diffusion")
    textual_inversion: TrainingDefaults = Field(
        default=TrainingDefaults(rate=5e-3, class_images=0), alias="textual-inversion"
    )
    dreambooth: TrainingDefaults = TrainingDefaults(rate=5e-6)
    lora: TrainingDefaults = TrainingDefaults(rate=1e-4, rank=8)

    def of(self, way: str) -> dict[str, Any]:
        """The defaults of ``way`` that are given, as arguments of ``TrainingSettings``."""
        found = getattr(self, way.replace("-", "_"), None)
        return found.model_dump(exclude_none=True) if isinstance(found, TrainingDefaults) else {}


class Profile(_Data):
    """What is particular to a base.

    architecture: a name for people, such as "Stable Diffusion 1.x"; side: the side in pixels of
    the square pictures it was made for, None for what its UNet's configuration says; guidance: the
    weight of classifier-free guidance that edits take; class_guidance: the same for class images;
    rare_word: the word whose embedding a new token starts from; class_caption: the prompt of a
    class image, with ``{noun}`` for "a cup"; captions: ordinary captions that a merge of concepts
    leaves alone; training: defaults by way; recipe: the one of ``schemas.recipes`` that trainings
    take by default; nouns: of classes that the base draws, for class images of several classes and
    to tell what references show; clip: a folder beside the profile that holds a CLIP
    which knows the base's pictures, "" for none; vocabulary: the words and looks that the base
    knows, for people to choose from, None if they are too many to list; its ``words`` are all that
    the captions of its training hold.
    """

    version: Literal[1] = 1
    architecture: str = ""
    side: Annotated[int, Field(ge=8, le=8192)] | None = None
    guidance: Annotated[float, Field(ge=0, le=50)] = 7.5
    class_guidance: Annotated[float, Field(ge=0, le=50)] = 6.0
    rare_word: Annotated[str, Field(min_length=1, max_length=100)] = "ktn"
    class_caption: Annotated[str, Field(pattern=r"^[^{}]*\{noun\}[^{}]*$", max_length=200)] = (
        "a photo of {noun}"
    )
    captions: tuple[Annotated[str, Field(min_length=1, max_length=1000)], ...] = Field(
        default_factory=_ordinary_captions, min_length=1, max_length=10_000
    )
    training: TrainingProfile = TrainingProfile()
    recipe: Annotated[str, Field(min_length=1, max_length=100)] = "paper"
    nouns: tuple[Annotated[str, Field(min_length=1, max_length=100)], ...] = Field(
        default=_THINGS, max_length=1000
    )
    clip: Annotated[str, Field(pattern=r"^([A-Za-z0-9_-][A-Za-z0-9._-]*)?$")] = ""
    vocabulary: dict[str, Any] | None = None

    @classmethod
    def read(cls, folder: Path) -> Profile:
        """The profile of the base in ``folder``: its file, else by its architecture.

        Raises:
            InputError: naming the file and the setting, for a profile that is not valid.
        """
        file = folder / FILE
        if not file.is_file():
            return by_architecture(_denoiser(folder))
        if file.stat().st_size > MAX_BYTES:
            raise InputError("base", f"{file} has more than {MAX_BYTES} bytes", "make it smaller")
        try:
            return cls.model_validate_json(file.read_bytes())
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise InputError(
                "base",
                f"{file} is not a valid profile: {where}: {first['msg']}",
                "correct the setting, or remove the file to have the defaults",
            ) from None
        except OSError as error:
            raise InputError("base", f"{file} cannot be read ({error})", "correct it") from None

    @property
    def words(self) -> tuple[str, ...]:
        """All words that the base knows, () if they are too many to list."""
        words = (self.vocabulary or {}).get("words", ())
        return tuple(map(str, words)) if isinstance(words, list | tuple) else ()

    def class_prompt(self, noun: str) -> str:
        """The prompt of a class image of ``noun``."""
        return self.class_caption.format(noun=article(noun))


class Sizes(_Data):
    """The sizes of pictures that a base works on, in pixels.

    side: of the square pictures that it was made for; multiple: sides are multiples of it; factor:
    pixels a side per latent cell.
    """

    side: int
    multiple: int
    factor: int

    @classmethod
    def read(cls, folder: Path, profile: Profile) -> Sizes:
        """From the configurations of denoiser and autoencoder in ``folder``. Raises InputError."""
        return cls.of(_denoiser(folder), _json(folder / "vae" / "config.json"), profile=profile)

    @classmethod
    def of(cls, denoiser: Mapping[str, Any], vae: Mapping[str, Any], *, profile: Profile) -> Sizes:
        """From the configurations themselves. Raises InputError."""
        try:
            factor = latent_factor(vae)
            cells = denoiser.get("sample_size")
            if isinstance(cells, list | tuple) and len(set(cells)) == 1:
                cells = cells[0]
            side = profile.side or int(cells) * factor  # type: ignore[arg-type]  # a TypeError is caught
            multiple = factor * _cell_multiple(denoiser)
        except (KeyError, TypeError, ValueError):
            raise InputError(
                "base",
                "its configurations do not say which sizes it was made for",
                f'write {{"side": 512}} into {FILE} in its folder, in pixels',
            ) from None
        if side < multiple or side % multiple:
            raise InputError(
                "base",
                f"the side of its pictures, {side}, is not a multiple of {multiple} pixels",
                f"correct side in {FILE}, or sample_size in the configuration of its denoiser",
            )
        return cls(side=side, multiple=multiple, factor=factor)


def latent_factor(vae: Mapping[str, Any]) -> int:
    """Pixels a side per latent cell, of an autoencoder's configuration."""
    widths = vae.get("block_out_channels") or vae["encoder_block_out_channels"]
    return int(2 ** (len(widths) - 1))


def _cell_multiple(denoiser: Mapping[str, Any]) -> int:
    """What sides of latents are multiples of: a UNet halves them, a transformer cuts patches."""
    if "block_out_channels" in denoiser:
        return int(2 ** (len(denoiser["block_out_channels"]) - 1))
    if "axes_dims_rope" in denoiser:  # FLUX, whose tokens are packed before they are patches
        return 2 * int(denoiser["patch_size"])
    return int(denoiser["patch_size"])


_TABLE: Final[Mapping[int, Profile]] = {
    768: Profile(architecture="Stable Diffusion 1.x"),
    1024: Profile(architecture="Stable Diffusion 2.x"),
}
"""By the width of the text states that the denoiser reads."""

_LOW_RANK: Final = {"custom-diffusion": {"rank": 16, "rate": 1e-4}}
_SDXL: Final = Profile(
    architecture="Stable Diffusion XL",
    guidance=5.0,
    class_guidance=5.0,
    training=TrainingProfile.model_validate(_LOW_RANK),
)
_SD3: Final = Profile(
    architecture="Stable Diffusion 3.x",
    guidance=4.5,
    class_guidance=4.5,
    training=TrainingProfile.model_validate(_LOW_RANK),
)
_FLUX_DEV: Final = Profile(
    architecture="FLUX.1 dev",
    side=1024,
    guidance=3.5,
    class_guidance=3.5,
    training=TrainingProfile.model_validate(_LOW_RANK),
)
_FLUX_SCHNELL: Final = _FLUX_DEV.model_copy(
    update={"architecture": "FLUX.1 schnell", "guidance": 1.0, "class_guidance": 1.0}
)


def by_architecture(denoiser: Mapping[str, Any]) -> Profile:
    """The profile that fits the configuration of a UNet or transformer."""
    if "axes_dims_rope" in denoiser:
        return _FLUX_DEV if denoiser.get("guidance_embeds") else _FLUX_SCHNELL
    if "caption_projection_dim" in denoiser and "pos_embed_max_size" in denoiser:
        return _SD3
    if denoiser.get("addition_embed_type") == "text_time":
        return _SDXL
    width = denoiser.get("cross_attention_dim")
    return _TABLE.get(width, Profile()) if isinstance(width, int) else Profile()


def _denoiser(folder: Path) -> dict[str, Any]:
    """The configuration of the denoiser in a base's folder, {} if there is none."""
    return _json(folder / "unet" / "config.json") or _json(folder / "transformer" / "config.json")


def _json(path: Path) -> dict[str, Any]:
    """What ``path`` holds, {} if it cannot be read: whoever loads the base says so."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
