"""What a real worker measures becomes the answer of dry runs and jobs."""

from __future__ import annotations

import time
from typing import Any

import pytest

from customedit.client import CustomEdit
from customedit.schemas.answers import DryRun, EditPlan

from .conftest import SOURCE, Service

pytestmark = pytest.mark.timeout(600)  # the first test starts the service


def until_measured(client: CustomEdit, request: dict[str, Any]) -> DryRun:
    """The dry run once the worker has told what it measured, which it does every two seconds."""
    over = time.monotonic() + 30
    while (told := client.try_edit(**request)).estimate.seconds is None:
        assert time.monotonic() < over, told.estimate
        time.sleep(0.3)
    return told


def test_a_worker_measures_itself(service: Service, client: CustomEdit) -> None:
    request: dict[str, Any] = {
        "image": client.upload(SOURCE.image).id,
        "source_prompt": SOURCE.prompt,
        "target_prompt": SOURCE.colour_prompt,
        "steps": 12,
    }
    for steps in (6, 10):
        client.wait(client.edit(**request | {"steps": steps}), timeout=100)
    told = until_measured(client, request)
    assert told.estimate.workers == 1 and told.estimate.unknown is None
    assert told.queue_position == 0 and told.warnings == []
    assert isinstance(told.plan, EditPlan) and told.plan.base is not None
    assert told.plan.base.name == "mini" and told.plan.working_size == (128, 128)
    assert told.plan.guidance is not None
    job = client.wait(client.edit(**request), timeout=100)
    assert job.finished_at is not None and job.estimate is None
    took = (job.finished_at - job.created_at).total_seconds()
    print(f"told {told.estimate.seconds} s, took {took:.2f} s")
    more = client.try_edit(**request | {"strengths": [0.3, 0.5, 0.7]})
    less = client.try_edit(**request | {"steps": 6})
    assert more.estimate.run_seconds and less.estimate.run_seconds
    assert more.estimate.run_seconds > less.estimate.run_seconds > 0
