"""What answers have in common: the base of all, pages of lists, problems; and health."""

from __future__ import annotations

from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Item = TypeVar("Item")


class Document(BaseModel):
    """Base of all answers: fields of a newer service are passed over."""

    model_config = ConfigDict(extra="ignore")


class FieldProblem(Document):
    """One thing that is wrong with a request. field: its name, with dots and indices."""

    field: str
    problem: str
    limit: str


class Problem(Document):
    """What went wrong (RFC 9457). type: stable, a page of this service that says what to do."""

    type: Annotated[str, Field(examples=["/problems/validation"])]
    title: str
    status: int
    detail: str = ""
    instance: Annotated[str | None, Field(description="The path of the request.")] = None
    field: Annotated[str | None, Field(description="The first field that is wrong.")] = None
    limit: Annotated[str | None, Field(description="What that field must keep to.")] = None
    errors: list[FieldProblem] = Field(default_factory=list)
    request_id: str | None = None


class Page(Document, Generic[Item]):
    """Some of a list, newest first. next_cursor: for the next page; null on the last."""

    items: list[Item]
    next_cursor: str | None = None


class Health(Document):
    """Whether the service works; checks: of each part, ``ok`` or what is wrong.

    warnings: by store, what it refuses or soon will, though most requests are served.
    """

    status: Literal["ok", "unavailable"]
    version: str
    checks: dict[str, str] = Field(default_factory=dict)
    warnings: dict[str, str] = Field(default_factory=dict)
