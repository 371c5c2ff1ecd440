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
from customedit.editing.sweep import MeasuredEdit, measure_edit
from customedit.metrics.measure import at_size, outside
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
    maps = {
        str(k): result.drawing.maps.cpu().contiguous()
        for k, result in enumerate(results)
        if result.drawing.maps is not None
    }
    return save(maps) if maps else None


def measured(
    runtime: Runtime, result: EditResult, references: Sequence[Image.Image]
) -> MeasuredEdit | None:
    """The edit with its similarities; None for a worker that has no judge."""
    if runtime.judge is None:
        return None
    with runtime.judging, torch.no_grad():
        return measure_edit(runtime.judge, result, references)


def left_alone(result: EditResult) -> dict[str, float | None]:
    """PSNR (dB) and SSIM outside the region, which need no judge; None for equal pixels."""
    values = outside(result.image, result.source, result.region)
    return {
        name: round(value, 4) if value is not None and math.isfinite(value) else None
        for name, value in values.items()
    }
