"""Server-sent events, as the HTML standard has them parsed (section 9.2.6)."""

from __future__ import annotations

import json

from customedit.schemas.answers import Event


class Parser:
    """Lines in, events out. last: the id of the last event, to go on from."""

    def __init__(self) -> None:
        self.last = "0"
        self._kind, self._data = "", list[str]()

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
            self.last = value
        return None

    def _complete(self) -> Event | None:
        kind, data = self._kind, self._data
        self._kind, self._data = "", []
        if not data:
            return None
        return Event(id=self.last, event=kind or "message", data=json.loads("\n".join(data)))


def is_final(event: Event) -> bool:
    """Whether nothing comes after ``event``."""
    final = event.data.get("state") in ("succeeded", "failed", "cancelled")
    return event.event == "state" and final
