"""Pictures of what is under way: an edit half drawn, a concept half learned.

Both are decoded as methods of their own, so that showing one keeps nobody waiting.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

import torch
from PIL import Image

from customedit.concepts.training import Preview, TrainableConcept
from customedit.diffusion.base import Base
from customedit.diffusion.engine import Denoise, Method, Progress, Ticket, Turn
from customedit.editing.text_to_image import portrait
from worker import outputs
from worker.attempt import Attempt
from worker.runtime import EDITS, TRAININGS

T = TypeVar("T")

SHARES: Final = (0.35, 0.7)
"""Of an edit's steps, where it is shown; edits of fewer than SHORTEST steps are not."""

SHORTEST: Final = 10


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
            if self._work.try_put(key, outputs.jpeg(picture), "image/jpeg"):
                self._work.show(key)

    def draw(self, method: Method[Image.Image], priority: int) -> None:
        """Have ``method`` drawn and shown; safe to call from the engine's thread."""
        self._tickets.append(self._work.submit(method, priority, heard=False))

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

        def preview(trained: TrainableConcept) -> None:
            self.draw(portrait(base, trained.snapshot(), prompt, steps), TRAININGS)

        return preview


def _glimpse(base: Base, request: Denoise, noise: torch.Tensor) -> Method[Image.Image]:
    """The picture that the target's row is on the way to."""
    row = slice(2, 3) if request.rows > 2 else slice(1, 2)  # P2P: source, none, target; SDEdit: two
    clean = base.schedule.clean(request.latents[row].to(base.device), noise[row], request.time)
    yield Turn()
    return base.decode(clean)[0]
