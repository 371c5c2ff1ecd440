"""What a tenant has: limits, API keys, webhooks, and settings saved under a name."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from customedit.schemas.answers.basics import Document

DeliveryState = Literal["pending", "delivered", "failed"]


class Preset(Document):
    """Settings of edits under a name. settings: those that were given, as an edit takes them."""

    name: str
    settings: dict[str, Any]
    saved_at: datetime


class WebhookSecret(Document):
    """The secret that signs webhooks (Standard Webhooks). secret: only shown when it is made."""

    created_at: datetime | None = None
    secret: str | None = None


class WebhookDelivery(Document):
    """How the webhook of a job is delivered. Times are null for what has not happened.

    state: `waiting` while its job is not finished; `pending` until it has arrived, with
    `next_attempt_at`; `delivered`; `failed`: it was given up; `unknown`: the job ended before the
    service lost its records.
    """

    job: str
    url: str
    state: Literal["waiting", "unknown"] | DeliveryState
    attempts: int
    finished_at: Annotated[datetime | None, Field(description="The end of the job.")] = None
    last_attempt_at: datetime | None = None
    last_status: Annotated[
        int | None, Field(description="Of the receiver's last answer over HTTP.")
    ] = None
    last_problem: Annotated[str | None, Field(description="Why the last attempt failed.")] = None
    next_attempt_at: datetime | None = None


class ApiKey(Document):
    """An API key, without its secret."""

    id: str
    prefix: Annotated[
        str, Field(description="What its text begins with; the rest is kept nowhere.")
    ]
    name: str
    scopes: list[str]
    state: Literal["valid", "revoked", "expired"]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: Annotated[datetime | None, Field(description="To the minute, about.")] = None
    made_by: Annotated[
        str | None,
        Field(description="Id of the key it was made with; null: whoever runs the service did."),
    ] = None
    current: Annotated[bool, Field(description="Whether this request came with it.")] = False


class NewApiKey(ApiKey):
    """An API key that was just made. key: its text, which is shown this once."""

    key: str


class Limits(Document):
    """What a tenant may do, and how much of it is left."""

    tenant: str
    scopes: list[str]
    requests_per_minute: int
    requests_left: int
    jobs_at_once: int
    jobs_now: int
    max_upload_bytes: int
    max_upload_pixels: int
    max_import_bytes: int
    max_references: int
    max_edits_per_job: int
    max_pictures_per_batch: int
