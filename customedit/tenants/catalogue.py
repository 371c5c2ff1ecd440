"""Images and concepts of tenants: their records. The files are in the bucket."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from customedit.jobs.records import ConceptRecord, ImageRecord, Item, Page, concept_of
from customedit.jobs.redis import Scripts
from customedit.jobs.store import InUse
from customedit.storage import object_keys

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

    from customedit.config.settings import Settings


class _Records:
    """What the two have in common. Calls raise ``redis.exceptions.RedisError``."""

    def __init__(self, client: Redis, settings: Settings) -> None:
        self.client, self._namespace = client, settings.namespace
        self._run = Scripts(client, settings)

    def _key(self, *parts: str) -> str:
        return ":".join((self._namespace, *parts))

    def _page(
        self,
        index: str,
        cursor: str | None,
        limit: int,
        ask: Callable[[Pipeline, str], object],
        read: Callable[[Any], Item | None],
    ) -> Page[Item]:
        """A page of ``index``, whose members sort by age, in two round trips.

        ask: asks for what a member names; read: makes the item of the answer, None if it is gone.
        """
        start = f"({cursor}" if cursor else "+"
        names: Any = self.client.zrange(
            index, start, "-", desc=True, bylex=True, offset=0, num=limit + 1
        )
        with self.client.pipeline(transaction=False) as pipe:
            for name in names[:limit]:
                ask(pipe, name)
            answers = pipe.execute()
        items = [item for answer in answers if (item := read(answer)) is not None]
        return Page(items, names[limit - 1] if len(names) > limit else None)


class Images(_Records):
    """Records of uploaded pictures."""

    def put(self, record: ImageRecord) -> ImageRecord | None:
        """Keeps the record, unless the tenant has the image already; gives the one kept.

        None: this upload was kept before and is deleted by now.
        """
        record_json = self._run(
            "put_image",
            id=record.id,
            tenant=record.tenant,
            record=record.model_dump_json(),
            prefix=record.folder,
            place=f"{int(record.created_at * 1000):013d}:{record.id}",
        )
        return ImageRecord.model_validate_json(record_json) if record_json else None

    def get(self, tenant: str, image_id: str) -> ImageRecord | None:
        """The tenant's image; None: there is none."""
        record_json: Any = self.client.hget(self._key("image", tenant, image_id), "record")
        return _image(record_json)

    def list(self, tenant: str, *, cursor: str | None = None, limit: int = 50) -> Page[ImageRecord]:
        """The tenant's images, newest first, at most ``limit``."""

        def ask(pipe: Pipeline, place: str) -> None:
            pipe.hget(self._key("image", tenant, place.partition(":")[2]), "record")

        return self._page(self._key("images", tenant), cursor, limit, ask, _image)

    def delete(self, tenant: str, image_id: str) -> Sequence[str]:
        """Removes the record; gives its folders in the bucket, which are marked for deletion.

        None of them: the tenant has no such image.

        Raises:
            InUse: unfinished jobs need it.
        """
        inversions = object_keys.inversion(tenant, image_id)
        answer = self._run("delete_image", tenant=tenant, id=image_id, inversions=inversions)
        if answer[0] == "in-use":
            raise InUse(image_id, answer[1])
        return tuple(answer[1:])


class Concepts(_Records):
    """Records of concepts. ``Jobs.submit`` makes them, ``Jobs.commit`` makes them ready."""

    def put(self, record: ConceptRecord) -> bool:
        """Keeps a record that has no job to keep it: from the journal. False: there is one."""
        return bool(
            self._run(
                "put_concept",
                id=record.id,
                tenant=record.tenant,
                state=record.state,
                record=record.model_dump_json(),
                prefix=object_keys.concept(record.tenant, record.id),
            )
        )

    def get(self, tenant: str, concept_id: str) -> ConceptRecord | None:
        """The tenant's concept; None: there is none, or it is another's."""
        return _concept(tenant, self.client.hgetall(self._key("concept", concept_id)))

    def list(
        self, tenant: str, *, cursor: str | None = None, limit: int = 50
    ) -> Page[ConceptRecord]:
        """The tenant's concepts, newest first, at most ``limit``."""

        def ask(pipe: Pipeline, name: str) -> None:
            pipe.hgetall(self._key("concept", name))

        read = functools.partial(_concept, tenant)
        return self._page(self._key("concepts", tenant), cursor, limit, ask, read)

    def delete(self, tenant: str, concept_id: str) -> bool:
        """Removes the record; its folder in the bucket is marked for deletion.

        False: the tenant has no such concept.

        Raises:
            InUse: unfinished jobs make it or use it.
        """
        folder = object_keys.concept(tenant, concept_id)
        answer = self._run("delete_concept", tenant=tenant, id=concept_id, prefix=folder)
        if isinstance(answer, list):
            raise InUse(concept_id, answer)
        return bool(answer)


def _image(record_json: Any) -> ImageRecord | None:
    return ImageRecord.model_validate_json(record_json) if record_json else None


def _concept(tenant: str, fields: Any) -> ConceptRecord | None:
    return concept_of(fields) if fields and fields["tenant"] == tenant else None


class Catalogue:
    """Both, and the two calls that workers and their tests make."""

    def __init__(self, client: Redis, settings: Settings) -> None:
        self.images, self.concepts = Images(client, settings), Concepts(client, settings)

    def concept(self, tenant: str, concept_id: str) -> ConceptRecord | None:
        """``Concepts.get``."""
        return self.concepts.get(tenant, concept_id)

    def put_image(self, record: ImageRecord) -> ImageRecord | None:
        """``Images.put``."""
        return self.images.put(record)
