"""A customization: fetch the references, train with checkpoints in S3, upload the concept."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from customedit.concepts import checkpoint
from customedit.concepts.class_images import class_images
from customedit.concepts.concept import Concept
from customedit.concepts.dataset import Subject, check_subjects
from customedit.concepts.files import Saved, save_concept
from customedit.concepts.prompts import ConceptPrompts
from customedit.concepts.settings import TrainingSettings
from customedit.concepts.shown_nouns import noun_warnings
from customedit.concepts.training import train_concepts
from customedit.diffusion.base import Base
from customedit.editing.sdedit import PORTRAIT_STEPS, portrait
from customedit.errors import InputError
from customedit.estimates.work import class_mark, training_label
from customedit.jobs.queued_requests import read_request
from customedit.jobs.records import ConceptOutcome
from customedit.schemas.concepts import CustomizeRequest, reference_warnings
from customedit.storage import object_keys
from customedit.storage.store import MissingObject
from worker import inputs, outputs
from worker.attempt import Attempt, Stopped
from worker.outputs import Previewer
from worker.runtime import TRAININGS

BINARY = "application/octet-stream"
CHECKPOINT = "training.safetensors"
AGAIN_S = 5.0
"""Until S3 is tried again that was away."""

_log = logging.getLogger(__name__)


def settings_of(base: Base, request: CustomizeRequest) -> TrainingSettings:
    """The request's training as the library's settings; None takes the default for the base.

    Raises InputError naming a field below ``training``.
    """
    try:
        return TrainingSettings.of(base, **request.training.model_dump())
    except InputError as error:
        raise InputError(f"training.{error.field}", error.problem, error.remedy) from None


def perform(attempt: Attempt) -> ConceptOutcome:
    """Run a customization and upload the concept.

    Raises InputError for what cannot be used, TrainingError for a loss that is not finite,
    NumericalError if that is the base's fault, and what ``read_request`` and ``Attempt`` raise.
    """
    request = read_request(attempt.record, CustomizeRequest)
    base = attempt.runtime.base
    prompts = ConceptPrompts(request.token, request.noun, request.attribute)
    settings = settings_of(base, request)
    with attempt.phase("fetch"):
        references = inputs.pictures(attempt, request.references, "references")
        masks = inputs.masks(attempt, request.masks, references)
        subject = Subject(references, prompts, request.nouns, masks)
        check_subjects([subject])
        files = [i.file(base) for i in class_images(base, subject.classes, settings)]
        mark = class_mark(attempt.tenant, request.noun, dataclasses.asdict(settings))
        keeper = Keeper(attempt, files, mark)
        keeper.fetch()
        keeper.drop_unless_of(checkpoint.about_training(base, settings, [subject]))
    previewer, steps = Previewer(attempt), min(PORTRAIT_STEPS, settings.class_steps)
    preview_of = previewer.training(base, prompts.instance(), steps)
    method = train_concepts(
        base,
        [subject],
        settings,
        resume=keeper.checkpoint,
        class_cache=keeper.folder,
        preview=preview_of,
    )

    def meanwhile() -> None:
        keeper.upload()
        previewer.upload()

    label = training_label(dataclasses.asdict(settings))
    with attempt.phase("train"):
        (shown,) = attempt.wait([attempt.submit(noun_warnings(base, subject), TRAININGS)])
        attempt.warn(shown)  # in time to cancel, and not with the finished concept alone
        ticket = attempt.submit(method, TRAININGS, label=label)
        try:
            (concept,) = attempt.wait([ticket], meanwhile)
        except Stopped as stopped:
            if stopped.reason == "drain":
                keeper.upload()  # what a stopped training wrote last
            raise
    with attempt.phase("preview"):
        drawing = portrait(base, concept, prompts.instance(), steps, settings.seed)
        (picture,) = attempt.wait([attempt.submit(drawing, TRAININGS, phase="preview")])
    with attempt.phase("upload"):
        preview = put_beside(attempt, "preview.jpg", outputs.jpeg(picture), "image/jpeg")
        warnings = [*reference_warnings(len(references)), *shown]
        return uploaded(attempt, concept, preview, warnings)


@dataclass
class Keeper:
    """Carries a training's checkpoint and class images between its folder and S3.

    classes: the files of class images. They go with the checkpoint: drawn again beside other jobs
    they would differ in their last bits, and so would the training. mark: names them for estimates
    (``class_mark``), once all of them lie here.
    """

    attempt: Attempt
    classes: Sequence[str]
    mark: str = ""
    _sent: int = 0
    _sent_classes: set[str] = field(default_factory=set)
    _not_before: float = 0.0

    @property
    def folder(self) -> Path:
        """Where the training keeps its class images."""
        return self.attempt.folder / "classes"

    @property
    def checkpoint(self) -> Path:
        """The file that the training resumes from."""
        return self.attempt.folder / CHECKPOINT

    def fetch(self) -> None:
        """Get what an earlier attempt left, and class images of earlier trainings."""
        self.folder.mkdir()
        for name in self.classes:
            if self._download(name, self.folder / name):
                self._sent_classes.add(name)
            else:
                kept = self.attempt.runtime.class_images
                kept.fetch(self.attempt.tenant, name, self.folder / name)
        if self._download(CHECKPOINT, self.checkpoint):
            self._sent = self.checkpoint.stat().st_mtime_ns

    def drop_unless_of(self, about: Mapping[str, Any]) -> None:
        """Drop a checkpoint that is of another training, so that this one starts anew.

        A job's request never changes: the earlier attempt ran on another base, or in a version with
        other settings. about: ``checkpoint.about_training`` of this training.
        """
        if not self.checkpoint.exists():
            return
        try:
            checkpoint.check(self.checkpoint, about)
        except InputError as error:
            _log.warning("the training starts anew, its checkpoint is dropped: %s", error.problem)
            self.checkpoint.unlink()

    def _download(self, name: str, path: Path) -> bool:
        key = object_keys.checkpoint(self.attempt.tenant, self.attempt.id, name)
        with contextlib.suppress(MissingObject):
            self.attempt.with_retries(lambda: self.attempt.storage.download(key, path))
            return True
        return False

    def upload(self) -> None:
        """Send what is new; if S3 is away, later: a training need not wait for that.

        The class images first: a checkpoint is of no use without them.
        """
        if time.monotonic() < self._not_before:
            return
        for name in self.classes:
            drawn = self.folder / name
            if name not in self._sent_classes and drawn.exists():
                if not self._send(name, drawn):
                    return
                self._sent_classes.add(name)
                self._share(drawn)
        if self.checkpoint.exists():
            when = self.checkpoint.stat().st_mtime_ns
            if when != self._sent and self._send(CHECKPOINT, self.checkpoint):
                self._sent = when

    def _share(self, drawn: Path) -> None:
        """Keep class images for the tenant's next training on this worker."""
        kept, tenant = self.attempt.runtime.class_images, self.attempt.tenant
        kept.add(tenant, drawn)
        if self._sent_classes.issuperset(self.classes):
            kept.mark(self.mark, tenant, self.classes)

    def _send(self, name: str, path: Path) -> bool:
        key = object_keys.checkpoint(self.attempt.tenant, self.attempt.id, name)
        sent = self.attempt.try_put(key, path, BINARY)
        if not sent:
            self._not_before = time.monotonic() + AGAIN_S
        return sent


def put_beside(attempt: Attempt, name: str, body: bytes | Path, media_type: str) -> str:
    """Upload a file of the concept that this job makes; the key carries the attempt's stamp.

    A concept outlives the job that made it, so its files do not lie in the job's folder.
    """
    assert attempt.record.concept is not None
    name = f"{attempt.stamp}-{name}"
    return attempt.put(
        object_keys.concept(attempt.tenant, attempt.record.concept, name), body, media_type
    )


def uploaded(
    attempt: Attempt, concept: Concept, preview: str | None, warnings: list[str]
) -> ConceptOutcome:
    """Upload a concept in our format and in diffusers'."""
    assert attempt.record.concept is not None
    base = attempt.runtime.base
    path = attempt.folder / "weights.safetensors"
    concept.save(path)
    size = path.stat().st_size
    weights_key = put_beside(attempt, path.name, path, BINARY)
    path.unlink()
    path, saved = zipped(concept, base, attempt.folder)
    diffusers_key = put_beside(attempt, path.name, path, "application/zip")
    path.unlink()
    return ConceptOutcome(
        concept=attempt.record.concept,
        weights_key=weights_key,
        diffusers_key=diffusers_key,
        preview_key=preview,
        bytes=size,
        token=next(iter(concept.tokens)),
        columns={token: len(torch.atleast_2d(v)) for token, v in concept.tokens.items()},
        noun=concept.noun,
        attribute=concept.attribute,
        base=concept.base,
        recipe=concept.recipe,
        warnings=[*warnings, *(f"in the file for diffusers {text}" for text in saved.warnings)],
    )


def zipped(concept: Concept, base: Base, folder: Path) -> tuple[Path, Saved]:
    """What stock diffusers loads, as a zip in ``folder``; stored, since weights do not shrink."""
    saved = save_concept(concept, folder / "diffusers", base, "diffusers")
    with zipfile.ZipFile(folder / "diffusers.zip", "w") as archive:
        for path in saved.files:
            archive.write(path, path.name)
            path.unlink()
    return folder / "diffusers.zip", saved
