"""What stays on the device between jobs: concepts and inversions, the hot ones, within a budget."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Cache(Generic[T]):
    """Least recently used goes first; safe from any thread.

    budget: bytes that all entries may have together, 0 keeps none; size: of an entry, in bytes.
    """

    def __init__(self, budget: int, size: Callable[[T], int]) -> None:
        self.budget, self._size = budget, size
        self._held: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()
        self._lock = threading.Lock()
        self.bytes = self.hits = self.misses = 0

    def get(self, key: Hashable) -> T | None:
        """The entry of ``key``, which becomes the most recently used; None if it is not held."""
        with self._lock:
            if key not in self._held:
                self.misses += 1
                return None
            self.hits += 1
            self._held.move_to_end(key)
            return self._held[key][0]

    def put(self, key: Hashable, value: T) -> None:
        """Hold ``value``; what it pushes out is gone. One over the budget is not held at all."""
        size = self._size(value)
        with self._lock:
            self._drop(key)
            if size > self.budget:
                return
            self._held[key] = (value, size)
            self.bytes += size
            while self.bytes > self.budget:
                self._drop(next(iter(self._held)))

    def clear(self) -> None:
        """Let go of everything, as when the device has no room."""
        with self._lock:
            self._held.clear()
            self.bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    def _drop(self, key: Hashable) -> None:
        held = self._held.pop(key, None)
        if held is not None:
            self.bytes -= held[1]
