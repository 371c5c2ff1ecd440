"""Requests for API keys, and what keys may do."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self, get_args

from pydantic import Field, model_validator

from customedit.schemas.fields import NUMBER, Name, RequestModel
from customedit.schemas.validation import field_rule

Scope = Literal["images:write", "edits:write", "concepts:write", "read", "admin"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
USUAL_SCOPES: Final[tuple[Scope, ...]] = ("images:write", "edits:write", "concepts:write", "read")
MAX_DAYS: Final = 36_500


class KeyRequest(RequestModel):
    """Make an API key."""

    name: Annotated[Name, Field(description="A note to find it again.")] = ""
    scopes: Annotated[
        list[Scope],
        Field(
            min_length=1,
            max_length=len(SCOPES),
            description="What it may do; `admin` includes all others, and keys and the secret of "
            "webhooks.",
            json_schema_extra={"uniqueItems": True},
        ),
    ] = list(USUAL_SCOPES)
    days: Annotated[
        float | None,
        Field(
            gt=0,
            le=MAX_DAYS,
            description="Days until it expires; left out, as long as the key that makes it.",
        ),
        NUMBER,
    ] = None

    @model_validator(mode="after")
    def _scopes_differ(self) -> Self:
        if len(set(self.scopes)) < len(self.scopes):
            raise field_rule("scopes", "name one twice", "give each scope once")
        return self
