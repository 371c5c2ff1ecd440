"""Features of sources kept in memory, so that a further edit of a picture runs a row less a step.

With direct inversion the source's row of Prompt-to-Prompt is the same in every edit of a picture
from one source prompt: what the target takes of it (``kept_features.StepFeatures``) is kept at each
step that an edit ran the row at, and where all that a later edit takes is there, the row is not
run. Which edits these are, ``EditPlan.features_key`` says.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Hashable, Sequence
from weakref import WeakValueDictionary

from torch import Tensor

from customedit.diffusion.kept_features import Part, StepFeatures
from customedit.errors import InputError


class SourceFeatures:
    """The features of one source; made by ``FeatureCache.of``, for the engine's thread.

    They may be gone at any step, when others need their room: then the source's row is run again.

    reserved: bytes that the cache counts for them, for any thread.
    """

    def __init__(self, cache: FeatureCache, key: Hashable) -> None:
        self.key, self.open, self.reserved = key, True, 0
        self._cache = cache
        self._steps: dict[int, StepFeatures] = {}
        self._sizes: dict[Part, int] = {}  # of a step's parts, which are the same at each step

    def want(self, parts: Sequence[Collection[Part]]) -> None:
        """What an edit takes of the source at each step, () for nothing."""
        for number, own in enumerate(parts):
            if own and self.open:
                self._steps.setdefault(number, StepFeatures()).wanted.update(own)

    def held(self, step: int, parts: Collection[Part]) -> StepFeatures | None:
        """The features of ``step`` if all ``parts`` of them are held; of no part they always are.

        Whoever has them may use them, also if the cache lets go of them meanwhile.
        """
        if not parts:
            return StepFeatures()
        found = self._steps.get(step)
        return found if found is not None and found.held.issuperset(parts) else None

    def recording(self, step: int) -> StepFeatures | None:
        """Where a forward puts what is wanted of ``step``; None if nothing is to be kept."""
        return self._steps.get(step) if self.open else None

    def recorded(self, step: StepFeatures, maps: Tensor | None) -> None:
        """A forward filled ``step``; maps: as in ``Prediction``, the source's row the first."""
        if "maps" in step.wanted and maps is not None and step.maps is None:
            step.maps = maps[:1].clone()
            step.held.add("maps")
        self._sizes |= step.sizes()
        self._cache.settle(self)

    @property
    def size(self) -> int:
        """Bytes of all that is wanted, held or not yet."""
        steps = list(self._steps.values())
        return sum(self._sizes.get(part, 0) for step in steps for part in step.wanted)

    def close(self) -> None:
        """Let go of everything, and keep nothing from now on."""
        self.open, self._steps, self.reserved = False, {}, 0


class FeatureCache:
    """Features of sources in memory, on the base's device; least recently used go first.

    budget: bytes that all may have together, 0 keeps none. What an edit will come to is known from
    the first step that is kept: room for all of its steps is made at once, and an edit whose
    features are more than the budget keeps none. Safe from any thread.

    bytes: reserved for the features that are kept, and for steps that running edits have yet to
    take.

    Raises InputError for a budget below 0.
    """

    def __init__(self, budget: int) -> None:
        if budget < 0:
            raise InputError("kept_features", f"is {budget}", "give bytes, 0 to keep none")
        self.budget, self.bytes = budget, 0
        self._in_use: WeakValueDictionary[Hashable, SourceFeatures] = WeakValueDictionary()
        self._held: OrderedDict[Hashable, SourceFeatures] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._held)

    def of(self, key: Hashable) -> SourceFeatures | None:
        """The features that ``key`` names, maybe none yet; None if nothing is to be kept.

        key: names all that decides the source's rows, and whose they are; None for an edit that
        keeps nothing.
        """
        if key is None or not self.budget:
            return None
        with self._lock:
            found = self._in_use.get(key)
            if found is None:
                found = self._in_use[key] = SourceFeatures(self, key)
            if key in self._held:
                self._held.move_to_end(key)
            return found

    def settle(self, features: SourceFeatures) -> None:
        """Make room for all that is wanted of ``features``, or let go of them if there is none."""
        with self._lock:
            if not features.open:
                return
            size = features.size
            if size > self.budget:
                self._drop(features)
                return
            self.bytes += size - features.reserved
            features.reserved = size
            self._held[features.key] = features
            for other in list(self._held.values()):
                if self.bytes <= self.budget:
                    return
                if other is not features:
                    self._drop(other)

    def clear(self) -> None:
        """Let go of everything, as when the device has no room."""
        with self._lock:
            for features in list(self._held.values()):
                self._drop(features)

    def _drop(self, features: SourceFeatures) -> None:
        self._held.pop(features.key, None)
        self._in_use.pop(features.key, None)
        self.bytes -= features.reserved
        features.close()
