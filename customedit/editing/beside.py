"""A target drawn beside its source: what MasaCtrl, Plug-and-Play and DirectEdit have in common.

With direct inversion (arXiv 2310.01506) the source lies on its stored trajectory at every step, so
it needs no unconditional row. The rows of a step are source, unconditional and target; source and
target alone at a step without guidance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from customedit.diffusion.attention_control import AttentionControl
from customedit.diffusion.base import Base
from customedit.diffusion.guided import combine
from customedit.diffusion.kept_features import Part
from customedit.diffusion.method import Denoise, Method, Progress, ask
from customedit.diffusion.schedule import Time
from customedit.diffusion.text import TextContext
from customedit.editing.guidance import Guidance
from customedit.editing.inversion import Inversion
from customedit.editing.method_settings import RegionSettings, first_inverted_step
from customedit.editing.region import Region


@dataclass(frozen=True)
class Drawn:
    """What an edit came to.

    latents: of the edit, [1, C, h, w]; source: of the source row, the same shape; mask: [h, w] in
    [0, 1] that the edit was kept to, None without a blend; maps: cross maps of the source's and the
    target's row summed over the steps, [2, rows, columns, tokens].
    """

    latents: Tensor
    source: Tensor
    mask: Tensor | None
    maps: Tensor | None


@dataclass(frozen=True)
class Step:
    """One downward step.

    number: from 0; time, to: of the schedule; texts: what the rows on the target's latents read,
    the conditional one last; source, target: places of these rows; drawn: those on the target's
    latents.
    """

    number: int
    time: Time
    to: Time
    texts: tuple[TextContext, ...]

    source: ClassVar[int] = 0

    @property
    def target(self) -> int:
        """The target's conditional row, the last."""
        return len(self.texts)

    @property
    def drawn(self) -> range:
        """The rows that see the target's latents: unconditional, if there is one, and target."""
        return range(1, self.target + 1)


class Watched:
    """The region of an edit and its maps, as they come in step by step.

    record: whether the maps are handed back. source, target: whether these rows are recorded: a
    region that is read from the source's words alone needs no map of the target.
    """

    def __init__(self, region: Region, steps: int, record: bool) -> None:
        self.region, self.steps, self.record = region, steps, record
        self.source = record or bool(region.columns)
        self.target = record or len(region.columns) > 1
        self._total: Tensor | None = None

    @property
    def parts(self) -> set[Part]:
        """What is read of the source's row itself."""
        return {"maps"} if self.source else set()

    def see(self, maps: Tensor | None, kept: Tensor | None = None) -> None:
        """Add the maps of one step, [recorded rows, rows, columns, tokens]: source, target.

        kept: the source's, where its row is not among those of ``maps``.
        """
        if kept is not None and self.source:
            maps = kept if maps is None else torch.cat([kept, maps])
        if maps is None:
            return
        self.region.see(maps)
        if self.record:
            self._total = maps if self._total is None else self._total + maps

    def result(self, latents: Tensor, source: Tensor) -> Drawn:
        """The end of the edit."""
        current = self.region.current
        return Drawn(latents, source, None if current is None else current[0, 0], self._total)


class Beside:
    """The source's part in an edit, and what a step asks for.

    settings: with ``start``, the share of the steps before which the target is the source itself.
    Other arguments as for ``prompt_to_prompt``.

    Raises InputError as ``Region`` does.
    """

    def __init__(
        self, base: Base, inversion: Inversion, source: TextContext, target: TextContext,
        settings: RegionSettings, *, guidance: Guidance | float, mask: Tensor | None,
        record: bool, empty: TextContext | None,
    ) -> None:  # fmt: skip
        if source.tokens is None or target.tokens is None:
            raise ValueError("the contexts are of prompts")
        self.base, self.inversion = base, inversion.to(base.device)
        self.source, self.target = source, target
        self.empty = base.unconditional(empty or base.text(""), target)
        self.guidance = Guidance.of(guidance)
        size = (int(inversion.noise.shape[2]), int(inversion.noise.shape[3]))
        region = Region(settings, source, target, size, mask, base.device)
        self.schedule = base.schedule.sized(*size)
        self.watched = Watched(region, inversion.steps, record)

    @property
    def steps(self) -> int:
        """How many steps there are."""
        return self.inversion.steps

    def begin(self, start: float) -> Iterator[Step]:
        """The steps from the share ``start`` on; before it the target is the source itself."""
        first = first_inverted_step(start, self.steps)
        for k, (time, to) in enumerate(self.schedule.downwards(self.steps)):
            if k >= first:
                texts = self.guidance.rows(self.base, self.target, self.empty, k, self.steps)
                yield Step(k, time, to, texts)

    def latents(self, start: float) -> Tensor:
        """The source's latents at the step that ``begin`` begins with, [1, C, h, w]."""
        return self.inversion.at(first_inverted_step(start, self.steps))

    def control(self, step: Step) -> AttentionControl:
        """Control that changes nothing, to be filled in; source and target are recorded."""
        rows = step.target + 1
        control = AttentionControl.none(rows, self.base.family.mapped_tokens)
        control.record[step.source] = self.watched.source
        control.record[step.target] = self.watched.target
        return control

    def noise(
        self, step: Step, x: Tensor, control: AttentionControl, *, ahead: bool = False
    ) -> Method[Tensor]:
        """The guided noise of the target, whose model sees ``x`` [1, C, h, w].

        ahead: show the model the source's latents after the step instead of before it.
        """
        source = self.inversion.at(step.number + ahead)
        latents = torch.cat([source, *[x] * len(step.drawn)])
        texts = [self.source, *step.texts]
        where = id(self.inversion.trajectory)
        name = ("stored", where, step.number, ahead, id(self.source))
        names = (name, *[None] * len(step.drawn))
        answer = yield from ask(Denoise(latents, step.time, texts, control, names, step.target))
        self.watched.see(answer.maps)
        return combine(answer.noise[1:], len(step.texts), self.guidance.scale)

    def kept(self, step: Step, x: Tensor) -> Method[Tensor]:
        """The target's latents after a step, kept to the region; tells the progress."""
        source = self.inversion.at(step.number + 1)
        kept = self.watched.region.apply(source, x, step.number, self.steps)
        yield Progress("edit", step.number + 1, self.steps)
        return kept

    def result(self, x: Tensor) -> Drawn:
        """The end of the edit."""
        return self.watched.result(x, self.inversion.picture)
