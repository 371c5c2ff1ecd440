"""What a job shows: pictures and measures of an edit, and previews of what is under way.

Previews, an edit half drawn or a concept half learned, are decoded as methods of their own, so that
showing one keeps nobody waiting.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Final, TypeVar

import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor

from customedit.concepts.training import Preview
from customedit.diffusion.base import Base
from customedit.diffusion.engine import Ticket
from customedit.diffusion.method import Denoise, Method, Progress, decode
from customedit.diffusion.text import Customization
from customedit.editing.auto_change import check_auto, chosen
from customedit.editing.edit import EditResult
from customedit.editing.sdedit import portrait
from customedit.editing.sweep import MeasuredEdit, measure_edit
from customedit.metrics.similarity import at_size, outside, rounded
from worker.attempt import Attempt
from worker.runtime import EDITS, TRAININGS, Runtime

PNG = "image/png"

T = TypeVar("T")

SHARES: Final = (0.35, 0.7)
"""Of an edit's steps, where it is shown; edits of fewer than SHORTEST steps are not."""

SHORTEST: Final = 10


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


def chosen_change(
    runtime: Runtime, results: Sequence[EditResult], references: Sequence[Image.Image]
) -> EditResult:
    """The edit that ``change: "auto"`` chooses; the curve is in its plan."""
    judge = check_auto(runtime.judge, references)
    with runtime.judging, torch.no_grad():
        return chosen(judge, results, references)


def left_alone(result: EditResult) -> dict[str, float | None]:
    """PSNR (dB) and SSIM outside the region, which need no judge; None for equal pixels."""
    return rounded(outside(result.image, result.source, result.region))


class Previewer:
    """Shows the pictures that ``tickets`` draw; ``upload`` is for the job's own thread."""

    def __init__(self, attempt: Attempt, steps: int = 0) -> None:
        self._work, self._steps = attempt, steps
        self._tickets: list[Ticket[Image.Image]] = []
        self._count = 0

    def upload(self) -> None:
        """Upload what has been drawn since the last call; one that failed is left out."""
        while self._tickets and self._tickets[0].done:
            ticket = self._tickets.pop(0)
            try:
                picture = ticket.result()
            except Exception:
                continue
            self._count += 1
            key = self._work.key(f"preview-{self._count}.jpg")
            if self._work.try_put(key, jpeg(picture), "image/jpeg"):
                self._work.show(key)

    def draw(self, method: Method[Image.Image], priority: int) -> None:
        """Have ``method`` drawn and shown; safe to call from the engine's thread."""
        self._tickets.append(self._work.submit(method, priority, report=False))

    def seeing(self, editing: Method[T], base: Base) -> Method[T]:
        """``editing``, looked at while it goes by: what its target row will be, as far as known."""
        due = {max(1, round(s * self._steps)) for s in SHARES} if self._steps >= SHORTEST else set()
        answer: Any = None
        last: tuple[Denoise, torch.Tensor] | None = None
        try:
            while True:
                request = editing.send(answer)
                if isinstance(request, Progress) and request.step in due and last is not None:
                    self.draw(_glimpse(base, *last), EDITS)
                answer = yield request
                if isinstance(request, Denoise):
                    last = request, answer.noise
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            editing.close()

    def training(self, base: Base, prompt: str, steps: int) -> Preview:
        """What ``customize`` takes for ``preview``: has the concept drawn as it is now."""

        def preview(trained: Customization) -> None:
            self.draw(portrait(base, trained, prompt, steps), TRAININGS)

        return preview


def _glimpse(base: Base, request: Denoise, noise: torch.Tensor) -> Method[Image.Image]:
    """The picture that the target's row is on the way to."""
    at = request.shown % request.rows
    row = slice(at, at + 1)
    clean = base.schedule.clean(request.latents[row].to(base.device), noise[row], request.time)
    return (yield from decode(base, clean))
