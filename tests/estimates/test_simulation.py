"""Lines through measurements, the work of requests, and the queue played on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from customedit.diffusion.profile import Sizes
from customedit.estimates import simulation, speed
from customedit.estimates.simulation import Machine, Waiting, play
from customedit.estimates.speed import Line, Speed
from customedit.estimates.work import Stage, Work, edit_work, inversion_mark
from customedit.estimates.workers import WorkerBase, WorkerReport, joined, joined_by_machine
from customedit.schemas.answers import JobKind
from customedit.schemas.requests import EditRequest

from . import reference

KINDS: tuple[JobKind, ...] = ("edit", "customize", "import")
BASE = WorkerBase(
    name="mini", fingerprint="f", device="cpu", dtype="float32", guidance=4.0,
    sizes=Sizes(side=128, multiple=16, factor=8), rows=24, cells=8192,
)  # fmt: skip


def line(*points: tuple[float, float]) -> Line:
    made = Line()
    for amount, seconds in points:
        made.add(amount, seconds, 1.0)
    return made


@given(st.floats(0, 5), st.floats(0.01, 5), st.floats(0, 20))
def test_a_line_is_found_again(start: float, slope: float, amount: float) -> None:
    made = line(*((x, start + slope * x) for x in (1, 3, 3, 9)))
    assert made.seconds(amount) == pytest.approx(start + slope * amount, rel=1e-6, abs=1e-6)


def test_what_was_not_measured_is_not_made_up() -> None:
    assert Line().seconds(1) is None
    assert line((3, 6), (3, 6)).seconds(6) == pytest.approx(12)  # in proportion
    assert line((1, 9), (9, 1)).seconds(5) == pytest.approx(5)  # more work is never faster


def test_the_newest_count_most() -> None:
    made = Line()
    for _ in range(200):
        made.add(1, 10.0, speed.JOBS)
    for _ in range(30):
        made.add(1, 1.0, speed.JOBS)
    assert made.seconds(1) == pytest.approx(1.0, rel=0.5)


def request(**more: object) -> EditRequest:
    fields = {"image": "img_" + "0" * 64, "source_prompt": "a", "target_prompt": "b", **more}
    return EditRequest.model_validate(fields)


@pytest.mark.parametrize(
    ("more", "stages"),
    [
        ({}, [("invert", 50, 1), ("edit", 50, 3)]),
        ({"steps": 10, "strengths": [0.2, 0.4]}, [("invert", 10, 1), ("edit", 10, 5)]),
        ({"guidance_start": 0.5}, [("invert", 50, 1), ("edit", 50, 2.5)]),
        ({"method": "masactrl"}, [("invert", 50, 1), ("edit", 50, 3)]),
        ({"method": "ddpm", "seeds": [1, 2]}, [("edit", 32, 8)]),
        (
            {"change": "auto", "references": ["img_" + "1" * 64]},
            [("invert", 50, 1), ("edit", 50, 16.6)],
        ),
        ({"inversion": "ddim"}, [("invert", 50, 1), ("edit", 50, 4)]),
        ({"change": 0.25}, [("invert", 50, 1), ("edit", 25, 3)]),
        ({"change": 0.25, "guidance_end": 0.5}, [("invert", 50, 1), ("edit", 25, 2)]),
        ({"change": 0.25, "guidance_end": 0.6}, [("invert", 50, 1), ("edit", 25, 2.2)]),
        ({"method": "sdedit", "strengths": [0.5], "guidance_start": 0.5}, [("edit", 25, 2)]),
        ({"change": 0}, []),
        ({"method": "sdedit", "strengths": [0.6], "seeds": [1, 2]}, [("edit", 30, 4)]),
        ({"method": "sdedit", "steps": 10, "strengths": [0.31]}, [("edit", 3, 2)]),
        ({"method": "flowedit", "strengths": [0.5]}, [("edit", 25, 4)]),
        ({"method": "flowedit", "seeds": [1, 2], "flowedit": {"samples": 2}}, [("edit", 33, 16)]),
    ],
)
def test_the_work_of_an_edit(more: dict[str, object], stages: list[tuple[str, int, int]]) -> None:
    work = edit_work(request(**more), 256, inverted=False)
    assert [(s.phase, s.rounds, s.rows) for s in work.stages] == stages


def test_null_text_is_fitted_where_guidance_acts_and_no_inversion_of_another_interval() -> None:
    some = request(inversion="null-text", steps=10, guidance_start=0.2, guidance_end=0.7)
    stages = edit_work(some, 256, inverted=False).stages
    assert [(s.phase, s.rounds, s.rows) for s in stages] == [
        ("invert", 10, 1), ("null-text", 15, 1), ("null-text", 50, 0), ("edit", 10, 3),
    ]  # fmt: skip
    every = request(inversion="null-text", steps=10)
    assert inversion_mark(some) != inversion_mark(every)
    plain = request(steps=10)
    assert inversion_mark(plain) == inversion_mark(request(steps=10, guidance_end=0.7, guidance=3))


LINES = {
    speed.call(256): line((1, 0.02), (3, 0.04)),  # 0.01 + 0.01 a row
    speed.turn("t"): line((1, 0.1)),
    "edit": line((1, 0.5), (2, 1.0)),
}


def machine(slots: int, kinds: Sequence[JobKind] = KINDS, lines: Speed = LINES) -> Machine:
    return Machine(slots, BASE, kinds, lines)


def edit(id: str, rounds: float = 50, rows: int = 3) -> Waiting:
    return Waiting(id, Work("edit", (Stage("edit", rounds, rows, 256),)))


def test_one_job_alone() -> None:
    spans = play([machine(8)], [[edit("a")]])
    assert spans["a"].starts == 0
    assert spans["a"].ends == pytest.approx(50 * 0.04 + 0.5)


def test_jobs_side_by_side_share_a_call() -> None:
    spans = play([machine(8)], [[edit("a"), edit("b")]])
    assert spans["a"].ends == spans["b"].ends == pytest.approx(50 * 0.07 + 0.5)


def test_a_job_waits_for_a_slot() -> None:
    spans = play([machine(1)], [[edit("a"), edit("b")]])
    assert spans["b"].starts == spans["a"].ends == pytest.approx(2.5)
    two = play([machine(1), machine(1)], [[edit("a"), edit("b")]])
    assert two["b"].starts == 0


def test_a_job_runs_where_its_kind_is_taken() -> None:
    trainer, editor = machine(8, KINDS[1:]), machine(1, KINDS[:1])
    spans = play([editor, trainer], [[edit("a"), edit("b")]])
    assert spans["b"].starts == spans["a"].ends
    assert play([machine(0, ())], [[edit("a")]]) == {}


def test_each_machine_has_its_own_speed() -> None:
    slow = {name: fast.scaled(40) for name, fast in LINES.items()}
    queue = [edit("a"), edit("b"), edit("c")]
    spans = play([machine(1, lines=slow), machine(1)], [queue], [(0, edit("under way"))])
    assert spans["under way"].ends == pytest.approx(40 * 2.5)
    assert [spans[name].ends for name in "abc"] == pytest.approx([2.5, 5.0, 7.5])
    spans = play([machine(1), machine(1, lines=slow)], [queue])
    assert [spans[name].ends for name in "abc"] == pytest.approx([2.5, 100, 5.0])


def test_a_machine_that_measured_nothing_is_taken_as_all_are_on_average() -> None:
    def report(name: str, device: str, speed: Speed) -> WorkerReport:
        base = BASE.model_copy(update={"device": device})
        return WorkerReport(name=name, kinds=KINDS, slots=1, base=base, speed=speed)

    quick, slow = {"call:256": line((3, 0.06))}, {"call:256": line((3, 2.4))}
    reports = [
        report("a", "cuda", quick), report("b", "cuda", quick | {"turn:t": line((1, 0.1))}),
        report("c", "cpu", slow), report("d", "mps", {}),
    ]  # fmt: skip
    cuda, _, cpu, mps = (r.base.machine for r in reports)
    found = joined_by_machine(reports)
    told = {m: found[m]["call:256"].seconds(3) for m in (cuda, cpu, mps)}
    assert told == pytest.approx({cuda: 0.06, cpu: 2.4, mps: (2 * 0.06 + 2.4) / 3})
    assert {found[m]["turn:t"].seconds(1) for m in (cuda, cpu, mps)} == {0.1}  # of those that know
    assert all(found[m].keys() == joined(reports).keys() for m in (cuda, cpu, mps))


def test_more_rows_than_fit_take_several_calls() -> None:
    spans = play([machine(8)], [[edit("a", rounds=10, rows=48)]])
    assert spans["a"].ends == pytest.approx(10 * 2 * 0.25 + 0.5)


def test_a_training_adds_its_step_to_each_round() -> None:
    training = Waiting("t", Work("customize", (Stage("train", 100, label="t"),)))
    spans = play([machine(8)], [[edit("a")], [training]])
    assert spans["a"].ends == pytest.approx(50 * 0.14 + 0.5)
    assert spans["t"].ends == pytest.approx(50 * 0.14 + 50 * 0.1)


def test_what_is_not_measured_keeps_its_slot() -> None:
    odd = Waiting("odd", Work("edit", (Stage("edit", 1, 1, 999),)))
    spans = play([machine(2)], [[odd, edit("a"), edit("b")]])
    assert "odd" not in spans and spans["b"].starts == spans["a"].ends
    assert play([machine(1)], [[odd, edit("a")]]) == {}


MEASURED = LINES | {
    speed.call(1024): line((1, 0.05), (4, 0.17)),
    speed.turn("u"): line((1, 0.3)),
    "customize": line((1, 2.0)),
    "import": line((1, 1.5)),
}
SLOW = {name: fast.scaled(3) for name, fast in MEASURED.items()}
stages = st.one_of(
    st.builds(
        Stage,
        phase=st.just("edit"),
        rounds=st.integers(0, 40).map(lambda n: n / 3),
        rows=st.integers(1, 40).map(lambda n: n / 2),
        cells=st.sampled_from([256, 256, 1024, 999]),  # the last was never measured
    ),
    st.builds(
        Stage,
        phase=st.just("train"),
        rounds=st.integers(0, 40).map(float),
        label=st.sampled_from(["t", "u"]),
    ),
)


def works(kinds: tuple[JobKind, ...]) -> st.SearchStrategy[Work]:
    return st.builds(
        Work,
        kind=st.sampled_from(kinds),
        stages=st.lists(stages, max_size=3).map(tuple),
        pictures=st.integers(1, 3),
    )


@given(
    shapes=st.lists(
        st.tuples(
            st.integers(1, 4), st.sets(st.sampled_from(KINDS)), st.sampled_from([MEASURED, SLOW])
        ),
        min_size=1,
        max_size=4,
    ),
    under_way=st.lists(st.tuples(st.integers(0, 3), works(KINDS)), max_size=6),
    edits=st.lists(works(("edit",)), max_size=9),
    others=st.lists(works(("customize", "import")), max_size=5),
)
def test_the_queue_is_played_as_the_plain_way_does(
    shapes: list[tuple[int, set[JobKind], Speed]], under_way: list[tuple[int, Work]],
    edits: list[Work], others: list[Work],
) -> None:  # fmt: skip
    queues = [
        [Waiting(f"{name}{k}", work) for k, work in enumerate(queue)]
        for name, queue in (("e", edits), ("o", others))
    ]
    running = [
        (number % len(shapes), Waiting(f"r{k}", work)) for k, (number, work) in enumerate(under_way)
    ]
    spans, plain = (
        does([machine(*shape) for shape in shapes], queues, running)
        for does in (play, reference.play)
    )
    assert spans.keys() == plain.keys()
    for name, span in plain.items():
        assert spans[name].starts == pytest.approx(span.starts, abs=1e-4)
        assert spans[name].ends == pytest.approx(span.ends, abs=1e-4)


def test_an_event_costs_the_work_of_its_own_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred workers, all their slots taken, and three hundred jobs that wait."""
    workers, slots, waiting = 100, 8, 300
    work = edit_work(request(), 256, inverted=False)
    planned, plan = [0], simulation._next_event

    def counted(*given: object) -> object:
        planned[0] += 1
        return plan(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(simulation, "_next_event", counted)
    under_way = []
    for k in range(workers * slots):  # at different rests
        share = 0.1 + 0.9 * (k % 37) / 37
        rest = tuple(replace(s, rounds=s.rounds * share) for s in work.stages)
        under_way.append((k // slots, Waiting(f"r{k}", replace(work, stages=rest))))
    queue = [Waiting(f"w{k}", work) for k in range(waiting)]
    machines = [machine(slots) for _ in range(workers)]
    spans = play(machines, [queue], under_way)
    assert len(spans) == workers * slots + waiting
    changes = len(work.stages) + 1  # of each job: the ends of its stages, and its own
    assert planned[0] <= workers + len(spans) * changes + waiting
