"""A tenant's limits, and the secret that signs its webhooks."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request

from api.dependencies import AppContainer, Reader, needs
from api.openapi import refusals
from api.problems import ProblemError
from api.serializers import at
from customedit.schemas import answers as d
from customedit.schemas.fields import MAX_REFERENCES
from customedit.schemas.requests import MAX_BATCH, MAX_OUTPUTS
from customedit.tenants.access import Allowed, ApiKey

router = APIRouter(tags=["account"])
Admin = Annotated[ApiKey, needs("admin")]


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


@router.get(
    "/v1/webhooks/secret",
    operation_id="getWebhookSecret",
    summary="See whether webhooks can be signed",
    response_model=d.WebhookSecret,
    responses=refusals("not-found"),
)
def get_secret(container: AppContainer, caller: Admin) -> d.WebhookSecret:
    """When the secret was made. The secret itself is shown only once, when it is made."""
    secret = container.secrets.get(caller.tenant)
    if secret is None:
        raise ProblemError("not-found", "no secret has been made", limit="make one first")
    return d.WebhookSecret(created_at=at(secret.made_at))


@router.post(
    "/v1/webhooks/secret",
    operation_id="makeWebhookSecret",
    summary="Make a new secret for webhooks",
    response_model=d.WebhookSecret,
    status_code=201,
    responses=refusals(),
)
def make_secret(container: AppContainer, caller: Admin) -> d.WebhookSecret:
    """The secret before it signs as well for a day, so that receivers can change over."""
    secret = container.secrets.make(caller.tenant)
    return d.WebhookSecret(created_at=at(secret.made_at), secret=secret.text)
