"""OpenAI's images edit API over our own: its options, its masks, its errors.

An option that is not known here, or a value that has no effect, is refused; none is passed over.
"""

from __future__ import annotations

import base64
import io
from typing import Annotated, Any, Final, Literal

from fastapi.responses import JSONResponse
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from api.problem_types import ProblemType
from customedit.schemas import patterns
from customedit.schemas.requests import MAX_SEEDS

PATH: Final = "/v1/images/edits"
MODEL: Final = "custom-edit"
"""The model's name, beside that of the base that a worker runs."""

_STATUS: Final = {409: 400, 422: 400}
_TYPES: Final = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_AGAIN: Final = (429, 503)


class ImageEditForm(BaseModel):
    """The fields beside the files: OpenAI's, and after ``stream`` ones of ours."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: Annotated[
        str,
        Field(
            min_length=1,
            max_length=1000,
            pattern=r"\S",
            description="What the picture shall show; it names concepts by their tokens.",
        ),
    ]
    model: Annotated[
        str | None,
        Field(max_length=200, description=f"`{MODEL}`, or the base's name; left out, the same."),
    ] = None
    n: Annotated[int, Field(ge=1, le=MAX_SEEDS, description="Pictures, of as many seeds.")] = 1
    size: Annotated[
        str | None,
        Field(
            pattern=patterns.PIXELS,
            description="`auto`, or the size of the picture: an edit has the size of its source.",
        ),
    ] = None
    response_format: Annotated[
        Literal["b64_json", "url"],
        Field(description="The picture itself, or an address that reads it for some minutes."),
    ] = "b64_json"
    output_format: Annotated[
        Literal["png", "jpeg", "webp"], Field(description="Of the files; with `url`, png.")
    ] = "png"
    output_compression: Annotated[
        int | None, Field(ge=0, le=100, description="Quality of jpeg and webp; left out, 100.")
    ] = None
    background: Annotated[Literal["auto", "opaque"], Field(description="Pictures are opaque.")] = (
        "auto"
    )
    quality: Annotated[Literal["auto"], Field(description="There is one quality.")] = "auto"
    stream: Annotated[Literal["false"], Field(description="Answers come whole.")] = "false"
    source_prompt: Annotated[
        str,
        Field(
            max_length=1000,
            description="What the picture shows: then Prompt-to-Prompt keeps its shapes, and gives "
            "one picture. Left out, sdedit paints anew from seeds.",
        ),
    ] = ""
    change: Annotated[
        float | None, Field(ge=0, le=1, description="How much changes; left out, the default.")
    ] = None
    steps: Annotated[int, Field(ge=1, le=200, description="DDIM steps.")] = 50
    seed: Annotated[int, Field(ge=0, le=2**31, description="The first seed.")] = 0


def encoded(png: bytes, form: ImageEditForm) -> str:
    """A picture of ours in the format that is wished for, as base64."""
    if form.output_format != "png":
        quality = 100 if form.output_compression is None else form.output_compression
        stream = io.BytesIO()
        with Image.open(io.BytesIO(png)) as image:
            image.convert("RGB").save(stream, form.output_format.upper(), quality=quality)
        png = stream.getvalue()
    return base64.b64encode(png).decode()


def error_response(
    kind: ProblemType, message: str, field: str | None, headers: dict[str, str]
) -> JSONResponse:
    """A problem in OpenAI's form. Only what may pass by itself is worth another try."""
    status = _STATUS.get(kind.status, kind.status or 500)
    code = "model_not_found" if field == "model" else kind.slug.replace("-", "_")
    error: dict[str, Any] = {
        "message": message,
        "type": _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error"),
        "param": field,
        "code": code,
    }
    again = "true" if status in _AGAIN else "false"
    return JSONResponse({"error": error}, status, headers | {"x-should-retry": again})
