"""Server-sent events, as the HTML standard has them parsed (section 9.2.6)."""

from __future__ import annotations

import json

from customedit.schemas.answers import Event


class Parser:
    """Lines in, events out. last: the id of the last whole event, to go on from."""

    def __init__(self, last: str = "0") -> None:
        self.last = last
        self.reset()

    def reset(self) -> None:
        """Begin with another connection: of an event that was cut off nothing stays."""
        self._id, self._kind, self._data = self.last, "", list[str]()

    def feed(self, line: str) -> Event | None:
        """The event that ``line`` (without its end) completes, if it does."""
        if not line:
            return self._complete()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._kind = value
        elif name == "data":
            self._data.append(value)
        elif name == "id":
            self._id = value
        return None

    def _complete(self) -> Event | None:
        kind, data = self._kind, self._data
        self.last, self._kind, self._data = self._id, "", []
        if not data:
            return None
        return Event(id=self.last, event=kind or "message", data=json.loads("\n".join(data)))


def is_final(event: Event) -> bool:
    """Whether nothing comes after ``event``."""
    final = event.data.get("state") in ("succeeded", "failed", "cancelled")
    return event.event == "state" and final
