"""What a dead front end left goes; what may be a job that Redis lost never does."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from customedit.config.settings import Settings
from customedit.devserver.local_servers import LocalServers
from customedit.jobs.journal import Journal, epoch_metadata
from customedit.jobs.orphans import Orphans
from customedit.jobs.records import ConceptRecord, ImageRecord, JobRecord
from customedit.jobs.recovery import recover
from customedit.jobs.redis import connect
from customedit.jobs.store import Gone, Jobs
from customedit.schemas import ids
from customedit.storage import object_keys
from customedit.storage.store import Storage
from customedit.tenants.catalogue import Catalogue

Make = Callable[..., JobRecord]
Training = Callable[..., tuple[JobRecord, ConceptRecord]]


@pytest.fixture
def orphans(client: Redis, settings: Settings, storage: Storage, jobs: Jobs) -> Orphans:
    """Takes what is a moment old for old."""
    return Orphans(client, settings, storage, jobs, age_s=-5)


def files(storage: Storage) -> list[str]:
    return [stored.key for stored in storage.list("tenants/")]


def look(orphans: Orphans, client: Redis, settings: Settings) -> int:
    client.delete(f"{settings.namespace}:orphans")
    return orphans.look()


def test_what_never_became_a_record_goes(
    orphans: Orphans, storage: Storage, jobs: Jobs, journal: Journal, catalogue: Catalogue,
    job: Make, training: Training, picture: Callable[..., ImageRecord],
) -> None:  # fmt: skip
    epoch = jobs.epoch()
    journal.request(job(), epoch=epoch)
    importing, concept = training()
    storage.put(object_keys.given("acme", importing.id), b"weights", metadata=epoch_metadata(epoch))
    journal.request(importing, concept, epoch)
    alone, _ = training()
    storage.put(object_keys.given("acme", alone.id), b"weights", metadata=epoch_metadata(epoch))
    image = picture(b"1")
    storage.put(image.key, b"1", metadata=epoch_metadata(epoch))
    journal.image(image, epoch)
    assert len(files(storage)) == 7
    assert orphans.look() == 5
    journal.settle(jobs, catalogue.concepts)
    assert files(storage) == [] and jobs.folders_to_delete() == []


def test_what_has_a_record_stays(
    orphans: Orphans, storage: Storage, jobs: Jobs, journal: Journal, catalogue: Catalogue,
    job: Make, training: Training, picture: Callable[..., ImageRecord],
) -> None:  # fmt: skip
    epoch = jobs.epoch()
    queued, (trained, concept), image = job(), training(), picture(b"1")
    journal.request(queued, epoch=epoch)
    jobs.submit(queued)
    journal.request(trained, concept, epoch)
    jobs.submit(trained, concept=concept)
    for stamp in ("1", "2"):  # the second upload came too late, and its front end died
        image = picture(b"1", stamp=stamp)
        storage.put(image.key, b"1", metadata=epoch_metadata(epoch))
        journal.image(image, epoch)
        catalogue.images.put(image)
    kept = [key for key in files(storage) if not key.startswith(image.folder)]
    assert orphans.look() == 1
    journal.settle(jobs, catalogue.concepts)
    assert files(storage) == kept and len(kept) == 5


@pytest.mark.parametrize("why", ["young", "another epoch", "no epoch", "a worker wrote there"])
def test_what_is_in_doubt_stays(
    why: str, client: Redis, settings: Settings, storage: Storage, jobs: Jobs, journal: Journal,
    job: Make,
) -> None:  # fmt: skip
    record = job()
    lives = {"another epoch": "0" * 16, "no epoch": ""}
    journal.request(record, epoch=lives.get(why, jobs.epoch()))
    if why == "a worker wrote there":
        storage.put(object_keys.attempt("acme", record.id, 1, "0.png"), b"")
    orphans = Orphans(client, settings, storage, jobs, age_s=60 if why == "young" else -5)
    assert orphans.look() == 0 and jobs.folders_to_delete() == []
    assert recover(client, storage, settings).queued == 1


def test_a_redis_that_was_emptied_is_another_epoch(
    orphans: Orphans, client: Redis, settings: Settings, storage: Storage, jobs: Jobs,
    journal: Journal, job: Make,
) -> None:  # fmt: skip
    lost = job()
    before = jobs.epoch()
    assert before and jobs.epoch() == before
    journal.request(lost, epoch=before)
    jobs.submit(lost)
    client.delete(*client.scan_iter(f"{settings.namespace}:*", count=1000))
    assert look(orphans, client, settings) == 0
    assert jobs.epoch() != before
    assert look(orphans, client, settings) == 0
    assert recover(client, storage, settings).queued == 1


def test_a_redis_that_was_started_anew_is_another_epoch(tmp_path: Path, job: Make) -> None:
    with LocalServers(tmp_path, usual_ports=False) as servers:
        fields = {
            n.removeprefix("CUSTOMEDIT_").lower(): v for n, v in servers.environment().items()
        }
        settings = Settings(**fields)  # type: ignore[arg-type]
        storage = Storage(settings)
        storage.bucket()
        with connect(settings) as client:
            jobs = Jobs(client, settings)
            orphans = Orphans(client, settings, storage, jobs, age_s=-5)
            before = jobs.epoch()
            Journal(storage).request(job(), epoch=before)
            os.kill(servers.pid("valkey"), signal.SIGKILL)
            parent = servers.supervisor.process("valkey").parent
            assert parent is not None
            parent.wait()
            servers.restart("valkey")
            folder = object_keys.folder_of(files(storage)[0])
            assert folder is not None and not jobs.disown(folder, before)
            assert orphans.look() == 0 and jobs.epoch() != before and jobs.folders_to_delete() == []


def test_a_submit_that_comes_after_all_makes_nothing(
    orphans: Orphans, client: Redis, settings: Settings, storage: Storage, jobs: Jobs,
    journal: Journal, catalogue: Catalogue, training: Training,
) -> None:  # fmt: skip
    record, concept = training()
    journal.request(record, concept, jobs.epoch())
    assert orphans.look() == 2
    for _ in range(2):
        with pytest.raises(Gone):
            jobs.submit(record, concept=concept)
        assert recover(client, storage, settings).queued == 0
        journal.settle(jobs, catalogue.concepts)
    assert jobs.peek(record.id) is None and catalogue.concept("acme", concept.id) is None


def test_a_job_that_is_made_is_not_disowned(jobs: Jobs, job: Make) -> None:
    record = jobs.submit(job()).record
    folder = object_keys.folder_of(object_keys.job("acme", record.id))
    assert folder is not None and jobs.owned(folder)
    assert not jobs.disown(folder) and not jobs.disown(folder, jobs.epoch())
    assert jobs.folders_to_delete() == []


def test_it_goes_through_the_bucket_page_by_page(
    client: Redis, settings: Settings, storage: Storage, jobs: Jobs, journal: Journal, job: Make
) -> None:
    made = [job(id=ids.new("job")) for _ in range(7)]
    for record in made:
        journal.request(record, epoch=jobs.epoch())
    found = []
    for _ in range(4):  # by another worker each time
        found.append(Orphans(client, settings, storage, jobs, age_s=-5, page=3).look())
    assert found == [3, 3, 1, 0]  # and then it rests
    client.hset(f"{settings.namespace}:orphans", "not_before", "0")
    assert Orphans(client, settings, storage, jobs, age_s=-5, page=3).look() == 3
    client.delete(f"{settings.namespace}:orphans", f"{settings.namespace}:deleting")
    few = Orphans(client, settings, storage, jobs, age_s=-5, most=3)
    assert [few.look() for _ in range(4)] == [3, 3, 1, 0]
    assert len(jobs.folders_to_delete()) == 7


def test_inversions_go_with_their_picture(
    orphans: Orphans, storage: Storage, catalogue: Catalogue, picture: Callable[..., ImageRecord]
) -> None:
    """Also one that was written by a worker which did not know that it had lost its job."""
    kept, gone = picture(b"1"), picture(b"2")
    catalogue.images.put(kept)
    for image in (kept, gone):
        storage.put(object_keys.inversion("acme", image.id, "1.safetensors"), b"")
    assert orphans.look() == 1
    assert files(storage) == [object_keys.inversion("acme", kept.id, "1.safetensors")]


def test_uploads_that_redis_forgot_go_in_time(
    client: Redis, settings: Settings, storage: Storage, jobs: Jobs
) -> None:
    storage.put(object_keys.upload("acme", ids.new("upl")), b"half")
    for seconds, found in ((0, 0), (-3605, 1)):
        own = settings.model_copy(update={"presign_seconds": seconds})
        orphans = Orphans(client, own, storage, jobs)
        assert look(orphans, client, own) == found
    assert files(storage) == []
