"""What workers publish of the bases that they run, for front ends, which have none.

The facts lie in the bucket under their digest, since a tokenizer may have megabytes; Redis has the
digests and when a worker last named each. A front end that knows no base leaves its checks to the
workers.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from customedit.diffusion.facts import BaseFacts, Reading
from customedit.errors import InputError
from customedit.storage import object_keys

if TYPE_CHECKING:
    from redis import Redis

    from customedit.config.settings import Settings
    from customedit.storage.store import Storage

PUBLISH_EVERY_S: Final = 60.0
"""How often a worker names its base."""

FORGET_S: Final = 600.0
"""A base counts no more when another was named so long after it: its workers are gone."""

READ_EVERY_S: Final = 10.0
"""How old a front end's view of the bases may be."""

MAX_BYTES: Final = 64 * 2**20

_log = logging.getLogger(__name__)


class Bases:
    """Publishes and reads facts of bases; safe to use from many threads.

    Calls raise RedisError; ``publish`` StorageError, too.
    """

    def __init__(self, client: Redis, settings: Settings, storage: Storage) -> None:
        self._client, self._storage = client, storage
        self._key = f"{settings.namespace}:bases"
        self._current: list[BaseFacts] = []
        self._documents: dict[str, BaseFacts] = {}
        self._read_at = -READ_EVERY_S
        self._reading = threading.Lock()

    def publish(self, facts: BaseFacts) -> None:
        """Say that a worker runs this base now."""
        document = facts.model_dump_json().encode()
        digest = hashlib.sha256(document).hexdigest()
        key = object_keys.base(digest)
        if not self._storage.exists(key):
            self._storage.put(key, document, "application/json")
        now = int(self._time())
        self._client.hset(self._key, digest, str(now))
        gone = [name for name, at in self._named().items() if now - at > FORGET_S]
        if gone:
            self._client.hdel(self._key, *gone)

    def current(self) -> list[BaseFacts]:
        """The bases that workers run, the one named last first; empty: none is known.

        Where no worker runs now, those of the last ones. At most ``READ_EVERY_S`` old.
        """
        with self._reading:  # one thread reads: a tokenizer takes a second and 50 MB to make
            if time.monotonic() - self._read_at >= READ_EVERY_S:
                self._read()
                self._read_at = time.monotonic()
        return self._current

    def _read(self) -> None:
        named = sorted(self._named().items(), key=lambda entry: -entry[1])
        digests = [name for name, at in named if named[0][1] - at <= FORGET_S]
        documents = {name: self._facts(name) for name in digests}
        self._documents = {name: facts for name, facts in documents.items() if facts}
        whole = len(self._documents) == len(digests)  # one that is unknown may take more
        self._current = list(self._documents.values()) if whole else []

    def check_prompt(self, prompt: str, columns: Mapping[str, int], field: str) -> None:
        """Refuse a prompt that no base which is known can read.

        columns: as for ``TokenizerFacts.count``.

        Raises:
            InputError: as ``BaseFacts.check``, of the base named last.
        """
        self._check(lambda facts: facts.check(prompt, columns, field))

    def read(self, prompt: str, columns: Mapping[str, int]) -> tuple[BaseFacts, Reading] | None:
        """How a base reads ``prompt``; None if none is known.

        It is the first that can read all of it, else the one named last. columns: as for
        ``TokenizerFacts.count``.
        """
        readings = [(facts, facts.read(prompt, columns)) for facts in self.current()]
        fitting = (one for one in readings if one[1].tokens <= one[1].limit)
        return next(fitting, readings[0] if readings else None)

    def check_concept(self, named: str) -> None:
        """Refuse a concept of a base, ``named``, that is none of those which are known.

        Raises:
            InputError: as ``BaseFacts.check_concept``, of the base named last.
        """
        self._check(lambda facts: facts.check_concept(named))

    def _check(self, check: Callable[[BaseFacts], None]) -> None:
        refused: InputError | None = None
        for facts in self.current():
            try:
                check(facts)
            except InputError as error:
                refused = refused or error
            else:
                return
        if refused is not None:
            raise refused

    def _named(self) -> dict[str, int]:
        """Digests and when each was named last, in Redis' time."""
        entries: Any = self._client.hgetall(self._key)
        return {name: int(at) for name, at in entries.items()}

    def _facts(self, digest: str) -> BaseFacts | None:
        """The facts under ``digest``; None if they cannot be read now."""
        if (known := self._documents.get(digest)) is not None:
            return known
        try:
            document = self._storage.get(object_keys.base(digest), MAX_BYTES)
            facts = BaseFacts.model_validate_json(document)
            facts.check("a", {}, "prompt")  # makes the tokenizers
            return facts
        except Exception as error:  # also of a tokenizer that a newer library wrote
            _log.warning("facts of the base %s: %s", digest[:16], type(error).__name__)
            return None

    def _time(self) -> float:
        seconds: Any = self._client.time()
        return float(seconds[0])
