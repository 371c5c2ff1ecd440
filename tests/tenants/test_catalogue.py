"""Images and concepts: each tenant's own, in pages, and never taken from under a job."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from customedit.jobs.records import ConceptRecord, ImageRecord, JobRecord
from customedit.jobs.store import InUse, Jobs
from customedit.schemas import ids
from customedit.tenants.catalogue import Catalogue

Picture = Callable[..., ImageRecord]
Make = Callable[..., JobRecord]
Training = Callable[..., tuple[JobRecord, ConceptRecord]]


def kept(catalogue: Catalogue, record: ImageRecord) -> ImageRecord:
    """Keeps a record that was never deleted."""
    found = catalogue.images.put(record)
    assert found is not None
    return found


def test_the_same_image_twice_is_one(catalogue: Catalogue, picture: Picture) -> None:
    first = picture(b"1", at=5.0)
    assert catalogue.images.put(first) == first
    assert catalogue.images.put(picture(b"1", at=9.0)) == first
    assert catalogue.images.list("acme").items == [first]


def test_tenants_do_not_see_each_other(
    catalogue: Catalogue, picture: Picture, jobs: Jobs, training: Training
) -> None:
    mine = kept(catalogue, picture(b"1"))
    record, concept = training()
    jobs.submit(record, concept=concept)
    assert catalogue.images.get("other", mine.id) is None
    assert catalogue.concepts.get("other", concept.id) is None
    assert not catalogue.images.delete("other", mine.id)
    assert not catalogue.concepts.delete("other", concept.id)
    assert catalogue.images.list("other").items == []
    assert catalogue.concepts.list("other").items == []
    theirs = kept(catalogue, picture(b"1", tenant="other"))
    assert catalogue.images.delete("other", theirs.id)
    assert catalogue.images.get("acme", mine.id) == mine


def test_pages_are_newest_first_and_stable(
    catalogue: Catalogue, picture: Picture, jobs: Jobs, training: Training
) -> None:
    images = [kept(catalogue, picture(bytes([n]), at=100.0 + n)).id for n in range(7)]
    concepts = []
    for _ in range(7):
        record, concept = training()
        jobs.submit(record, concept=concept)
        concepts.append(concept.id)
    for records, names in (
        (catalogue.images, images[::-1]),
        (catalogue.concepts, sorted(concepts, reverse=True)),
    ):
        seen: list[str] = []
        cursor = None
        while True:
            page = records.list("acme", cursor=cursor, limit=3)
            seen += [item.id for item in page.items]
            if (cursor := page.next_cursor) is None:
                break
            catalogue.images.put(picture(str(len(seen)).encode(), at=1e6))
        assert seen == names


def test_an_image_in_use_stays_until_its_jobs_are_finished(
    catalogue: Catalogue, picture: Picture, jobs: Jobs, job: Make
) -> None:
    for field in ("image", "mask", "references"):
        image = kept(catalogue, picture(field.encode()))
        value = [image.id] if field == "references" else image.id
        asked = jobs.submit(job(request={field: value})).record
        with pytest.raises(InUse) as error:
            catalogue.images.delete("acme", image.id)
        assert (error.value.id, error.value.jobs) == (image.id, [asked.id])
        jobs.cancel("acme", asked.id)
        assert catalogue.images.delete("acme", image.id)
        assert not catalogue.images.delete("acme", image.id)
        assert catalogue.images.get("acme", image.id) is None
    assert catalogue.images.list("acme").items == []


def test_a_concept_in_use_stays_and_leaves_a_folder_to_delete(
    catalogue: Catalogue, jobs: Jobs, job: Make, training: Training
) -> None:
    record, concept = training()
    jobs.submit(record, concept=concept)
    edit = jobs.submit(job(request={"concepts": [{"id": concept.id, "weight": 1.0}]})).record
    with pytest.raises(InUse) as error:
        catalogue.concepts.delete("acme", concept.id)
    assert error.value.jobs == sorted([record.id, edit.id])
    claim = jobs.claim(record.id, "w")
    assert claim is not None and jobs.commit(claim, {}, concept=concept)
    with pytest.raises(InUse):
        catalogue.concepts.delete("acme", concept.id)
    claim = jobs.claim(edit.id, "w")
    assert claim is not None and jobs.commit(claim, {})
    assert catalogue.concepts.delete("acme", concept.id)
    assert catalogue.concepts.get("acme", concept.id) is None
    assert jobs.folders_to_delete() == [f"tenants/acme/concepts/{concept.id}/"]
    assert not catalogue.concepts.put(concept)  # not while its folder is being swept


def test_a_concept_that_is_not_there_cannot_be_deleted(catalogue: Catalogue) -> None:
    assert not catalogue.concepts.delete("acme", ids.new("con"))
