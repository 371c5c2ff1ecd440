"""What a job reads: pictures and concepts, each only from below its own tenant's folder."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from customedit import images
from customedit.concepts.concept import Concept
from customedit.diffusion.concept_regions import ConceptRegion
from customedit.diffusion.text import Weighted
from customedit.errors import InputError
from customedit.images.masks import Marks, Mask, read_mask
from customedit.jobs.records import ConceptRecord, output_record
from customedit.schemas import ids
from customedit.schemas.requests import ConceptUse
from customedit.storage.store import MissingObject
from worker.attempt import Attempt


def picture(attempt: Attempt, picture_id: str, field: str) -> Image.Image:
    """An image or an output, RGB. Raises InputError that names ``field``, MissingObject."""
    return images.read(_file(attempt, picture_id), field=field, limits=_limits(attempt)).image


def mask(
    attempt: Attempt,
    picture_id: str,
    size: tuple[int, int],
    field: str = "mask",
    marks: Marks = "white",
) -> Mask:
    """A mask for a picture of ``size`` (width, height).

    Raises InputError that names ``field``, MissingObject.
    """
    return read_mask(
        _file(attempt, picture_id), size, field=field, limits=_limits(attempt), marks=marks
    )


def picture_key(attempt: Attempt, picture_id: str) -> str:
    """Where the file of an image or an output lies. Raises MissingObject."""
    runtime, tenant = attempt.runtime, attempt.tenant
    if (output := ids.output_of(picture_id)) is not None:
        job, number = output
        record = attempt.with_retries(lambda: runtime.jobs.get(tenant, job))
        if record is not None and (found := output_record(record, number)) is not None:
            return found.image_key
        raise MissingObject(picture_id)
    image = attempt.with_retries(lambda: runtime.image_records.get(tenant, picture_id))
    if image is None:
        raise MissingObject(picture_id)
    return image.key


def _file(attempt: Attempt, picture_id: str) -> bytes:
    return attempt.get(picture_key(attempt, picture_id))


def _limits(attempt: Attempt) -> images.Limits:
    settings = attempt.runtime.settings
    return images.Limits(max_bytes=settings.max_upload_bytes, max_pixels=settings.max_upload_pixels)


def pictures(attempt: Attempt, image_ids: Sequence[str], field: str) -> list[Image.Image]:
    """Several, in order."""
    return [picture(attempt, image_id, f"{field}[{k}]") for k, image_id in enumerate(image_ids)]


def masks(
    attempt: Attempt, image_ids: Sequence[str], references: Sequence[Image.Image]
) -> list[Image.Image]:
    """Masks of references, in their order, mode F in [0, 1]; none if no ids are given."""
    pairs = zip(image_ids, references, strict=False)  # their numbers are compared by the request
    found = [mask(attempt, i, p.size, f"masks[{k}]") for k, (i, p) in enumerate(pairs)]
    return [Image.fromarray(m.values) for m in found]


def concepts(
    attempt: Attempt, uses: Sequence[ConceptUse], size: tuple[int, int]
) -> tuple[list[Weighted], list[ConceptRecord], list[str]]:
    """The concepts that an edit names, on the device, their records, and warnings of their masks.

    size: (width, height) of the picture that they act in.

    Raises InputError for one that is not ready, of another base, or with another's token.
    """
    weighted: list[Weighted] = []
    warnings: list[str] = []
    records: list[ConceptRecord] = []
    tokens: set[str] = set()
    for k, use in enumerate(uses):
        field = f"concepts[{k}].id"
        record = concept_record(attempt, use.id)
        if record is None or record.weights_key is None or record.state != "ready":
            state = "is gone" if record is None else f"is {record.state}"
            raise InputError(
                field, f"{use.id} {state}", "wait until it is ready, or train it again"
            )
        concept = loaded(attempt, record)
        twice = tokens & set(concept.tokens)
        if twice:
            raise InputError(
                field, f"{min(twice)} is another concept's token, too", "use one of the two"
            )
        tokens |= set(concept.tokens)
        region = None if use.box is None else ConceptRegion(box=use.box)
        if use.mask is not None:
            given = mask(attempt, use.mask, size, f"concepts[{k}].mask")
            region = ConceptRegion.of_mask(given.values)
            warnings += [f"The mask of {record.token} {warning}." for warning in given.warnings]
        weighted.append(Weighted(concept, use.weight, region))
        records.append(record)
    return weighted, records, warnings


def concept_record(attempt: Attempt, concept_id: str) -> ConceptRecord | None:
    """The tenant's concept; None: there is none, or it is another's."""
    return attempt.with_retries(
        lambda: attempt.runtime.concept_records.get(attempt.tenant, concept_id)
    )


def loaded(attempt: Attempt, record: ConceptRecord) -> Concept:
    """A concept on the device, from the cache or from S3; it acts as ``Concept.load``'s does."""
    runtime = attempt.runtime
    assert record.weights_key is not None
    held = (attempt.tenant, record.weights_key)
    concept = runtime.concepts.get(held)
    attempt.metrics.cache.labels("concept", "device" if concept else "storage").inc()
    if concept is None:
        path = attempt.folder / f"{record.id}.safetensors"
        key = record.weights_key
        attempt.with_retries(lambda: attempt.storage.download(key, path))
        concept = Concept.load(path, runtime.base.weights).for_base(runtime.base)
        concept = concept.on(runtime.base)
        runtime.concepts.put(held, concept)
        attempt.metrics.cache_bytes.set(runtime.cached_bytes)
        path.unlink()
    return concept
