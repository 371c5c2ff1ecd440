"""An image's record is there if and only if its file is, however uploads and deletions meet."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis import Redis

from api.deletion import delete_image
from api.image_storage import put_image
from api.problems import ProblemError
from customedit.images.reading import Checked
from customedit.jobs.recovery import recover
from customedit.jobs.redis import Scripts
from customedit.schemas import ids
from customedit.storage import object_keys
from customedit.storage.store import Storage

from .. import web
from .conftest import Running, png

DATA = png("olive")
IMAGE = ids.of_image(DATA)
Act = Callable[[Running], None]


def upload(api: Running) -> None:
    put_image(api.container, "anna", DATA, Checked("image/png", (32, 24)))


def delete(api: Running) -> None:
    try:
        delete_image(api.container, "anna", IMAGE)
    except ProblemError as refused:
        assert refused.kind.status == 404


ACTS: dict[str, tuple[Act, ...]] = {
    "upload": (upload,),
    "delete": (delete,),
    "delete, upload": (delete, upload),
    "upload, delete": (upload, delete),
}


def whole(api: Running, storage: Storage) -> bool:
    """Whether the image is there; with all that belongs to it, or nothing is."""
    found = [s.key for s in storage.list(object_keys.images("anna"))]
    listed = [record.id for record in api.container.images.list("anna").items]
    record = api.container.images.get("anna", IMAGE)
    if record is None:
        assert found == [] and listed == []
        return False
    assert sorted(found) == [f"{record.folder}image.json", f"{record.folder}picture"]
    assert storage.get(record.key) == DATA and listed == [IMAGE]
    return True


class Pause:
    """Runs ``meanwhile`` before call number ``at`` of all that change S3 or Redis."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, meanwhile: Act) -> None:
        self.left, self.reached, self._meanwhile = at, False, meanwhile
        for name in ("put", "delete", "delete_prefix"):
            monkeypatch.setattr(Storage, name, self._paused(getattr(Storage, name)))
        monkeypatch.setattr(Scripts, "__call__", self._paused(Scripts.__call__))

    def begin(self, api: Running) -> None:
        self._api = api

    def _paused(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def paused(*given: Any, **more: Any) -> Any:
            self.left -= 1
            if self.left < 0 and not self.reached:
                self.reached = True
                self._meanwhile(self._api)
            return call(*given, **more)

        return paused


def cases() -> Iterator[tuple[str, str, bool]]:
    for first in ("upload", "delete"):
        for second in ACTS:
            for there in (False, True):
                if not (first == "upload" and there):  # which has but one step, a look
                    yield first, second, there


@pytest.mark.parametrize(("first", "second", "there"), [*cases()])
def test_each_order_of_their_steps(
    first: str, second: str, there: bool, api: Running, storage: Storage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    at, reached = 0, True
    while reached:
        delete(api)
        if there:
            upload(api)
        assert whole(api, storage) == there

        def meanwhile(api: Running) -> None:
            for act in ACTS[second]:
                act(api)

        with monkeypatch.context() as patch:
            pause = Pause(patch, at, meanwhile)
            pause.begin(api)
            ACTS[first][0](api)
        whole(api, storage)
        at, reached = at + 1, pause.reached
    assert at > 1


@pytest.mark.parametrize("act", ["delete", "delete, upload"])
def test_a_recovery_that_read_before_does_not_bring_it_back(
    act: str, api: Running, storage: Storage, redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(api)
    read = type(api.container.journal).read

    def late(*given: Any) -> Any:
        found = read(*given)
        monkeypatch.undo()
        for does in ACTS[act]:
            does(api)
        return found

    monkeypatch.setattr(type(api.container.journal), "read", late)
    recover(redis_client, storage, api.settings)
    assert whole(api, storage) == (act != "delete")


def test_a_put_that_is_repeated_after_a_deletion_brings_nothing_back(
    api: Running, storage: Storage
) -> None:
    """As the client does it whose first answer got lost."""
    upload(api)
    record = api.container.images.get("anna", IMAGE)
    assert record is not None
    delete(api)
    assert api.container.images.put(record) is None
    assert not whole(api, storage)


def test_an_upload_whose_folder_was_swept_is_made_anew(
    api: Running, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By workers whose clocks or patience found it too old."""
    put = type(api.container.images).put

    def late(*given: Any) -> Any:
        monkeypatch.undo()
        for stored in storage.list(object_keys.images("anna")):
            folder = object_keys.folder_of(stored.key)
            assert folder is not None
            api.container.jobs.disown(folder)
        api.container.journal.settle(api.container.jobs, api.container.concepts)
        return put(*given)

    monkeypatch.setattr(type(api.container.images), "put", late)
    upload(api)
    assert whole(api, storage)


def test_many_at_once(start: Callable[..., Running], settings: Any, storage: Storage) -> None:
    api = start(settings, rate_per_minute=100_000)
    pictures = [png(colour) for colour in ("red", "lime", "blue")]
    problems: list[str] = []

    def client(number: int) -> None:
        chance, anna = random.Random(number), clients[number]
        for _ in range(40):
            data = chance.choice(pictures)
            act = chance.choice(["form", "store", "delete", "delete"])
            if act == "form":
                answer = anna.post("/v1/images", files={"file": ("a.png", data)})
            elif act == "store":
                form = anna.post("/v1/uploads", json={"media_type": "image/png"}).json()
                web.post(form["url"], data=form["fields"], files={"file": ("x", data)})
                answer = anna.post(f"/v1/uploads/{form['id']}/complete")
            else:
                answer = anna.delete(f"/v1/images/{ids.of_image(data)}")
            if answer.status_code not in (200, 201, 204, 404):
                problems.append(answer.text)

    clients = [api.client("anna") for _ in range(6)]
    threads = [threading.Thread(target=client, args=[n]) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    found = {s.key for s in storage.list(object_keys.images("anna"))}
    records = api.container.images.list("anna").items
    assert found == {f"{r.folder}{name}" for r in records for name in ("picture", "image.json")}
    for record in records:
        assert api.container.images.get("anna", record.id) == record
        assert ids.of_image(storage.get(record.key)) == record.id
    assert not list(storage.list(f"{object_keys.tenant('anna')}uploads/"))
