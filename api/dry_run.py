"""Dry runs: what a request would do, with every default resolved, and how long it would take."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from api.problems import input_problem
from api.serializers import estimate, warnings
from customedit.editing.settings import CheckedRequest
from customedit.errors import InputError
from customedit.estimates.forecasts import Forecast
from customedit.estimates.work import training_settings
from customedit.estimates.workers import WorkerBase
from customedit.jobs.records import ConceptRecord, JobRecord
from customedit.schemas import answers as d
from customedit.schemas.concepts import CustomizeRequest
from customedit.schemas.requests import EditRequest

if TYPE_CHECKING:
    from api.dependencies import Container  # which imports the serializers

FINISHED_OR_DRY: Final = (
    "A job that finished within the wait that was preferred, or the answer of a dry run."
)
Plan = d.EditPlan | d.CustomizePlan


def dry_run_of(
    container: Container, record: JobRecord, plan_on: Callable[[WorkerBase | None], Plan]
) -> d.DryRun:
    """The answer of a dry run. record: the job that would be made; plan_on: its plan on a base.

    Raises:
        ProblemError: the base cannot do it.
    """
    worker = container.forecasts.base()
    plan = plan_on(None if worker is None else worker.base)
    forecast = container.forecasts.would_be(record)
    return d.DryRun(
        plan=plan,
        estimate=estimate(forecast),
        queue_position=forecast.position or 0,
        warnings=[
            *warnings(record.kind, record.request.get("references", ())),
            *_of_the_service(container, record, forecast),
            *(_of_the_size(plan) if isinstance(plan, d.EditPlan) else ()),
        ],
    )


def _of_the_service(container: Container, record: JobRecord, forecast: Forecast) -> list[str]:
    found = []
    if not forecast.workers and forecast.unknown:
        found.append(f"{forecast.unknown} The job would wait for one.")
    limit = container.settings.queue_limit_per_tenant
    if container.jobs.open_jobs(record.tenant) >= limit:
        found.append(f"{limit} of your jobs are queued or running: the request would be refused.")
    return found


def _of_the_size(plan: d.EditPlan) -> list[str]:
    if plan.size is None or plan.working_size is None:
        return []
    given, drawn = plan.size, plan.working_size
    if given[0] * given[1] <= drawn[0] * drawn[1]:
        return []
    return [
        f"The picture of {given[0]} x {given[1]} pixels is drawn at {drawn[0]} x {drawn[1]} and "
        "scaled up again."
    ]


def edit_plan(
    request: EditRequest,
    checked: CheckedRequest,
    concepts: Sequence[ConceptRecord],
    size: tuple[int, int] | None,
    base: WorkerBase | None,
) -> d.EditPlan:
    """The plan of an edit. size: (width, height) of its picture, None if that is not known."""
    guidance = request.guidance
    if guidance is None and base is not None:
        guidance = base.guidance
    working = None if base is None or size is None else base.working_size(size)
    feather = checked.own_feather
    if size is not None and working is not None:
        feather = checked.feather_width(size, working)
    settings = checked.settings
    of_each = ("strength", "start")  # they stand with each picture
    facts = dataclasses.asdict(settings)
    shown = {name: value for name, value in facts.items() if name not in of_each}
    return d.EditPlan(
        source_prompt=request.source_prompt,
        target_prompt=request.target_prompt,
        method=request.method,
        pictures=[
            d.PlannedPicture(
                strength=strength.strength, start=strength.start, change=change, seed=seed
            )
            for strength, change in zip(checked.strengths, checked.changes, strict=True)
            for seed in checked.seeds
        ],
        steps=request.steps,
        guidance=guidance,
        inversion=None if checked.p2p is None else request.inversion,
        settings=shown,
        region_words=list(settings.blend_words),
        everywhere=request.everywhere,
        preserve=checked.preserve,
        outline=checked.outline,
        feather=feather,
        concepts=[
            d.PlannedConcept(
                id=use.id, token=record.token, weight=use.weight, box=use.box, mask=use.mask
            )
            for use, record in zip(request.concepts, concepts, strict=True)
        ],
        mask=request.mask is not None,
        size=size,
        working_size=working,
        base=_summary(base),
    )


def customize_plan(request: CustomizeRequest, base: WorkerBase | None) -> d.CustomizePlan:
    """The plan of a customization.

    Raises:
        ProblemError: the base trains in no such way.
    """
    try:
        training = None if base is None else training_settings(base, request)
    except InputError as error:
        raise input_problem(error) from None
    return d.CustomizePlan(
        token=request.token,
        noun=request.noun,
        attribute=request.attribute,
        references=len(request.references),
        training=training,
        base=_summary(base),
    )


def _summary(base: WorkerBase | None) -> d.BaseSummary | None:
    if base is None:
        return None
    return d.BaseSummary(name=base.name, architecture=base.architecture, side=base.sizes.side)
