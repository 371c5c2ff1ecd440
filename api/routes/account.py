"""A tenant's limits."""

from __future__ import annotations

from fastapi import APIRouter, Request

from api.dependencies import AppContainer, Reader
from api.openapi import refusals
from customedit.schemas import answers as d
from customedit.schemas.fields import MAX_REFERENCES
from customedit.schemas.requests import MAX_BATCH, MAX_OUTPUTS
from customedit.tenants.access import Allowed

router = APIRouter(tags=["account"])


@router.get(
    "/v1/limits",
    operation_id="getLimits",
    summary="Read your limits",
    response_model=d.Limits,
    responses=refusals(),
)
def get_limits(request: Request, container: AppContainer, caller: Reader) -> d.Limits:
    """How much you may send and request, and what is left of it now."""
    settings = container.settings
    allowed: Allowed = request.state.allowed
    return d.Limits(
        tenant=caller.tenant,
        scopes=sorted(caller.scopes),
        requests_per_minute=allowed.limit,
        requests_left=allowed.remaining,
        jobs_at_once=settings.queue_limit_per_tenant,
        jobs_now=container.jobs.open_jobs(caller.tenant),
        max_upload_bytes=settings.max_upload_bytes,
        max_upload_pixels=settings.max_upload_pixels,
        max_import_bytes=settings.max_import_bytes,
        max_references=MAX_REFERENCES,
        max_edits_per_job=MAX_OUTPUTS,
        max_pictures_per_batch=MAX_BATCH,
    )
