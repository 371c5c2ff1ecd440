"""An edit job: fetch, plan, invert once, draw every strength and seed together, measure, upload."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from PIL import Image
from redis.exceptions import RedisError
from torch import Tensor

from customedit.diffusion.shared_rows import together
from customedit.diffusion.text import Weighted
from customedit.digests import picture_digest
from customedit.editing.auto_change import check_auto
from customedit.editing.edit import EditResult, Opened, draw, encode_and_invert, finish
from customedit.editing.inversion import Inversion
from customedit.editing.kept_features import SourceFeatures
from customedit.editing.plan import EditPlan, plan_edits
from customedit.editing.sweep import MeasuredEdit, best, contact_sheet
from customedit.errors import InputError
from customedit.estimates.work import inversion_mark
from customedit.jobs.queued_requests import read_request
from customedit.jobs.records import ConceptRecord, EditOutcome, EditOutput, WordMapsRecord
from customedit.schemas.answers import Similarities
from customedit.schemas.fields import MAX_REFERENCES
from customedit.schemas.requests import EditRequest
from customedit.storage import object_keys
from customedit.storage.store import MissingObject
from worker import inputs, outputs
from worker.attempt import Attempt
from worker.outputs import Previewer
from worker.runtime import EDITS
from worker.word_maps import word_maps

_SAFETENSORS: Final = "application/octet-stream"


@dataclass(frozen=True)
class Inputs:
    """What an edit reads.

    digest: ``picture_digest`` of the image; key: where the image lies; warnings: sentences about it
    for the caller.
    """

    image: Image.Image
    digest: str
    key: str
    mask: Tensor | None
    concepts: list[Weighted]
    references: list[Image.Image]
    warnings: list[str]


def perform(attempt: Attempt) -> EditOutcome:
    """Run an edit job and upload what came out.

    Raises InputError for what cannot be used, and what ``read_request`` and ``Attempt`` raise.
    """
    request = read_request(attempt.record, EditRequest)
    with attempt.phase("fetch"):
        given = fetch(attempt, request)
        if request.change == "auto":
            check_auto(attempt.runtime.judge, given.references)
        plans = plan_edits(
            attempt.runtime.base, request, given.image,
            picture_id=given.digest, concepts=given.concepts, mask=given.mask,
        )  # fmt: skip
    inversion = None
    if plans[0].inverts:
        with attempt.phase("invert"):
            inversion = find_inversion(attempt, request, plans[0], given.image)
    opened = Opened(attempt.runtime.base, given.image)
    with attempt.phase("edit"):
        results = draw_all(attempt, request, plans, given, inversion, opened)
    with attempt.phase("measure"):
        if request.change == "auto":
            results = [outputs.chosen_change(attempt.runtime, results, given.references)]
        edits = [outputs.measured(attempt.runtime, r, given.references) for r in results]
    with attempt.phase("upload"):
        outcome = upload(attempt, given, results, edits)
        keep_maps(attempt, request, given, results, opened, outcome)
        return outcome


def fetch(attempt: Attempt, request: EditRequest) -> Inputs:
    """Pictures and concepts; without references of its own an edit is held against a concept's."""
    key = inputs.picture_key(attempt, request.image)
    image = inputs.picture(attempt, request.image, "image")
    mask, warnings = None, list[str]()
    if request.mask is not None:
        given = inputs.mask(attempt, request.mask, image.size, marks=request.mask_marks)
        mask = torch.from_numpy(given.values)
        warnings = [f"The mask {warning}." for warning in given.warnings]
    concepts, records, of_masks = inputs.concepts(attempt, request.concepts, image.size)
    warnings += of_masks
    references = inputs.pictures(attempt, request.references, "references")
    if not references:
        references = concept_references(attempt, records)
    digest = picture_digest(image)
    return Inputs(image, digest, key, mask, concepts, references, warnings)


def concept_references(attempt: Attempt, records: Sequence[ConceptRecord]) -> list[Image.Image]:
    """The references that the concepts were trained on, as far as they are still there."""
    references: list[Image.Image] = []
    for image_id in [i for record in records for i in record.references][:MAX_REFERENCES]:
        try:
            references.append(inputs.picture(attempt, image_id, "references"))
        except MissingObject:  # deleted since: its owner's right
            continue
    return references


def find_inversion(
    attempt: Attempt, request: EditRequest, plan: EditPlan, image: Image.Image
) -> Inversion:
    """The picture's inversion: from the device, from S3, or made now and kept in both."""
    runtime = attempt.runtime
    name = f"{plan.inversion_key}.safetensors"
    key = object_keys.inversion(attempt.tenant, request.image, name)
    inversion = runtime.inversions.get(key)
    origin = "device"
    if inversion is None:
        inversion, origin = stored_inversion(attempt, key), "storage"
    if inversion is None:
        inverting = encode_and_invert(runtime.base, plan, image)
        ticket = attempt.submit(inverting, EDITS, label=request.inversion)
        (inversion,), origin = attempt.wait([ticket]), "nowhere"
        path = attempt.folder / "inversion.safetensors"
        inversion.save(path)
        attempt.put(key, path, _SAFETENSORS)
        with contextlib.suppress(RedisError):  # only estimates read it
            runtime.inverted.add(attempt.tenant, request.image, inversion_mark(request))
    attempt.metrics.cache.labels("inversion", origin).inc()
    if origin != "device":
        runtime.inversions.put(key, inversion)
    assert plan.inversion is not None
    return dataclasses.replace(inversion, kind=plan.inversion)


def stored_inversion(attempt: Attempt, key: str) -> Inversion | None:
    """The inversion that an earlier edit left in S3; None if there is none that can be read."""
    path = attempt.folder / "stored.safetensors"
    try:
        attempt.with_retries(lambda: attempt.storage.download(key, path))
        inversion = Inversion.load(path)
    except (MissingObject, InputError):
        return None
    finally:
        path.unlink(missing_ok=True)
    return inversion.to(attempt.runtime.base.device)


def draw_all(
    attempt: Attempt,
    request: EditRequest,
    plans: Sequence[EditPlan],
    given: Inputs,
    inversion: Inversion | None,
    opened: Opened,
) -> list[EditResult]:
    """Every plan, step by step together; pasted in this thread, not in the engine's.

    Maps that a region is read from are recorded: then it costs the sum of each step.
    """
    base = attempt.runtime.base
    previewer = Previewer(attempt, request.steps)
    features = source_features(attempt, plans[0])  # plans differ in strength and seed alone
    drawings = [
        draw(
            base, plan, given.image, concepts=given.concepts, mask=given.mask,
            inversion=inversion, record=request.maps or bool(plan.region_words), opened=opened,
            features=features,
        )
        for plan in plans
    ]  # fmt: skip
    drawings[0] = previewer.seeing(drawings[0], base)
    drawing = together(base, drawings, max_rows=attempt.runtime.settings.engine_rows)
    (drawn,) = attempt.wait([attempt.submit(drawing, EDITS)], previewer.upload)
    attempt.metrics.cache_bytes.set(attempt.runtime.cached_bytes)
    return [
        finish(plan, given.image, result, given.mask, given.concepts)
        for plan, result in zip(plans, drawn, strict=True)
    ]


def source_features(attempt: Attempt, plan: EditPlan) -> SourceFeatures | None:
    """What the tenant's edits kept of the plan's source; None if nothing is to be kept."""
    key = plan.features_key
    features = attempt.runtime.features.of(None if key is None else (attempt.tenant, key))
    if features is not None:
        attempt.metrics.cache.labels("features", "device" if features.reserved else "nowhere").inc()
    return features


def upload(
    attempt: Attempt,
    given: Inputs,
    results: Sequence[EditResult],
    edits: Sequence[MeasuredEdit | None],
) -> EditOutcome:
    """Upload pictures, sheet and mask; the outcome names their keys."""
    chosen, sheet = choose(edits)
    pictures = []
    for k, (result, edit) in enumerate(zip(results, edits, strict=True)):
        measures = edit.similarities.as_dict() if edit else outputs.left_alone(result)
        pictures.append(
            EditOutput(
                strength=result.plan.strength,
                change=result.plan.change,
                seed=result.plan.seed,
                image_key=attempt.keep(f"{k}.png", outputs.png(result.image), outputs.PNG),
                width=result.image.width,
                height=result.image.height,
                similarities=Similarities.model_validate(measures),
                best=k == chosen,
                recipe=result.plan.as_json(),
            )
        )
    top = results[chosen]
    outcome = EditOutcome(
        outputs=pictures,
        source_key=given.key,
        region_words=list(top.region_words),
        change_curve=top.plan.auto,
        warnings=given.warnings,
    )
    if sheet is not None:
        outcome.sheet_key = attempt.keep("sheet.png", outputs.png(sheet), outputs.PNG)
    if top.region is not None:
        picture = outputs.mask_picture(top.region, top.image)
        outcome.mask_key = attempt.keep("mask.png", outputs.png(picture), outputs.PNG)
    return outcome


def keep_maps(
    attempt: Attempt,
    request: EditRequest,
    given: Inputs,
    results: Sequence[EditResult],
    opened: Opened,
    outcome: EditOutcome,
) -> None:
    """Upload the maps of the words, and all attention maps if they were asked for."""
    if all(result.drawing.maps is None for result in results):
        return
    plan = results[0].plan
    target = opened.text(  # which the drawing has made
        plan.target_prompt, given.concepts, "target_prompt", everywhere=plan.everywhere
    ).tokens
    found = None if target is None else word_maps(results, target)
    if found is not None:
        rows, columns = found.cells
        key = attempt.keep("words.png", outputs.png(found.picture), outputs.PNG)
        outcome.word_maps = WordMapsRecord(key=key, words=found.words, rows=rows, columns=columns)
    if request.maps and (maps := outputs.maps_file(results)) is not None:
        outcome.maps_key = attempt.keep("maps.safetensors", maps, _SAFETENSORS)


def choose(edits: Sequence[MeasuredEdit | None]) -> tuple[int, Image.Image | None]:
    """Which picture is best, and the contact sheet; without a judge the first, and no sheet."""
    measured = [edit for edit in edits if edit is not None]
    if not measured:
        return 0, None
    return measured.index(best(measured)), contact_sheet(measured)
