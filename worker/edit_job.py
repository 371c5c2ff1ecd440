"""An edit: fetch, invert once, draw every strength and seed together, measure, upload."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from PIL import Image
from torch import Tensor

from customedit.diffusion.engine import Method, Progress
from customedit.diffusion.text import Weighted
from customedit.editing.edit import EditResult, EditSettings, edit
from customedit.editing.inversion import Inversion, invert
from customedit.editing.sweep import Swept, best, contact_sheet
from customedit.errors import InputError
from customedit.jobs.records import ConceptRecord, EditOutcome, EditOutput, Similarities
from customedit.metrics.measure import Similarities as Measured
from customedit.schemas.requests import EditRequest
from customedit.storage import object_keys
from customedit.storage.store import MissingObject
from worker import inputs, outputs
from worker.attempt import Attempt
from worker.edit_settings import p2p_of, pairs, settings_of
from worker.previews import Previewer
from worker.runtime import EDITS, Runtime

MOST_REFERENCES: Final = 20


@dataclass(frozen=True)
class Inputs:
    """What an edit reads."""

    image: Image.Image
    mask: Tensor | None
    concepts: list[Weighted]
    records: list[ConceptRecord]
    references: list[Image.Image]


def perform(work: Attempt) -> EditOutcome:
    """Run an edit job and upload what came out.

    Raises InputError for what cannot be used, and what ``Attempt`` raises.
    """
    request = EditRequest.model_validate(work.record.request)
    with work.phase("fetch"):
        found = fetch(work, request)
    settings = settings_of(request)
    inversion = None
    if request.method == "p2p":
        with work.phase("invert"):
            inversion = inverted(work, request, settings, found.image)
    with work.phase("edit"):
        results = drawn(work, request, settings, found, inversion)
    with work.phase("measure"):
        measures = [
            outputs.measured(work.runtime, r, request.target_prompt, found.references, found.mask)
            for r in results
        ]
    with work.phase("upload"):
        return uploaded(work, request, found, results, measures)


def fetch(work: Attempt, request: EditRequest) -> Inputs:
    """Pictures and concepts; without references of its own an edit is held against a concept's."""
    image = inputs.picture(work, request.image, "image")
    mask = None
    if request.mask is not None:
        mask = inputs.mask(work, request.mask, image.size)
    concepts, records = inputs.concepts(work, request.concepts)
    references = inputs.pictures(work, request.references, "references")
    if not references:
        references = concept_references(work, records)
    return Inputs(image, mask, concepts, records, references)


def concept_references(work: Attempt, records: Sequence[ConceptRecord]) -> list[Image.Image]:
    """The references that the concepts were trained on, as far as they are still there."""
    held: list[Image.Image] = []
    for image_id in [i for record in records for i in record.references][:MOST_REFERENCES]:
        try:
            held.append(inputs.picture(work, image_id, "references"))
        except MissingObject:  # deleted since: its owner's right
            continue
    return held


def inversion_name(runtime: Runtime, request: EditRequest, guidance: float) -> str:
    """The name, in the picture's folder, of the object that keeps the inversion: a digest."""
    null = request.inversion == "null-text"
    parts = [
        runtime.fingerprint,
        runtime.schedule_key,
        str(runtime.base.dtype),
        request.source_prompt,
        request.steps,
        "null-text" if null else "ddim",
        guidance if null else None,
    ]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
    return f"{digest}.safetensors"


def inverted(
    work: Attempt, request: EditRequest, settings: EditSettings, image: Image.Image
) -> Inversion:
    """The picture's inversion: from the device, from S3, or made now and kept in both."""
    runtime = work.runtime
    guidance = runtime.base.guidance if settings.guidance is None else settings.guidance
    name = inversion_name(runtime, request, guidance)
    key = object_keys.inversion(work.tenant, request.image, name)
    inversion = runtime.inversions.get(key)
    where = "device"
    if inversion is None:
        inversion, where = stored_inversion(work, key), "storage"
    if inversion is None:
        method = _inverting(runtime, request, guidance, image)
        (inversion,), where = work.wait([work.submit(method, EDITS)]), "nowhere"
        path = work.folder / "inversion.safetensors"
        inversion.save(path)
        work.put(key, path, "application/octet-stream")
    work.metrics.cache.labels("inversion", where).inc()
    if where != "device":
        runtime.inversions.put(key, inversion)
    return dataclasses.replace(inversion, kind=request.inversion)


def _inverting(
    runtime: Runtime, request: EditRequest, guidance: float, image: Image.Image
) -> Method[Inversion]:
    """A method, so that even encoding the picture happens in the engine's thread."""
    return (
        yield from invert(
            runtime.base,
            runtime.base.encode(image),
            request.source_prompt,
            kind=request.inversion,
            steps=request.steps,
            guidance=guidance,
        )
    )


def stored_inversion(work: Attempt, key: str) -> Inversion | None:
    """The inversion that an earlier edit left in S3; None if there is none that can be read."""
    path = work.folder / "kept.safetensors"
    try:
        work.patiently(lambda: work.storage.download(key, path))
        kept = Inversion.load(path)
    except (MissingObject, InputError):
        return None
    finally:
        path.unlink(missing_ok=True)
    return kept.to(work.runtime.base.device)


def drawn(
    work: Attempt,
    request: EditRequest,
    settings: EditSettings,
    found: Inputs,
    inversion: Inversion | None,
) -> list[EditResult]:
    """Every strength with every seed, in the same calls of the UNet."""
    wanted = pairs(request)
    done = [0] * len(wanted)

    def method(number: int, strength: float, seed: int) -> Method[EditResult]:
        base = work.runtime.base
        one = dataclasses.replace(
            settings,
            strength=strength,
            seed=seed,
            p2p=p2p_of(base, request, found.concepts, strength),
        )
        editing = edit(
            base, found.image, one, found.concepts, mask=found.mask, inversion=inversion,
            record=request.maps,
        )  # fmt: skip
        if number == 0:
            editing = previewer.seeing(editing, base)
        return (yield from _counted(work, editing, done, number))

    previewer = Previewer(work, request.steps)
    tickets = [
        work.submit(method(n, strength, seed), EDITS, heard=False)
        for n, (strength, seed) in enumerate(wanted)
    ]
    return work.wait(tickets, previewer.upload)


def _counted(
    work: Attempt, editing: Method[EditResult], done: list[int], number: int
) -> Method[EditResult]:
    """``editing``, whose steps count towards those of the job."""
    answer: Any = None
    try:
        while True:
            asked = editing.send(answer)
            if isinstance(asked, Progress):
                done[number] = asked.step
                work.say("edit", sum(done), len(done) * asked.steps)
            answer = yield asked
    except StopIteration as end:
        return end.value
    finally:
        editing.close()


def uploaded(
    work: Attempt,
    request: EditRequest,
    found: Inputs,
    results: Sequence[EditResult],
    measures: Sequence[Measured | None],
) -> EditOutcome:
    """Upload pictures, sheet, mask and maps; the outcome names their keys."""
    wanted = pairs(request)
    chosen, sheet = judged(wanted, results, measures)
    uses = [{"id": r.id, "token": r.token, "weight": u.weight}
            for r, u in zip(found.records, request.concepts, strict=True)]  # fmt: skip
    held = []
    for k, ((strength, seed), result, found_) in enumerate(
        zip(wanted, results, measures, strict=True)
    ):
        told = found_.as_dict() if found_ else outputs.left_alone(result, found.mask)
        held.append(
            EditOutput(
                strength=strength,
                seed=seed,
                image_key=work.keep(f"{k}.png", outputs.png(result.image), outputs.PNG),
                similarities=Similarities.model_validate(told),
                best=k == chosen,
                recipe=json.loads(
                    json.dumps(result.recipe | {"image": request.image, "uses": uses})
                ),
            )
        )
    top = results[chosen]
    outcome = EditOutcome(
        outputs=held, source_key=work.keep("source.png", outputs.png(top.source), outputs.PNG)
    )
    if sheet is not None:
        outcome.sheet_key = work.keep("sheet.png", outputs.png(sheet), outputs.PNG)
    if top.mask is not None:
        picture = outputs.mask_picture(top.mask.cpu(), top.working)
        outcome.mask_key = work.keep("mask.png", outputs.png(picture), outputs.PNG)
    if (maps := outputs.maps_file(results)) is not None:
        outcome.maps_key = work.keep("maps.safetensors", maps, "application/octet-stream")
    return outcome


def judged(
    wanted: Sequence[tuple[float, int]],
    results: Sequence[EditResult],
    measures: Sequence[Measured | None],
) -> tuple[int, Image.Image | None]:
    """Which picture is best, and the contact sheet; without a judge the first, and no sheet."""
    edits = [
        Swept(strength, seed, result, found)
        for (strength, seed), result, found in zip(wanted, results, measures, strict=True)
        if found is not None
    ]
    if not edits:
        return 0, None
    return edits.index(best(edits)), contact_sheet(edits)
