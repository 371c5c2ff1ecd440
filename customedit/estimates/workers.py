"""Which workers live, and what each runs on: they say so every few seconds, or are forgotten."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from customedit.diffusion.profile import Sizes
from customedit.estimates.speed import Line, Speed
from customedit.images.layout import fit
from customedit.jobs.redis import Scripts
from customedit.schemas.answers import JobKind

if TYPE_CHECKING:
    from redis import Redis

    from customedit.config.settings import Settings

BEAT_S: Final = 2.0
"""How often a worker says that it lives, in seconds."""

GONE_S: Final = 10.0
"""A worker that has said nothing for so long counts no more."""

KEEP_SPEED_S: Final = 7 * 86_400
"""How long measured seconds wait for a worker on the same base and device to start, in seconds."""


class _Report(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class WorkerBase(_Report):
    """What of a worker's base decides a plan and its time.

    rows: most rows of one call of the UNet; cells: most latent cells of all rows together, None for
    any; training: by way, every setting of a training that is left out.
    """

    name: str
    fingerprint: str
    architecture: str = ""
    device: str
    dtype: str
    guidance: float
    sizes: Sizes
    rows: int
    cells: int | None = None
    training: dict[str, dict[str, Any]] = Field(default_factory=dict)

    def working_size(self, picture: tuple[int, int]) -> tuple[int, int]:
        """(width, height) at which a picture of (width, height) is worked on."""
        return fit(picture, self.sizes.multiple, self.sizes.side**2)

    def latent_grid(self, picture: tuple[int, int] | None) -> tuple[int, int]:
        """(rows, columns) of a picture's latents; None: of a square one at the base's own size."""
        side = self.sizes.side
        width, height = (side, side) if picture is None else self.working_size(picture)
        return height // self.sizes.factor, width // self.sizes.factor

    def latent_cells(self, picture: tuple[int, int] | None) -> int:
        """Latent cells of a row of that picture; None: of a square one at the base's own size."""
        rows, columns = self.latent_grid(picture)
        return rows * columns

    def most_rows(self, cells: int) -> int:
        """Most rows of ``cells`` latent cells in one call."""
        if self.cells is None:
            return self.rows
        return min(self.rows, max(1, self.cells // cells))

    @property
    def machine(self) -> str:
        """Names what measured seconds are good for: this base on such a device."""
        text = f"{self.fingerprint}|{self.device}|{self.dtype}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class WorkerReport(_Report):
    """A worker that takes jobs. slots: jobs at once; classes: class images that it has ready."""

    name: str
    kinds: tuple[JobKind, ...]
    slots: int
    base: WorkerBase
    speed: Speed = Field(default_factory=dict)
    classes: frozenset[str] = frozenset()


class Workers:
    """The reports in Redis. Calls raise RedisError."""

    def __init__(self, client: Redis, settings: Settings) -> None:
        self.client, self._namespace = client, settings.namespace
        self._run = Scripts(client, settings)

    def _key(self, *parts: str) -> str:
        return ":".join((self._namespace, *parts))

    def beat(self, report: WorkerReport) -> None:
        """Keep the report for ``GONE_S``, also while Redis is full."""
        speed = _SPEED.dump_json(report.speed).decode() if report.speed else None
        self._run(
            "beat",
            name=report.name,
            report=report.model_dump_json(),
            gone=GONE_S,
            machine=report.base.machine,
            speed=speed,
            keep=KEEP_SPEED_S,
        )

    def leave(self, name: str) -> None:
        """The worker takes no jobs any more."""
        self.client.zrem(self._key("workers"), name)
        self.client.delete(self._key("worker", name))

    def speed(self, base: WorkerBase) -> Speed:
        """What a worker on the same base and device measured last; empty if none did."""
        text: Any = self.client.get(self._speed(base))
        try:
            return _SPEED.validate_json(text or "{}")
        except ValidationError:  # of another version
            return {}

    def alive(self) -> list[WorkerReport]:
        """The workers that live, by name."""
        names: Any = self.client.zrangebyscore(self._key("workers"), self._now() - GONE_S, "+inf")
        if not names:
            return []
        texts: Any = self.client.mget([self._key("worker", name) for name in sorted(names)])
        reports = []
        for text in texts:
            try:
                reports.append(WorkerReport.model_validate_json(text or ""))
            except ValidationError:  # gone this moment, or of another version
                continue
        return reports

    def _speed(self, base: WorkerBase) -> str:
        return self._key("speed", base.machine)

    def _now(self) -> float:
        whole, micro = self.client.time()
        return int(whole) + int(micro) / 1e6


_SPEED: Final = TypeAdapter(Speed)


def joined(reports: Sequence[WorkerReport]) -> Speed:
    """What all workers measured, as one."""
    names = {name for report in reports for name in report.speed}
    return {name: Line.join([r.speed[name] for r in reports if name in r.speed]) for name in names}


def joined_by_machine(reports: Sequence[WorkerReport]) -> dict[str, Speed]:
    """What the workers on each machine measured, as one, by ``WorkerBase.machine``.

    What was not measured on a machine is taken as ``joined`` has it.
    """
    everywhere = joined(reports)
    by_machine = defaultdict[str, list[WorkerReport]](list)
    for report in reports:
        by_machine[report.base.machine].append(report)
    return {machine: everywhere | joined(alike) for machine, alike in by_machine.items()}
