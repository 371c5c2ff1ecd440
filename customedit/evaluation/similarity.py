"""The measures of an edit: near its source, its references, its text (Custom-Edit's three axes).

Cosines of CLIP features, pixels' PSNR and SSIM, and DINO's features where a model is given. What is
compared is always pairs of the same kind: cosines of one model are not those of another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
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

GREY = (128, 128, 128)
"""What stands around an object that is cut out."""

MARGIN = 0.1
"""Around a cut-out object, as a share of its box's longer side."""

BATCH = 32
"""Pictures or texts that go through a model at once."""

K1, K2, SIGMA = 0.01, 0.03, 1.5
"""Constants of SSIM, and the width in pixels of its window, from Wang et al. 2004."""

Mask = NDArray[np.floating[Any]] | NDArray[np.bool_]


class Similarity:
    """Cosines between pictures, and between pictures and texts, of one CLIP.

    model: a folder with a CLIPModel, its tokenizer and its image processor, or a name on the hub;
    the bundled one is ``customedit.mini.path() / "clip"``. Runs in float32 without gradients.

    Raises:
        InputError: if there is no such folder, or no CLIP in it.
    """

    def __init__(self, model: str | Path, *, device: str | torch.device = "cpu") -> None:
        _check_kind(model, "clip")
        try:
            self._model = CLIPModel.from_pretrained(model, dtype=torch.float32).eval().to(device)
            self._tokenizer = CLIPTokenizer.from_pretrained(model)
            self._eye = CLIPImageProcessor.from_pretrained(model)
        except (OSError, ValueError) as error:
            raise _unusable(model, error) from error
        self.device = torch.device(device)

    @torch.no_grad()
    def images(self, images: Sequence[Image.Image]) -> Tensor:
        """Unit vectors of pictures of any sizes, [n, d] float32 on the CPU."""
        parts = []
        for start in range(0, len(images), BATCH):
            batch = [x.convert("RGB") for x in images[start : start + BATCH]]
            pixels = self._eye(batch, return_tensors="pt").pixel_values.to(self.device)
            pooled = self._model.vision_model(pixel_values=pixels).pooler_output
            parts.append(_unit(self._model.visual_projection(pooled)))
        return _joined(parts, self._model.config.projection_dim)

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
        return _joined(parts, self._model.config.projection_dim)

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

    def text(self, edit: Image.Image, prompt: str) -> float:
        """Text similarity: the cosine of a picture and a prompt without V*, in [-1, 1]."""
        return _cosine(self.images([edit])[0], self.texts([prompt])[0])


class Dino:
    """Cosines of the CLS token of a self-supervised ViT (DINO, DINOv2), finer on looks than CLIP.

    model: a folder or a name on the hub that transformers' AutoModel and AutoImageProcessor load.

    Raises:
        InputError: if there is no such folder, or no such model in it.
    """

    def __init__(self, model: str | Path, *, device: str | torch.device = "cpu") -> None:
        _check_kind(model, "vit", "dinov2", "dinov2_with_registers")
        try:
            self._model = AutoModel.from_pretrained(model, dtype=torch.float32).eval().to(device)
            self._eye = AutoImageProcessor.from_pretrained(model)
        except (OSError, ValueError) as error:
            raise _unusable(model, error) from error
        self.device = torch.device(device)

    @torch.no_grad()
    def images(self, images: Sequence[Image.Image]) -> Tensor:
        """Unit vectors of pictures of any sizes, [n, d] float32 on the CPU."""
        parts = []
        for start in range(0, len(images), BATCH):
            batch = [x.convert("RGB") for x in images[start : start + BATCH]]
            pixels = self._eye(batch, return_tensors="pt").pixel_values.to(self.device)
            states = self._model(pixel_values=pixels).last_hidden_state
            parts.append(_unit(states[:, 0]))
        return _joined(parts, self._model.config.hidden_size)

    def similarity(self, a: Image.Image, b: Image.Image) -> float:
        """The cosine of two pictures, in [-1, 1]."""
        return _cosine(*self.images([a, b]))

    def reference(
        self, edit: Image.Image, references: Sequence[Image.Image], mask: Mask | None = None
    ) -> float:
        """As ``Similarity.reference``."""
        own, *others = self.images([edit if mask is None else cut_out(edit, mask), *references])
        return sum(_cosine(own, x) for x in others) / len(others)


def _check_kind(model: str | Path, *kinds: str) -> None:
    """Refuse a folder that is not there or that holds another kind of model than ``kinds``.

    transformers would load it all the same, and leave what it misses at random.
    """
    if isinstance(model, Path) and not model.is_dir():
        raise InputError("model", f"{model} is no folder", "give a folder with the model's files")
    try:
        found = AutoConfig.from_pretrained(model).model_type
    except (OSError, ValueError) as error:
        raise _unusable(model, error) from error
    if found not in kinds:
        raise InputError(
            "model", f"{model} is of type {found!r}", f"give one of type {' or '.join(kinds)}"
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


def cut_out(image: Image.Image, mask: Mask, *, margin: float = MARGIN) -> Image.Image:
    """The object of ``image`` alone: on neutral grey, cropped to the mask's box and a margin.

    mask: [h, w] in [0, 1] at the picture's size; pixels above 0.5 make the box; margin: a share of
    the box's longer side, cut at the picture's edge.

    Raises:
        InputError: for a mask of another size or one that is nowhere above 0.5.
    """
    weight = _weights(mask, (image.height, image.width))
    ys, xs = np.nonzero(weight > 0.5)
    if not len(ys):
        raise InputError("mask", "is nowhere above 0.5", "mark the object's pixels with 1")
    alpha = Image.fromarray((weight * 255 + 0.5).astype(np.uint8))
    alone = Image.composite(image.convert("RGB"), Image.new("RGB", image.size, GREY), alpha)
    left, top, right, bottom = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
    edge = round(margin * max(right - left, bottom - top))
    return alone.crop(
        (
            int(max(0, left - edge)),
            int(max(0, top - edge)),
            int(min(image.width, right + edge)),
            int(min(image.height, bottom + edge)),
        )
    )


def psnr(a: Image.Image, b: Image.Image, mask: Mask | None = None) -> float:
    """Peak signal-to-noise ratio of two RGB pictures of equal size in dB; infinite if equal.

    mask: [h, w] in [0, 1], how much each pixel counts; all alike without it.

    Raises:
        InputError: for pictures of different size, or a mask of another size or of zeros.
    """
    first, second = _pair(a, b)
    error = _averaged(((first - second) ** 2).mean(2), mask)
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def ssim(a: Image.Image, b: Image.Image, mask: Mask | None = None) -> float:
    """Structural similarity of two RGB pictures of equal size, in [-1, 1], 1 if equal.

    Wang et al. 2004, eq. 13, per channel with their Gaussian window (11 x 11, sigma 1.5),
    averaged over channels and over pixels. mask: [h, w] in [0, 1], how much each pixel counts;
    without it all pixels whose window lies inside the picture.

    Raises:
        InputError: for pictures of different size or with a side below 11 pixels, or a mask of
            another size or of zeros.
    """
    first, second = _pair(a, b)
    reach = 5  # of the 11 x 11 window
    if min(first.shape[:2]) <= 2 * reach:
        raise InputError("images", f"are {a.width} x {a.height}", "give 11 x 11 pixels or more")
    scores = np.mean([_ssim_map(first[..., c], second[..., c]) for c in range(3)], axis=0)
    if mask is None:
        return float(scores[reach:-reach, reach:-reach].mean())
    return _averaged(scores, mask)


def _ssim_map(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Eq. 13 at each pixel of one channel in [0, 255]."""

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return gaussian_filter(values, SIGMA, truncate=3.5)  # radius 5

    mu_x, mu_y = mean(x), mean(y)
    var_x, var_y = mean(x * x) - mu_x**2, mean(y * y) - mu_y**2
    covariance = mean(x * y) - mu_x * mu_y
    c1, c2 = (K1 * 255) ** 2, (K2 * 255) ** 2
    return ((2 * mu_x * mu_y + c1) * (2 * covariance + c2)) / (
        (mu_x**2 + mu_y**2 + c1) * (var_x + var_y + c2)
    )


def _pair(a: Image.Image, b: Image.Image) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two pictures as [h, w, 3] in [0, 255]."""
    if a.size != b.size:
        raise InputError(
            "images", f"are {a.width} x {a.height} and {b.width} x {b.height}", "resize one"
        )
    return np.asarray(a.convert("RGB"), np.float64), np.asarray(b.convert("RGB"), np.float64)


def _averaged(values: NDArray[np.float64], mask: Mask | None) -> float:
    """The mean of ``values`` [h, w], each weighed by the mask."""
    if mask is None:
        return float(values.mean())
    weight = _weights(mask, values.shape)
    if not weight.any():
        raise InputError("mask", "is all zeros", "mark the pixels to count with 1")
    return float((values * weight).sum() / weight.sum())


def _weights(mask: Mask, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The mask as numbers, checked to be of ``shape`` and within [0, 1]."""
    weight = np.asarray(mask, np.float64)
    if weight.shape != shape:
        raise InputError(
            "mask", f"has shape {weight.shape}, the picture {shape}", "give it at that size"
        )
    if not ((weight >= 0) & (weight <= 1)).all():
        raise InputError("mask", "has numbers outside 0 to 1", "scale it")
    return weight
