"""What a worker holds while it lives: the base, the engine, the judge, caches, connections."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import torch
from redis import Redis

from customedit.concepts.concept import Concept
from customedit.config.settings import Settings
from customedit.diffusion.base import Base
from customedit.diffusion.facts import BaseFacts
from customedit.editing.inversion import Inversion
from customedit.editing.kept_features import FeatureCache
from customedit.estimates.forecasts import Inverted
from customedit.jobs.journal import Journal
from customedit.jobs.store import Jobs
from customedit.mini.draw import hush
from customedit.storage.store import Storage
from customedit.tenants.catalogue import Concepts, Images
from worker.class_image_files import ClassImageFiles
from worker.engine_thread import EngineThread
from worker.metrics import Metrics
from worker.speedometer import Speedometer

if TYPE_CHECKING:
    from customedit.metrics.similarity import Similarity

EDITS: Final = 0
TRAININGS: Final = 10
"""Priorities in the engine: a lower one goes first."""

_SCRATCH: Final = "customedit-worker-"
_log = logging.getLogger(__name__)

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


class Runtime:
    """Made by ``load``; ``close`` it. Safe to use from many threads."""

    def __init__(
        self,
        settings: Settings,
        redis: Redis,
        jobs: Jobs,
        storage: Storage,
        base: Base,
        judge: Similarity | None,
        metrics: Metrics | None = None,
    ) -> None:
        self.settings, self.redis, self.jobs, self.storage = settings, redis, jobs, storage
        self.image_records = Images(redis, settings)
        self.concept_records = Concepts(redis, settings)
        self.journal = Journal(storage)
        self.base, self.judge = base, judge
        self.importing = threading.Lock()  # imports are fetched and read one after the other
        self.judging = threading.Lock()  # tokenizers do not like two threads
        self.metrics = metrics or Metrics()
        self.speedometer = Speedometer()
        self.inverted = Inverted(redis, settings)
        # read once here: they are computed when first asked for, which no two threads should do
        self.fingerprint, self.schedule_key = base.fingerprint, base.schedule.key
        tokenizers, lengths = zip(*base.family.tokenizers, strict=True)
        self.facts = BaseFacts.of(
            tokenizers, base.fingerprint, lengths,
            name=base.name, concept_fingerprints=base.concept_fingerprints,
            words=base.profile.words,
        )  # fmt: skip
        self.concepts: Cache[Concept] = Cache(settings.cache_bytes // 2, concept_bytes)
        self.inversions: Cache[Inversion] = Cache(settings.cache_bytes // 2, inversion_bytes)
        self.features = FeatureCache(settings.features_bytes)
        self.engine = EngineThread(
            base,
            self.metrics,
            max_rows=settings.engine_rows,
            patience=settings.watchdog_seconds,
            observer=self.speedometer,
        )
        storage.on_error = self.metrics.store_errors.labels("s3").inc
        self.scratch = own_scratch(settings.scratch_dir)
        self.class_images = ClassImageFiles(self.scratch / "classes")
        self.engine.start()

    @classmethod
    def load(cls, settings: Settings, redis: Redis, jobs: Jobs, storage: Storage) -> Runtime:
        """Load the base and the judge that the settings name.

        Raises InputError for a base, CLIP or device that is not there.
        """
        hush()
        device, dtype = placed(settings)
        base = Base.load(settings.base, device=device, dtype=dtype)
        runtime = cls(settings, redis, jobs, storage, base, load_judge(settings, base))
        _log.info("the base is loaded: %s on %s in %s", base.name, device, dtype)
        return runtime

    @property
    def cached_bytes(self) -> int:
        """What concepts, inversions and features take on the device."""
        return self.concepts.bytes + self.inversions.bytes + self.features.bytes

    def measure_device(self) -> None:
        """Count the memory of the GPU, if there is one."""
        if self.base.device.type == "cuda":
            gauge, device = self.metrics.device_memory, self.base.device
            gauge.labels("allocated").set(torch.cuda.memory_allocated(device))
            gauge.labels("reserved").set(torch.cuda.memory_reserved(device))
            gauge.labels("total").set(torch.cuda.get_device_properties(device).total_memory)

    def make_room(self) -> None:
        """Let go of what is cached, after the device had no room."""
        self.concepts.clear()
        self.inversions.clear()
        self.features.clear()
        if self.base.device.type == "cuda":
            torch.cuda.empty_cache()

    def close(self) -> None:
        """Stop the engine and remove the scratch folder."""
        self.engine.stop()
        shutil.rmtree(self.scratch, ignore_errors=True)


def placed(settings: Settings) -> tuple[str, torch.dtype]:
    """The device and the numbers that the settings choose; on a processor, its threads as well."""
    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(len(os.sched_getaffinity(0)))  # what the container may use
    if settings.dtype == "auto":
        return device, best_numbers(device)
    return device, getattr(torch, settings.dtype)


def best_numbers(device: str) -> torch.dtype:
    """The numbers to compute with on ``device``; bfloat16 where it is known, for trainings' sake.

    Their gradients are not scaled, and many would vanish in float16.
    """
    if device == "cpu":
        return torch.float32
    known = device.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if known else torch.float16


def load_judge(settings: Settings, base: Base) -> Similarity | None:
    """What measures similarities: the settings' CLIP, else the base's own, if it has one."""
    from customedit.metrics.similarity import Similarity

    if settings.clip is not None:
        return Similarity(settings.clip, device=base.device)
    return Similarity(base.clip) if base.clip is not None else None


def concept_bytes(concept: Concept) -> int:
    """What a concept takes on the device."""
    return sum(t.numel() * t.element_size() for t in concept.tensors.values())


def inversion_bytes(inversion: Inversion) -> int:
    """What an inversion takes on the device."""
    held = [inversion.trajectory] + ([] if inversion.nulls is None else [inversion.nulls])
    return sum(t.numel() * t.element_size() for t in held)


def own_scratch(parent: Path) -> Path:
    """A new folder for this process; those of processes that were killed are removed.

    A process holds a lock on its folder while it lives: process ids say nothing where workers in
    several containers share ``parent``.
    """
    parent.mkdir(parents=True, exist_ok=True)
    with (parent / f"{_SCRATCH}lock").open("a") as all_folders:
        fcntl.flock(all_folders, fcntl.LOCK_EX)
        for folder in parent.glob(f"{_SCRATCH}*/"):
            lock = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            except BlockingIOError:
                pass
            finally:
                os.close(lock)
        folder = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=parent))
        fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_EX)  # open as long as this process
    return folder
