"""Jobs of all tenants share the engine: fewer calls, equal results, and edits before trainings."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
from PIL import Image

from customedit.mini import samples
from customedit.platform.records import EditOutcome

from .bench import Bench, Workers, until

TENANTS = 8


def pixels(bench: Bench, outcome: EditOutcome) -> np.ndarray:
    data = bench.storage.get(outcome.outputs[0].image_key)
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.int16)


def test_edits_of_many_tenants_share_calls_and_come_out_as_alone(
    bench: Bench, workers: Workers
) -> None:
    worker = workers.start(worker_concurrency=16, engine_rows=48).ready()
    sources = samples.sources()[:16:2]
    tenants = [replace(bench, tenant=f"tenant-{k}") for k in range(TENANTS)]

    def ask(number: int) -> str:
        own, source = tenants[number % TENANTS], sources[number % TENANTS]
        return own.edit(
            image=own.image(source.image),
            source_prompt=source.prompt,
            target_prompt=source.colour_prompt,
            steps=2 + number // TENANTS,  # so that none finds another's inversion
        )

    def result(number: int, job_id: str) -> EditOutcome:
        return EditOutcome.model_validate(tenants[number % TENANTS].succeeded(job_id))

    together = [ask(k) for k in range(16)]
    merged = [result(k, j) for k, j in enumerate(together)]
    steps = sum(2 + k // TENANTS for k in range(16))
    worker.counts("customedit_unet_call_rows_sum", 4 * steps)  # 1 to invert, 3 to edit
    assert worker.metric("customedit_unet_calls_total") < 2 * steps / 2

    alone = workers.start(worker_concurrency=1, cache_bytes=0).ready()
    worker.kill()
    for k in (0, 9):
        bench.storage.delete_prefix(f"tenants/{tenants[k % TENANTS].tenant}/inversions/")
        apart = result(k, ask(k))
        difference = np.abs(pixels(bench, apart) - pixels(bench, merged[k]))
        assert difference.max() <= 1  # of 255
        assert (
            abs(
                (apart.outputs[0].similarities.source or 0)
                - (merged[k].outputs[0].similarities.source or 0)
            )
            < 1e-3
        )
    alone.counts("customedit_unet_calls_total", 2 * 2 + 2 * 3)


def test_an_edit_starts_within_a_step_of_a_training(bench: Bench, workers: Workers) -> None:
    worker = workers.start().ready()
    training = bench.customize(steps=3000, crops=2, class_images=0)
    bench.running(training, "train", 2)
    bench.succeeded(bench.edit(steps=3))
    worker.counts("customedit_unet_calls_total", 6)
    progress = bench.get(training).progress
    assert progress is not None and progress.step < 3000
    # one turn of the training each tick at most: between two calls for the edit lies one step
    ticks = worker.metric("customedit_engine_tick_seconds_count")
    assert progress.step <= ticks
    bench.jobs.cancel(bench.tenant, training)
    assert bench.finished(training).state == "cancelled"


def test_trainings_leave_room_for_edits(bench: Bench, workers: Workers) -> None:
    worker = workers.start(worker_concurrency=2).ready()
    trainings = [bench.customize(steps=3000, crops=1, class_images=0) for _ in range(3)]
    until(lambda: any(bench.get(t).state == "running" for t in trainings), "one begins")
    bench.succeeded(bench.edit(steps=1))
    states = sorted(bench.get(t).state for t in trainings)
    assert states == ["queued", "queued", "running"]
    first = next(t for t in trainings if bench.get(t).state == "running")
    bench.jobs.cancel(bench.tenant, first)
    others = [t for t in trainings if t != first]
    until(lambda: any(bench.get(t).state == "running" for t in others), "the next one begins")
    for t in others:
        bench.jobs.cancel(bench.tenant, t)
    for t in trainings:
        assert bench.finished(t).state == "cancelled"
    assert worker.alive


def test_inversions_and_concepts_are_found_again(bench: Bench, workers: Workers) -> None:
    worker = workers.start().ready()
    bench.succeeded(bench.edit(steps=3))
    bench.succeeded(bench.edit(steps=3, strengths=[0.7]))
    worker.counts("customedit_unet_calls_total", 3 + 3 + 3)  # inverted once
    other = workers.start().ready()
    worker.kill()
    bench.succeeded(bench.edit(steps=3, strengths=[0.2]))
    other.counts("customedit_unet_calls_total", 3)  # found in S3
