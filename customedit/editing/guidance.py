"""Classifier-free guidance, in a limited interval of the steps if wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from customedit.editing.method_settings import step_of

if TYPE_CHECKING:
    from customedit.diffusion.base import Base
    from customedit.diffusion.text import TextContext


@dataclass(frozen=True)
class Guidance:
    """Guidance by ``scale`` from the share ``start`` of the steps to the share ``end``.

    Outside the interval the prediction is the conditional one, so that no unconditional row is
    asked for (Kynkäänniemi et al., arXiv 2404.07724, whose interval is of noise levels).
    """

    scale: float = 7.5
    start: float = 0.0
    end: float = 1.0

    @classmethod
    def of(cls, value: Guidance | float) -> Guidance:
        """``value``, a number meaning guidance at every step."""
        return value if isinstance(value, Guidance) else cls(value)

    def acts(self, step: int, steps: int) -> bool:
        """Whether downward step ``step`` (from 0) of ``steps`` is guided."""
        return step_of(self.start, steps) <= step < step_of(self.end, steps)

    def rows(
        self, base: Base, target: TextContext, empty: TextContext, step: int, steps: int
    ) -> tuple[TextContext, ...]:
        """What the rows of a step read, of whose predictions ``combine`` makes one.

        As ``Family.guided``; outside the interval the conditional row alone.
        """
        if not self.acts(step, steps):
            return (target,)
        return base.family.guided(target, empty, self.scale)
