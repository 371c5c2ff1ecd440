"""How much work a request is: calls of the UNet and steps with gradients, in the order they come.

The numbers follow the methods: ``inversion.trajectory`` asks for one row a step, ``null_text`` for
two more and takes steps with gradients, where guidance acts. At each step of an edit a picture
takes two rows, one where guidance does not act, and the pictures of a job share the source's row
(two rows without direct inversion; SDEdit has none, and FlowEdit's pictures each have their own).
The source's row is counted in any case: whether the worker that will take the job has its features
(``editing.kept_features``), nobody knows before.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from customedit.editing.method_settings import (
    INVERTING,
    STRENGTHS,
    Strength,
    first_drawn_step,
    step_of,
    strength_of_change,
)
from customedit.errors import InputError
from customedit.schemas.change import AUTO_CHANGES
from customedit.schemas.concepts import CustomizeRequest
from customedit.schemas.requests import EditRequest

if TYPE_CHECKING:
    from customedit.estimates.workers import WorkerBase
    from customedit.jobs.records import JobProgress
    from customedit.schemas.answers import JobKind

NULL_TEXT_STEPS: Final = 10
"""Steps with gradients of null-text inversion at each step, at most."""

PORTRAIT_STEPS: Final = 20
CLASS_ROWS: Final = 8
ENCODED_AT_ONCE: Final = 4
"""As in ``sdedit.PORTRAIT_STEPS``, ``dataset.ROWS`` and ``Dataset.encode``, which need torch."""

PHASES: Final[dict[JobKind, tuple[str, ...]]] = {
    "edit": ("fetch", "invert", "null-text", "edit", "measure", "upload"),
    "customize": ("fetch", "encode", "class images", "train", "preview", "upload"),
    "import": ("fetch", "read", "preview", "upload"),
}
"""The phases of each kind of job in their order, as workers report them.

A job passes over those that it does not need. A training is in ``train``, at no step of any, before
it begins to encode.
"""


@dataclass(frozen=True)
class Stage:
    """``rounds`` times the same: a call of the UNet, or a step with gradients.

    phase: one of ``PHASES``; rows: of a call, on average; cells: latent cells of a
    row; label: under which steps with gradients are measured, where there are no rows.
    """

    phase: str
    rounds: float
    rows: float = 0.0
    cells: int = 0
    label: str = ""


@dataclass(frozen=True)
class Work:
    """What a job makes the engine do, and how many pictures it handles beside it."""

    kind: JobKind
    stages: tuple[Stage, ...]
    pictures: int = 1

    def rest(self, progress: JobProgress | None) -> Work:
        """What is left of it at ``progress``: of its phase a share, and all of later ones.

        The same for a phase without a stage, such as one that only reads what is kept. Of a phase
        that is not known, all is left.
        """
        order = PHASES[self.kind]
        if progress is None or progress.phase not in order:
            return self
        if progress.phase == "train" and not progress.steps:
            return self  # it begins to encode
        now = order.index(progress.phase)
        left = max(0.0, 1 - progress.step / progress.steps) if progress.steps else 1.0
        stages = [
            replace(stage, rounds=stage.rounds * left) if stage.phase == progress.phase else stage
            for stage in self.stages
            if order.index(stage.phase) >= now
        ]
        return replace(self, stages=tuple(stages))


def inversion_mark(request: EditRequest) -> str:
    """Names an inversion of a picture by what of ``request`` decides it."""
    null_text = request.inversion == "null-text"
    parts = [request.source_prompt, request.steps, null_text]
    if null_text:  # whose states are fitted to the guided steps
        parts += [request.guidance, request.guidance_start, request.guidance_end]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def class_mark(tenant: str, noun: str, training: dict[str, Any]) -> str:
    """Names class images by what decides them. training: with all defaults."""
    parts = [tenant, noun, training["class_images"], training["class_steps"]]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def edit_work(request: EditRequest, cells: int, *, inverted: bool) -> Work:
    """The work of an edit whose rows have ``cells`` latent cells.

    inverted: whether an inversion of the picture is there already.
    """
    steps, stages = request.steps, list[Stage]()
    counts = [_steps_drawn(request, knobs) for knobs in _knobs(request)]
    pictures = 1 if request.change == "auto" else len(counts) * len(request.seeds)
    if request.change == 0:
        return Work("edit", (), pictures)
    if request.method in INVERTING and not inverted:
        stages.append(Stage("invert", steps, 1, cells))
        if request.inversion == "null-text":
            guided = _guided(request, steps)
            stages.append(Stage("null-text", steps + guided, 1, cells))
            stages.append(Stage("null-text", NULL_TEXT_STEPS * guided, label="null-text"))
    # Pictures go side by side; where they differ in steps, on average so many rows.
    rounds = max(counts)
    own = sum(drawn + _guided(request, drawn) for drawn in counts) * len(request.seeds)
    if request.method == "flowedit":  # each drawing of noise is of a picture and its source
        own *= 2 * ((request.flowedit.samples if request.flowedit else None) or 1)
    rows = _source_rows(request, rounds) + own / max(1, rounds)
    stages.append(Stage("edit", rounds, max(1.0, rows), cells))
    return Work("edit", tuple(stages), pictures)


def _source_rows(request: EditRequest, drawn: int) -> float:
    """The source's rows of a step, on average of ``drawn``: pictures share those that are equal."""
    if request.method in ("sdedit", "flowedit"):  # none, and one for each picture
        return 0
    if request.method == "ddpm":  # whose source is drawn anew for each seed
        both = request.ddpm is None or request.ddpm.source_guidance != 1
        return len(request.seeds) * (1 + (_guided(request, drawn) / max(1, drawn) if both else 0))
    if request.method == "p2p" and request.inversion != "direct":
        return 1 + _guided(request, drawn) / max(1, drawn)
    return 1


def _guided(request: EditRequest, drawn: int) -> int:
    """How many of the last ``drawn`` steps are guided and take another row (``Guidance.acts``)."""
    steps = request.steps
    first, last = (step_of(s, steps) for s in (request.guidance_start, request.guidance_end))
    return max(0, last - max(first, steps - drawn))


def _knobs(request: EditRequest) -> list[Strength]:
    """What decides the steps of each picture that is drawn, but for its seed."""
    if request.change is not None:
        changes = AUTO_CHANGES if request.change == "auto" else (request.change,)
        return [strength_of_change(request.method, change) for change in changes]
    usual = STRENGTHS[request.method]
    return [Strength(strength) for strength in request.strengths or [usual]]


def _steps_drawn(request: EditRequest, knobs: Strength) -> int:
    """The steps at which a picture asks the denoiser."""
    return request.steps - first_drawn_step(request.method, knobs, request.steps)


def customize_work(
    request: CustomizeRequest, training: dict[str, Any], cells: int, *, class_images: bool
) -> Work:
    """The work of a customization.

    training: its settings with all defaults; cells: of a square picture; class_images: whether they
    are there already.
    """
    label = training_label(training)
    encoded = math.ceil(len(request.references) * training["crops"] / ENCODED_AT_ONCE)
    stages = [Stage("encode", encoded, label=label)]
    drawn = 0 if class_images else training["class_images"]
    if drawn:
        rounds = training["class_steps"] * math.ceil(drawn / CLASS_ROWS)
        rows = 2 * min(CLASS_ROWS, drawn)
        stages.append(Stage("class images", rounds, rows, cells))
    stages.append(Stage("train", training["steps"], label=label))
    every = training["preview_every"]
    shown = training["steps"] // every if every else 0
    steps = min(PORTRAIT_STEPS, training["class_steps"])
    if shown:  # portraits on the way are drawn beside the steps
        stages.append(Stage("train", shown * steps, 2, cells))
    stages.append(Stage("preview", steps, 2, cells))
    return Work("customize", tuple(stages))


def import_work(cells: int) -> Work:
    """The work of an import: its portrait, beside what its file takes. cells: as of a training."""
    return Work("import", (Stage("preview", PORTRAIT_STEPS, 2, cells),))


def training_label(training: dict[str, Any]) -> str:
    """Under which name steps of such a training are measured."""
    prior = "prior" if training["class_images"] else "alone"
    return f"{training['way']}:{training['batch']}:{prior}"


def training_settings(base: WorkerBase, request: CustomizeRequest) -> dict[str, Any]:
    """The request's training with all defaults of the base.

    Raises:
        InputError: the base trains in no such way.
    """
    way = request.training.way
    if way not in base.training:
        raise InputError("training.way", f"is {way}", f"use {', '.join(base.training)}")
    given = request.training.model_dump(exclude_none=True)
    return base.training[way] | given
