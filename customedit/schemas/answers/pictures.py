"""Pictures and concepts as the API answers them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from customedit.schemas.answers.basics import Document

ConceptState = Literal["training", "ready", "failed"]


class Image(Document):
    """An uploaded picture. id: by the file's contents, so the same file is one image.

    width, height: of the picture upright, as its EXIF says it is to be turned.
    """

    id: str
    name: Annotated[
        str,
        Field(
            description="What its file was called when it was first sent, at most 200 characters; "
            "empty for outputs and where no name was given. Many images may have the same."
        ),
    ] = ""
    media_type: str
    bytes: int
    width: int
    height: int
    created_at: datetime
    url: str
    warnings: Annotated[
        list[str], Field(description="What of the file is passed over or missing.")
    ] = Field(default_factory=list)


class Upload(Document):
    """A form to send a file straight to the store: POST ``fields`` and then ``file`` to ``url``."""

    id: str
    url: str
    fields: dict[str, str]
    max_bytes: int
    expires_at: datetime


class Concept(Document):
    """A concept: a look that the service has learned, or is learning."""

    id: str
    name: str
    token: Annotated[str, Field(description="What prompts call it.", examples=["<look>"])]
    noun: str
    attribute: str
    state: ConceptState
    job: Annotated[str, Field(description="The job that makes it.")]
    references: list[str]
    base: str
    bytes: int
    created_at: datetime
    ready_at: datetime | None = None
    preview_url: str | None = None
    recipe: dict[str, Any] = Field(default_factory=dict)
    warnings: list[str] = Field(default_factory=list)


class Weights(Document):
    """Where the file of a concept can be had."""

    format: Literal["customedit", "diffusers"]
    filename: str
    url: str
    expires_at: datetime


class OpenAIImage(Document):
    """A picture as OpenAI's images API answers it: one of the two."""

    b64_json: str | None = None
    url: str | None = None


class OpenAIImages(Document):
    """The answer of OpenAI's images API. created: seconds since 1970."""

    created: int
    data: list[OpenAIImage]
    background: Literal["opaque"] = "opaque"
    output_format: Literal["png", "jpeg", "webp"] = "png"
    size: str | None = None
