"""Presets: settings of edits that a tenant saves under names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from customedit.errors import InputError
from customedit.jobs.records import Record

if TYPE_CHECKING:
    from redis import Redis

    from customedit.config.settings import Settings
    from customedit.jobs.journal import Journal

MOST: Final = 200
"""Most presets of a tenant."""


class PresetRecord(Record):
    """A preset. settings: the given fields of ``PresetSettings``; saved_at: seconds since 1970."""

    name: str
    tenant: str
    settings: dict[str, Any]
    saved_at: float


class Presets:
    """The presets of all tenants. journal: where they are written as well."""

    def __init__(self, client: Redis, settings: Settings, journal: Journal | None = None) -> None:
        self.client, self._namespace, self._journal = client, settings.namespace, journal

    def _key(self, tenant: str) -> str:
        return f"{self._namespace}:presets:{tenant}"

    def save(self, record: PresetRecord) -> bool:
        """Keep a preset in place of one of its name; gives whether there was none.

        Raises:
            InputError: the tenant has ``MOST`` others.
            StorageError: the journal cannot be written; nothing is kept.
        """
        key = self._key(record.tenant)
        if self.client.hlen(key) >= MOST and not self.client.hexists(key, record.name):
            raise InputError("name", f"you have {MOST} presets", "delete one first")
        if self._journal is not None:
            self._journal.preset(record.tenant, record.name, record)
        return bool(self.client.hset(key, record.name, record.model_dump_json()))

    def put(self, record: PresetRecord) -> bool:
        """Keep a preset of the journal, unless there is one of its name; whether there was none."""
        key = self._key(record.tenant)
        return bool(self.client.hsetnx(key, record.name, record.model_dump_json()))

    def get(self, tenant: str, name: str) -> PresetRecord | None:
        """The tenant's preset; None: there is none."""
        text: Any = self.client.hget(self._key(tenant), name)
        return PresetRecord.model_validate_json(text) if text else None

    def list(self, tenant: str) -> list[PresetRecord]:
        """The tenant's presets by name."""
        texts: Any = self.client.hvals(self._key(tenant))
        records = [PresetRecord.model_validate_json(text) for text in texts]
        return sorted(records, key=lambda record: record.name)

    def delete(self, tenant: str, name: str) -> bool:
        """Remove a preset; False: there is none. Raises StorageError: then it stays."""
        if not self.client.hexists(self._key(tenant), name):
            return False
        if self._journal is not None:
            self._journal.forget_preset(tenant, name)
        return bool(self.client.hdel(self._key(tenant), name))
