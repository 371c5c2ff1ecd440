"""The measures of an edit: near its source, its references, its text, and what it left alone.

Cosines of CLIP features (Custom-Edit's three axes), and of DINO's where a model is given; PSNR and
SSIM are in ``pixels``. What is compared is always pairs of the same kind: cosines of one model are
not those of another.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTokenizer,
)

from customedit.errors import InputError
from customedit.metrics.lpips import Lpips
from customedit.metrics.pixels import Mask, cut_out, psnr, ssim
from customedit.prompt_syntax import CONCEPT

__all__ = [
    "Dino",
    "Similarities",
    "Similarity",
    "at_size",
    "bundled",
    "comparable",
    "cut_out",
    "measure",
    "outside",
    "plain",
    "psnr",
    "rounded",
    "ssim",
    "without_clip",
]

BATCH = 32
"""Pictures or texts that go through a model at once."""

MOST_PIXELS: Final = 2_000_000
"""Larger pictures are compared at this size: a PSNR of 40 megapixels takes gigabytes."""


class Eye:
    """Cosines of pictures by the vectors that a model has of them, in float32 without gradients."""

    def __init__(self, processor: Any, width: int, device: str | torch.device) -> None:
        self._eye, self._width, self.device = processor, width, torch.device(device)

    def _seen(self, pixels: Tensor) -> Tensor:
        """The model's vectors [n, width] of ``pixels`` as its processor gives them."""
        raise NotImplementedError

    @torch.no_grad()
    def images(self, images: Sequence[Image.Image]) -> Tensor:
        """Unit vectors of pictures of any sizes, [n, d] float32 on the CPU."""
        parts = []
        for start in range(0, len(images), BATCH):
            batch = [x.convert("RGB") for x in images[start : start + BATCH]]
            pixels = self._eye(batch, return_tensors="pt").pixel_values.to(self.device)
            parts.append(_unit(self._seen(pixels)))
        return _joined(parts, self._width)

    def source(self, edit: Image.Image, source: Image.Image) -> float:
        """Source similarity: the cosine of two pictures, in [-1, 1]."""
        return _cosine(*self.images([edit, source]))

    def reference(
        self, edit: Image.Image, references: Sequence[Image.Image], *, mask: Mask | None = None
    ) -> float:
        """Reference similarity: the mean of the cosines with the references, in [-1, 1].

        mask: where the edit's object is, as for ``cut_out``; the references are taken whole.

        Raises:
            InputError: if there are no references, or for a mask that cannot be used.
        """
        if not references:
            raise InputError("references", "are none", "give one or more pictures")
        seen = edit if mask is None else cut_out(edit, mask)
        own, *others = self.images([seen, *references])
        return sum(_cosine(own, x) for x in others) / len(others)


class Similarity(Eye):
    """Cosines between pictures, and between pictures and texts, of one CLIP.

    model: a folder with a CLIPModel, its tokenizer and its image processor, or a name on the hub;
    the bundled one is ``customedit.mini.path() / "clip"``.

    Raises:
        InputError: if there is no such folder, or no CLIP in it.
    """

    def __init__(self, model: str | Path, *, device: str | torch.device = "cpu") -> None:
        _check_kind(model, "clip")
        try:
            self._model = CLIPModel.from_pretrained(model, dtype=torch.float32).eval().to(device)
            self._tokenizer = CLIPTokenizer.from_pretrained(model)
            processor = CLIPImageProcessor.from_pretrained(model)
        except (OSError, ValueError) as error:
            raise _unusable(model, error) from error
        super().__init__(processor, self._model.config.projection_dim, device)

    def _seen(self, pixels: Tensor) -> Tensor:
        pooled = self._model.vision_model(pixel_values=pixels).pooler_output
        return self._model.visual_projection(pooled)

    @torch.no_grad()
    def patches(self, images: Sequence[Image.Image]) -> Tensor:
        """Unit vectors of the patches of pictures, [n, side, side, d] float32 on the CPU.

        Each picture is squeezed to a square, so that its patches cover all of it. The vectors are
        those of CLIP's joint space: the tower's last states, normed and projected like the pooled
        one.
        """
        config = self._model.config.vision_config
        side = config.image_size // config.patch_size
        size = (config.image_size, config.image_size)
        tower, parts = self._model.vision_model, []
        for start in range(0, len(images), BATCH):
            batch = [x.convert("RGB").resize(size) for x in images[start : start + BATCH]]
            pixels = self._eye(batch, return_tensors="pt").pixel_values.to(self.device)
            states = tower(pixel_values=pixels).last_hidden_state[:, 1:]
            vectors = self._model.visual_projection(tower.post_layernorm(states))
            parts.append(_unit(vectors).unflatten(1, (side, side)))
        return torch.cat(parts)

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors of texts, [n, d] float32 on the CPU; too long ones lose their end."""
        parts = []
        limit = self._model.config.text_config.max_position_embeddings
        for start in range(0, len(texts), BATCH):
            tokens = self._tokenizer(
                list(texts[start : start + BATCH]),
                padding=True,
                truncation=True,
                max_length=limit,
                return_tensors="pt",
            ).to(self.device)
            pooled = self._model.text_model(
                input_ids=tokens.input_ids, attention_mask=tokens.attention_mask
            ).pooler_output
            parts.append(_unit(self._model.text_projection(pooled)))
        return _joined(parts, self._width)

    def text(self, edit: Image.Image, prompt: str) -> float:
        """Text similarity: the cosine of a picture and a prompt without V*, in [-1, 1]."""
        return _cosine(self.images([edit])[0], self.texts([prompt])[0])

    @cached_property
    def fingerprint(self) -> str:
        """Tells this CLIP from others: a digest of its weights."""
        digest = hashlib.sha256()
        for name, weight in self._model.state_dict().items():
            digest.update(f"{name}{tuple(weight.shape)}".encode())
            digest.update(weight.float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


class Dino(Eye):
    """Cosines of the CLS token of a self-supervised ViT (DINO, DINOv2), finer on looks than CLIP.

    model: a folder or a name on the hub that transformers' AutoModel and AutoImageProcessor load.

    Raises:
        InputError: if there is no such folder, or no such model in it.
    """

    def __init__(self, model: str | Path, *, device: str | torch.device = "cpu") -> None:
        _check_kind(model, "vit", "dinov2", "dinov2_with_registers")
        try:
            self._model = AutoModel.from_pretrained(model, dtype=torch.float32).eval().to(device)
            processor = AutoImageProcessor.from_pretrained(model)
        except (OSError, ValueError) as error:
            raise _unusable(model, error) from error
        super().__init__(processor, self._model.config.hidden_size, device)

    def _seen(self, pixels: Tensor) -> Tensor:
        return self._model(pixel_values=pixels).last_hidden_state[:, 0]

    def similarity(self, a: Image.Image, b: Image.Image) -> float:
        """The cosine of two pictures, in [-1, 1]."""
        return self.source(a, b)


def _check_kind(model: str | Path, *kinds: str) -> None:
    """Refuse a folder that is not there or that holds another kind of model than ``kinds``.

    transformers would load it all the same, and leave what it misses at random.
    """
    if isinstance(model, Path) and not model.is_dir():
        raise InputError("model", f"{model} is no folder", "give a folder with the model's files")
    try:
        model_type = AutoConfig.from_pretrained(model).model_type
    except (OSError, ValueError) as error:
        raise _unusable(model, error) from error
    if model_type not in kinds:
        raise InputError(
            "model", f"{model} is of type {model_type!r}", f"give one of type {' or '.join(kinds)}"
        )


def _unusable(model: str | Path, error: Exception) -> InputError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return InputError(
        "model",
        f"{model} cannot be loaded ({lines[0]})",
        "give a folder with the model, its preprocessor and, for CLIP, its tokenizer",
    )


def _unit(vectors: Tensor) -> Tensor:
    return F.normalize(vectors.float(), dim=-1).cpu()


def _joined(parts: Sequence[Tensor], width: int) -> Tensor:
    return torch.cat(list(parts)) if parts else torch.zeros(0, width)


def _cosine(a: Tensor, b: Tensor) -> float:
    return min(1.0, max(-1.0, float(a @ b)))  # rounding may step over the edge


@dataclass(frozen=True)
class Similarities:
    """Of one edit.

    source, text: cosines of CLIP features in [-1, 1]; reference: the same of the edited region with
    the references, None without any; outside_psnr (dB), outside_ssim: outside the edit's region,
    against the source itself, None without a region or an outside;
    dino: as ``reference`` by DINO's features; lpips: distance of edit and source, 0 if equal; None
    where their weights were not given.
    """

    source: float
    text: float
    reference: float | None = None
    outside_psnr: float | None = None
    outside_ssim: float | None = None
    dino: float | None = None
    lpips: float | None = None

    def as_dict(self) -> dict[str, float | None]:
        """As plain data, rounded to four places; infinite PSNR (equal pixels) as None."""
        return rounded(asdict(self))


def rounded(values: Mapping[str, float | None]) -> dict[str, float | None]:
    """``values`` to four places; what is not finite (the PSNR of equal pixels) as None."""
    return {
        name: round(value, 4) if value is not None and math.isfinite(value) else None
        for name, value in values.items()
    }


def plain(prompt: str) -> str:
    """``prompt`` without concept tokens, which a CLIP cannot read."""
    return " ".join(CONCEPT.sub(" ", prompt).split())


def at_size(mask: Tensor, image: Image.Image) -> NDArray[np.float64]:
    """A mask [h, w] at the size of ``image``, [height, width] in [0, 1]; nearest neighbours."""
    grown = F.interpolate(mask[None, None].float().cpu(), size=(image.height, image.width))
    return grown[0, 0].double().clamp(0, 1).numpy()


def measure(
    judge: Similarity,
    edited: Image.Image,
    source: Image.Image,
    prompt: str,
    references: Sequence[Image.Image] = (),
    region: Tensor | None = None,
    *,
    dino: Dino | None = None,
    lpips: Lpips | None = None,
) -> Similarities:
    """The similarities of ``edited`` with the picture it was made of, of equal size.

    prompt: the target prompt, which may name concepts; region: where it was to change, [h, w] in
    [0, 1], None for everywhere.
    """
    edited, source = comparable(edited), comparable(source)
    where = None if region is None else at_size(region, edited)
    seen = _seen(where)
    return Similarities(
        source=judge.source(edited, source),
        text=judge.text(edited, plain(prompt)),
        reference=judge.reference(edited, references, mask=seen) if references else None,
        **without_clip(edited, source, references, region, dino=dino, lpips=lpips),
    )


def without_clip(
    edited: Image.Image,
    source: Image.Image,
    references: Sequence[Image.Image] = (),
    region: Tensor | None = None,
    *,
    dino: Dino | None = None,
    lpips: Lpips | None = None,
) -> dict[str, float | None]:
    """The fields of ``Similarities`` that need no CLIP; arguments as for ``measure``."""
    edited, source = comparable(edited), comparable(source)
    where = None if region is None else at_size(region, edited)
    return {
        **_outside(edited, source, where),
        "dino": dino.reference(edited, references, mask=_seen(where))
        if dino and references
        else None,
        "lpips": None if lpips is None else lpips.distance(edited, source),
    }


def outside(
    edited: Image.Image, source: Image.Image, region: Tensor | None
) -> dict[str, float | None]:
    """``outside_psnr`` (dB) and ``outside_ssim`` of ``Similarities``, which need no judge."""
    edited, source = comparable(edited), comparable(source)
    return _outside(edited, source, None if region is None else at_size(region, edited))


def _outside(
    edited: Image.Image, source: Image.Image, where: NDArray[np.float64] | None
) -> dict[str, float | None]:
    if where is None or not (where < 1).any():
        return {"outside_psnr": None, "outside_ssim": None}
    return {
        "outside_psnr": psnr(edited, source, 1 - where),
        "outside_ssim": ssim(edited, source, 1 - where),
    }


def _seen(where: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
    """The region that references are compared with, None for the whole picture."""
    return where if where is not None and (where > 0.5).any() else None


def comparable(picture: Image.Image) -> Image.Image:
    """``picture``, of more than MOST_PIXELS averaged down to as many."""
    shrink = math.sqrt(MOST_PIXELS / (picture.width * picture.height))
    if shrink >= 1:
        return picture
    size = max(1, round(picture.width * shrink)), max(1, round(picture.height * shrink))
    return picture.resize(size, Image.Resampling.BOX)


def bundled() -> Similarity:
    """The bundled base's own CLIP."""
    from customedit import mini

    return Similarity(mini.path() / "clip")
