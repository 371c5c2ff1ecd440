"""Webhooks: the secret that signs them, and how each was delivered."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from api.dependencies import AppContainer, Cursor, JobId, Limit, Reader, needs
from api.openapi import refusals
from api.problems import ProblemError
from api.routes.jobs import owned_job
from api.serializers import at, when
from customedit.jobs.deliveries import Delivery
from customedit.schemas import answers as d
from customedit.schemas.answers import DeliveryState
from customedit.tenants.access import ApiKey

router = APIRouter(tags=["webhooks"])
Admin = Annotated[ApiKey, needs("admin")]
StateFilter = Annotated[DeliveryState | None, Query(description="Only those in this state.")]


def _document(delivery: Delivery) -> d.WebhookDelivery:
    return d.WebhookDelivery(
        job=delivery.job,
        url=delivery.url,
        state=delivery.state,
        attempts=delivery.tries,
        finished_at=at(delivery.ended_at),
        last_attempt_at=when(delivery.tried_at),
        last_status=delivery.status,
        last_problem=delivery.problem,
        next_attempt_at=when(delivery.next_at),
    )


@router.get(
    "/v1/webhooks/deliveries",
    operation_id="listDeliveries",
    summary="List how webhooks were delivered",
    response_model=d.Page[d.WebhookDelivery],
    responses=refusals("validation"),
)
def list_deliveries(
    container: AppContainer,
    caller: Reader,
    state: StateFilter = None,
    cursor: Cursor = None,
    limit: Limit = 20,
) -> d.Page[d.WebhookDelivery]:
    """Those of jobs that have ended, the newest jobs first, as long as the jobs are kept."""
    page = container.deliveries.list(caller.tenant, state=state, cursor=cursor, limit=limit)
    items = [_document(delivery) for delivery in page.items]
    return d.Page(items=items, next_cursor=page.next_cursor)


@router.get(
    "/v1/jobs/{id}/webhook",
    operation_id="getDelivery",
    summary="See how the webhook of a job was delivered",
    response_model=d.WebhookDelivery,
    responses=refusals("not-found", "validation"),
)
def get_delivery(id: JobId, container: AppContainer, caller: Reader) -> d.WebhookDelivery:
    """Whether it has arrived, what the receiver said last, and when it is sent again."""
    job = owned_job(container, caller, id)
    if job.webhook is None:
        raise ProblemError(
            "not-found", f"{id} names no webhook", field="id", limit="a job with a webhook"
        )
    delivery = container.deliveries.get(caller.tenant, id)
    if delivery is not None:
        return _document(delivery)
    return d.WebhookDelivery(
        job=id,
        url=job.webhook,
        state="unknown" if job.finished else "waiting",
        attempts=0,
        finished_at=when(job.finished_at),
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
