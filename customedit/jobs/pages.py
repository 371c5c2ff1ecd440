"""Pages of long lists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class Page(Generic[Item]):
    """Some items, newest first. next_cursor: gives the page after; None at the end."""

    items: list[Item]
    next_cursor: str | None
