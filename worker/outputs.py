"""Pictures and measures of an edit, as they go into the bucket and the record."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor

from customedit.editing.edit import EditResult
from customedit.metrics.measure import Similarities, at_size, measure
from customedit.metrics.similarity import psnr, ssim
from worker.runtime import Runtime

PNG = "image/png"


def png(image: Image.Image) -> bytes:
    """``image`` as a PNG file."""
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def jpeg(image: Image.Image) -> bytes:
    """``image`` as a small JPEG file, for previews."""
    stream = io.BytesIO()
    image.convert("RGB").save(stream, "JPEG", quality=85)
    return stream.getvalue()


def mask_picture(mask: Tensor, image: Image.Image) -> Image.Image:
    """A mask [h, w] in [0, 1] as a grey picture at the size of ``image``."""
    return Image.fromarray((at_size(mask, image) * 255 + 0.5).astype("uint8"))


def maps_file(results: Sequence[EditResult]) -> bytes | None:
    """The attention maps of all pictures as safetensors: "0", ... [2, rows, columns, tokens]."""
    held = {str(k): r.maps.cpu().contiguous() for k, r in enumerate(results) if r.maps is not None}
    return save(held) if held else None


def measured(
    runtime: Runtime,
    result: EditResult,
    prompt: str,
    references: Sequence[Image.Image],
    mask: Tensor | None,
) -> Similarities | None:
    """The similarities of a picture; None for a worker that has no judge."""
    if runtime.judge is None:
        return None
    with runtime.judging, torch.no_grad():
        return measure(runtime.judge, result, prompt, references, mask)


def left_alone(result: EditResult, mask: Tensor | None) -> dict[str, float | None]:
    """PSNR (dB) and SSIM outside the mask, which need no judge."""
    where = mask if mask is not None else result.mask
    if where is None:
        return {}
    outside = 1 - at_size(where, result.working)
    if not (outside > 0).any():
        return {}
    noise = psnr(result.working, result.source, outside)
    return {
        "outside_psnr": round(noise, 4) if math.isfinite(noise) else None,
        "outside_ssim": round(ssim(result.working, result.source, outside), 4),
    }
