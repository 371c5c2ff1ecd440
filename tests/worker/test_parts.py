"""The worker's parts by themselves: cache, engine thread, health port, problems."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter

from customedit.concepts.concept import Concept
from customedit.diffusion.adapters import UNET, Adapter, Hadamard, LowRank, layers_of
from customedit.diffusion.base import Base
from customedit.diffusion.method import Method, Progress, Turn
from customedit.diffusion.text import Weighted
from customedit.errors import DeadlineExceeded, InputError, NumericalError, TrainingError
from customedit.jobs.queued_requests import OtherVersionError
from customedit.jobs.records import JobProgress
from customedit.storage.store import MissingObject
from worker import inputs, problems
from worker.attempt import Attempt
from worker.engine_thread import EngineThread
from worker.health import Health
from worker.metrics import Metrics
from worker.runtime import Cache, concept_bytes, own_scratch


@pytest.fixture
def attempt() -> Attempt:
    """One whose engine only keeps what is to be told of progress, as ``heard``."""
    heard: list[Any] = []

    def submit(_: object, *, on_progress: Any, **__: object) -> None:
        heard.append(on_progress)

    record = SimpleNamespace(tenant="anna", id="job_1", kind="customize")
    runtime: Any = SimpleNamespace(
        storage=None, metrics=None, speedometer=SimpleNamespace(accounted=0.0),
        settings=SimpleNamespace(job_timeout_seconds=60),
        engine=SimpleNamespace(submit=submit, heard=heard),
    )  # fmt: skip
    claim: Any = SimpleNamespace(record=record, attempt=1)
    return Attempt(claim, runtime, Path())


def test_a_warning_goes_with_all_progress_that_follows(attempt: Attempt) -> None:
    attempt.report("train")
    attempt.warn([])
    assert attempt.take_progress() == JobProgress(phase="train")
    attempt.warn(["it looks like a cup"])  # nothing else is to be told
    assert attempt.take_progress() == JobProgress(phase="train", warnings=["it looks like a cup"])
    assert not attempt.has_progress
    attempt.report("train", 1, 2)
    attempt.warn(["and is small"])
    told = attempt.take_progress()
    assert told is not None and told.step == 1
    assert told.warnings == ["it looks like a cup", "and is small"]
    attempt.show("a/b")
    shown = attempt.take_progress()
    assert shown is not None and shown.preview_key == "a/b" and len(shown.warnings) == 2


def test_what_is_told_between_two_steps_keeps_the_step(attempt: Attempt) -> None:
    """The record has the last progress alone: a preview or a warning must not set it to 0 of 0."""
    attempt.report("train", 7, 20, {"loss": 0.5})
    told = attempt.take_progress()
    assert told is not None and attempt.take_progress() is None
    attempt.show("a/b")
    assert attempt.has_progress
    assert attempt.take_progress() == told.model_copy(update={"preview_key": "a/b"})
    attempt.warn(["it is small"])
    warned = told.model_copy(update={"warnings": ["it is small"]})
    assert attempt.take_progress() == warned  # without the preview, which was told
    assert attempt.take_progress() is None


def test_a_method_is_reported_under_its_own_phases_or_that_of_the_job(attempt: Attempt) -> None:
    method: Any = None
    attempt.submit(method, 0)
    attempt.submit(method, 0, phase="preview")
    attempt.submit(method, 0, report=False)
    own, renamed, unheard = attempt.runtime.engine.heard  # type: ignore[attr-defined]
    for hear, phase in ((own, "edit"), (renamed, "preview")):
        hear(Progress("edit", 3, 20, {"loss": 1.0}))
        told = attempt.take_progress()
        assert told is not None
        assert (told.phase, told.step, told.steps, told.facts) == (phase, 3, 20, {"loss": 1.0})
    assert unheard is None


def test_the_rest_of_a_phase_is_told_by_the_steps_that_were_made(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a training that is resumed in the middle, whose steps before took it no time."""
    clock = SimpleNamespace(monotonic=lambda: clock.now, now=0.0)
    monkeypatch.setattr("worker.attempt.time", clock)

    def left(phase: str, step: int, steps: int, seconds: float) -> float | None:
        clock.now += seconds
        attempt.report(phase, step, steps)
        told = attempt.take_progress()
        assert told is not None
        return told.eta_s

    assert left("edit", 0, 10, 5) is None
    assert left("edit", 1, 10, 2) == 18
    assert left("train", 501, 1000, 9) is None
    assert left("train", 511, 1000, 20) == 2 * 489
    assert left("train", 1000, 1000, 489) == 0
    assert left("class images", 8, 8, 1) is None
    assert left("class images", 1, 8, 1) is None  # those of another class
    assert left("class images", 2, 8, 3) == 18


@given(
    budget=st.integers(0, 20),
    asked=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), max_size=60),
)
def test_a_cache_keeps_the_latest_within_its_budget(
    budget: int, asked: list[tuple[int, int]]
) -> None:
    cache: Cache[int] = Cache(budget, lambda size: size)
    model: dict[int, int] = {}  # oldest use first
    for key, size in asked:
        model.pop(key, None)
        cache.put(key, size)
        if size <= budget:
            model[key] = size
            while sum(model.values()) > budget:
                model.pop(next(iter(model)))
        assert cache.bytes == sum(model.values()) <= budget
        assert len(cache) == len(model)
        first = next(iter(model), None)
        if first is not None:  # a read makes it the latest
            assert cache.get(first) == model[first]
            model[first] = model.pop(first)


@pytest.fixture(scope="session")
def base() -> Base:
    return Base.load()


def turns(count: int, seconds: float = 0.0) -> Method[str]:
    for _ in range(count):
        yield Turn()
        time.sleep(seconds)
    return threading.current_thread().name


def test_the_engine_runs_methods_in_its_own_thread_alone(base: Base) -> None:
    engine = EngineThread(base, Metrics(), max_rows=8, patience=30)
    engine.start()
    tickets = [engine.submit(turns(5)) for _ in range(4)]
    assert {t.result(10) for t in tickets} == {"engine"}
    assert engine.alive
    engine.stop()
    assert not engine.alive


def test_the_watchdog_sees_an_engine_that_stands_still(base: Base) -> None:
    stuck = threading.Event()
    engine = EngineThread(base, Metrics(), max_rows=8, patience=0.2, on_stuck=stuck.set)
    engine.start()
    quick = engine.submit(turns(30, 0.02))  # longer than the patience, but never stuck
    quick.result(10)
    assert not stuck.is_set()
    slow = engine.submit(turns(1, 1.0))
    assert stuck.wait(10)
    assert not engine.alive
    slow.result(10)
    engine.stop()


def test_a_methods_error_is_its_own(base: Base) -> None:
    def broken() -> Method[None]:
        yield Turn()
        raise ValueError("mine")

    engine = EngineThread(base, Metrics(), max_rows=8, patience=30)
    engine.start()
    bad, good = engine.submit(broken()), engine.submit(turns(3))
    assert good.result(10) == "engine"
    with pytest.raises(ValueError, match="mine"):
        bad.result(10)
    engine.stop()


def status(port: int, path: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_the_health_port_tells_alive_from_ready() -> None:
    health = Health("127.0.0.1", 0)
    registry = CollectorRegistry()
    Counter("customedit_cups", "Cups.", registry=registry).inc(3)
    assert status(health.port, "/healthz")[0] == 200
    assert status(health.port, "/readyz")[0] == 503
    assert status(health.port, "/metrics")[0] == 404
    health.ready, health.registry = True, registry
    assert status(health.port, "/readyz?verbose=1")[0] == 200
    assert b"customedit_cups_total 3.0" in status(health.port, "/metrics")[1]
    health.alive = lambda: False
    assert status(health.port, "/healthz")[0] == status(health.port, "/readyz")[0] == 503
    assert status(health.port, "/other")[0] == 404
    health.close()


@pytest.mark.parametrize(
    ("kind", "error", "type_", "field"),
    [
        ("edit", InputError("strengths", "is -1"), "input-error", "strengths"),
        ("customize", InputError("training.rate", "is 2"), "input-error", "training.rate"),
        ("edit", torch.OutOfMemoryError("CUDA"), "out-of-memory", None),
        ("customize", TrainingError("the loss is nan"), "training-diverged", "training.rate"),
        ("edit", DeadlineExceeded("late"), "deadline-exceeded", None),
        ("edit", MissingObject("tenants/x"), "input-missing", None),
        ("edit", OtherVersionError("sharpen", "is not known"), "older-worker", "sharpen"),
        ("edit", KeyError("secret"), "internal", None),
    ],
)
def test_errors_become_problems_of_stable_types(
    kind: str, error: Exception, type_: str, field: str | None
) -> None:
    problem = problems.job_error(kind, error)
    assert (problem.type, problem.field) == (type_, field)
    assert "secret" not in problem.detail and "tenants/" not in problem.detail


def test_numbers_that_are_none_are_the_cause_that_is_named() -> None:
    problem = problems.job_error("edit", NumericalError("the latents are not finite at step 3"))
    assert problem.type == "numerical-error" and "latents are not finite" in problem.detail


def test_scratch_of_killed_workers_is_removed(tmp_path: Path) -> None:
    """And none of those that live, in whichever container: process ids say nothing there."""
    program = (
        "import pathlib, worker.runtime as r\n"
        f"print(r.own_scratch(pathlib.Path({str(tmp_path)!r})), flush=True)\n"
        "input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().strip())
        mine, again = own_scratch(tmp_path), own_scratch(tmp_path)
        assert theirs.is_dir() and mine.is_dir() and again.is_dir() and mine != again
        other.kill()
    own_scratch(tmp_path)
    assert not theirs.exists() and mine.is_dir() and again.is_dir()


def test_a_concept_of_the_worker_acts_as_the_one_of_the_library(tmp_path: Path) -> None:
    """Of float32 on a base in bfloat16: rounded whole, its weights would err by their change."""
    base = Base.load(dtype=torch.bfloat16)
    generator = torch.Generator().manual_seed(1)

    def randn(*shape: int) -> torch.Tensor:
        return 0.01 * torch.randn(shape, generator=generator)

    keys, values = (
        {n: base.weights[f"{n}.{part}.weight"] + randn(*base.shapes[n]) for n in base.layers}
        for part in ("to_k", "to_v")
    )
    _, *others = [n for n in layers_of(base.denoiser, UNET) if n.endswith("attn1.to_q")]
    width = {n: layers_of(base.denoiser, UNET)[n].weight.shape[0] for n in others}
    adapters: dict[str, Adapter] = {n: LowRank(randn(w, 4), randn(4, w)) for n, w in width.items()}
    last, layer = others[-1], base.layers[0]
    w = width[last]
    adapters[last] = Hadamard(randn(w, 2), randn(2, w), randn(w, 2), randn(2, w))
    inner, wide = base.shapes[layer]
    adapters[f"{UNET}{layer}.to_k"] = LowRank(randn(inner, 4), randn(4, wide))
    path = tmp_path / "concept.safetensors"
    Concept({"<a>": randn(base.width)}, keys, values, adapters=adapters).save(path)
    attempt = SimpleNamespace(
        tenant="t",
        folder=tmp_path,
        metrics=Metrics(),
        runtime=SimpleNamespace(base=base, concepts=Cache(2**30, concept_bytes), cached_bytes=0),
        storage=SimpleNamespace(download=lambda key, file: shutil.copy(path, file)),
        with_retries=lambda call: call(),
    )
    record = SimpleNamespace(id="c", weights_key="key")
    ours = inputs.loaded(attempt, record)  # type: ignore[arg-type]  # what it reads of both
    theirs = Concept.load(path).for_base(base)
    assert ours.digest == theirs.digest
    assert all(w.dtype == torch.float32 for w in ours.weights.values())
    texts = [base.text("a photo of a <a> cup", [Weighted(c)]) for c in (ours, theirs)]
    for part in ("keys", "values"):
        pairs = zip(*(getattr(text, part) for text in texts), strict=True)
        assert all(torch.equal(mine, wanted) for mine, wanted in pairs)
    x = torch.randn((1, base.channels, 16, 16), generator=generator)
    with torch.no_grad():
        mine, wanted = (base.predict(x, 500, [text]).noise for text in texts)
    assert torch.equal(mine, wanted)
    assert inputs.loaded(attempt, record) is ours  # type: ignore[arg-type]  # from the cache
