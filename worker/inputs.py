"""What a job reads: pictures and concepts, each only from below its own tenant's folder."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from customedit import images
from customedit.concepts.concept import Concept
from customedit.diffusion.text import Weighted
from customedit.errors import InputError
from customedit.images.masks import Mask, read_mask
from customedit.jobs.records import ConceptRecord, ImageRecord
from customedit.schemas.requests import ConceptUse
from customedit.storage.store import MissingObject
from worker.attempt import Work


def picture(work: Work, image_id: str, field: str) -> Image.Image:
    """An uploaded picture, RGB. Raises InputError that names ``field``, MissingObject."""
    return images.read(_file(work, image_id), field=field, limits=_limits(work)).image


def mask(work: Work, image_id: str, size: tuple[int, int], field: str = "mask") -> Mask:
    """An uploaded mask for a picture of ``size`` (width, height).

    Raises InputError that names ``field``, MissingObject.
    """
    return read_mask(_file(work, image_id), size, field=field, limits=_limits(work))


def image_record(work: Work, image_id: str) -> ImageRecord:
    """The record of an uploaded picture. Raises MissingObject."""
    record = work.patiently(lambda: work.runtime.image_records.get(work.tenant, image_id))
    if record is None:
        raise MissingObject(image_id)
    return record


def _file(work: Work, image_id: str) -> bytes:
    return work.get(image_record(work, image_id).key)


def _limits(work: Work) -> images.Limits:
    settings = work.runtime.settings
    return images.Limits(max_bytes=settings.max_upload_bytes, max_pixels=settings.max_upload_pixels)


def pictures(work: Work, image_ids: Sequence[str], field: str) -> list[Image.Image]:
    """Several, in order."""
    return [picture(work, image_id, f"{field}.{k}") for k, image_id in enumerate(image_ids)]


def concepts(work: Work, uses: Sequence[ConceptUse]) -> tuple[list[Weighted], list[ConceptRecord]]:
    """The concepts that an edit names, on the device, and their records.

    Raises InputError for one that is not ready, of another base, or with another's token.
    """
    weighted: list[Weighted] = []
    records: list[ConceptRecord] = []
    tokens: set[str] = set()
    for k, use in enumerate(uses):
        field = f"concepts[{k}].id"
        record = concept_record(work, use.id)
        if record is None or record.weights_key is None or record.state != "ready":
            state = "is gone" if record is None else f"is {record.state}"
            raise InputError(
                field, f"{use.id} {state}", "wait until it is ready, or train it again"
            )
        concept = loaded(work, record)
        twice = tokens & set(concept.tokens)
        if twice:
            raise InputError(
                field, f"{min(twice)} is another concept's token, too", "use one of the two"
            )
        tokens |= set(concept.tokens)
        weighted.append(Weighted(concept, use.weight))
        records.append(record)
    return weighted, records


def concept_record(work: Work, concept_id: str) -> ConceptRecord | None:
    """The tenant's concept; None: there is none, or it is another's."""
    return work.patiently(lambda: work.runtime.concept_records.get(work.tenant, concept_id))


def loaded(work: Work, record: ConceptRecord) -> Concept:
    """A concept on the device, from the cache or from S3."""
    runtime = work.runtime
    assert record.weights_key is not None
    held = (work.tenant, record.weights_key)
    concept = runtime.concepts.get(held)
    work.metrics.cache.labels("concept", "device" if concept else "storage").inc()
    if concept is None:
        path = work.folder / f"{record.id}.safetensors"
        key = record.weights_key
        work.patiently(lambda: work.storage.download(key, path))
        concept = Concept.load(path, runtime.base.weights).for_base(runtime.base)
        concept = concept.to(runtime.base.device, runtime.base.dtype)
        runtime.concepts.put(held, concept)
        work.metrics.cache_bytes.set(runtime.concepts.bytes + runtime.inversions.bytes)
        path.unlink()
    return concept
