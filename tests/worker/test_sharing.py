"""Jobs of all tenants share the engine: fewer calls, equal results, and edits before trainings."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
from PIL import Image

from customedit.concepts.prompts import ConceptPrompts
from customedit.concepts.settings import TrainingSettings
from customedit.concepts.training import train_concept
from customedit.diffusion.base import Base
from customedit.diffusion.method import Method, Progress
from customedit.editing.inversion import invert
from customedit.jobs.records import EditOutcome
from customedit.mini import samples
from worker.engine_thread import EngineThread
from worker.metrics import Metrics
from worker.runtime import EDITS, TRAININGS

from .bench import LOOK, SOURCE, Bench, Workers, until

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
    calls = worker.metric("customedit_unet_calls_total")
    assert calls < 2 * steps / 2

    for k in (0, 9):  # by tenants who find nobody's inversion
        tenants[k % TENANTS] = replace(bench, tenant=f"alone-{k}")
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
    worker.counts("customedit_unet_calls_total", calls + 2 * 2 + 2 * 3)


def test_from_asking_to_the_first_call_it_is_one_training_step_at_most() -> None:
    base = Base.load()
    engine = EngineThread(base, Metrics(), max_rows=8, patience=60)
    engine.start()
    picture = Image.open(SOURCE.image)
    steps = [0]

    def heard(progress: Progress) -> None:
        steps[0] += progress.phase == "train"

    settings = TrainingSettings.of(base, steps=3000, batch=1, crops=1, class_images=0)
    prompts = ConceptPrompts(LOOK.token, LOOK.noun, LOOK.attribute)
    learning = train_concept(base, [picture], prompts, settings)
    training = engine.submit(learning, priority=TRAININGS, on_progress=heard)

    def first_call() -> Method[int]:
        yield from invert(base, base.encode(picture), SOURCE.prompt, steps=1)
        return steps[0]

    until(lambda: steps[0] >= 2, "it trains")
    for _ in range(10):
        ticket = engine.submit(first_call(), priority=EDITS)
        asked = steps[0]
        assert ticket.result(60) - asked <= 1
    training.cancel()
    engine.stop()


def test_edits_overtake_a_training(bench: Bench, workers: Workers) -> None:
    worker = workers.start().ready()
    training = bench.customize(steps=3000, crops=2, class_images=0)
    bench.running(training, "train", 2)
    looked = worker.metric("customedit_unet_calls_total")  # at what the references show
    bench.succeeded(bench.edit(steps=3))
    worker.counts("customedit_unet_calls_total", looked + 6)
    assert bench.get(training).state == "running"
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


def test_features_of_a_source_are_kept_for_their_tenant_alone(
    bench: Bench, workers: Workers
) -> None:
    """The next edit of a picture runs two rows a step; another tenant's runs three."""
    worker = workers.start(features_bytes=2**28).ready()
    red, other = SOURCE.prompt.replace("white", "red"), replace(bench, tenant="other")
    rows, found = 0, list[np.ndarray]()
    for own, target, more in (
        (bench, red, 3 + 3 * 3),  # an inversion, and three rows at each step
        (bench, SOURCE.prompt.replace("white", "blue"), 3 * 2),
        (other, red, 3 + 3 * 3),
        (other, red, 3 * 2),
    ):
        outcome = own.succeeded(own.edit(steps=3, target_prompt=target))
        found.append(pixels(own, EditOutcome.model_validate(outcome)))
        rows += more
        worker.counts("customedit_unet_call_rows_sum", rows)
    assert (found[3] == found[2]).all() and (found[2] == found[0]).all()
    assert worker.metric("customedit_cache_bytes") > 0


def test_a_single_edit_beside_many_of_another_tenant_starts_within_three(
    bench: Bench, workers: Workers
) -> None:
    """Counted in edits of the other tenant that ended between its submission and its start."""
    workers.start(worker_concurrency=2, worker_queues="edit").ready()
    image = bench.image()
    many = [bench.edit(image=image, steps=2, strengths=[k / 50]) for k in range(1, 31)]
    until(lambda: sum(bench.get(j).finished for j in many) >= 4, "some have ended")
    other = replace(bench, tenant="other")
    single = other.edit(steps=2)
    other.succeeded(single)
    record = other.get(single)
    started = record.started_at or 0.0
    waiting = [j for j in many if bench.get(j).state == "queued"]
    ended = [bench.get(j).finished_at or 0.0 for j in many if bench.get(j).finished]
    before = sum(record.queued_at < at < started for at in ended)
    print(f"{before} edits of the other tenant ended first; {len(waiting)} still wait")
    assert before <= 3 and waiting
