"""Multipart forms: one file and a few text fields, checked by a model.

The form is read here and not by FastAPI, which would read it before it looks at the key's scopes
and before an import has its turn.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException

from api.problems import ProblemError, input_problem, validation_problem, wrong_media_type
from customedit.errors import InputError
from customedit.files import disk_full

_MEDIA_TYPE: Final = "multipart/form-data"
_CHARSETS: Final = ("", "utf-8", "utf8", "us-ascii")
_MAX_FIELDS: Final = 40
_MAX_FIELD_BYTES: Final = 64 * 2**10
_log = logging.getLogger(__name__)

Fields = TypeVar("Fields", bound=BaseModel)


class NoFields(BaseModel):
    """The fields of a form that has the file alone."""


@dataclass(frozen=True)
class FilesForm(Generic[Fields]):
    """A form that was read. files: by their names, each at its start; fields: the texts."""

    files: dict[str, UploadFile]
    fields: Fields


@dataclass(frozen=True)
class FileForm(Generic[Fields]):
    """A form that was read. file: at its start; fields: the texts beside it."""

    file: UploadFile
    fields: Fields


@asynccontextmanager
async def read_form(request: Request, model: type[Fields]) -> AsyncIterator[FileForm[Fields]]:
    """The request's form: one ``file``, on disk if it is large, and the fields of ``model``.

    An empty text counts as left out. The file is closed at the end of the context.

    Raises:
        ProblemError: it is not a form, cannot be read, or a field is not usable; unavailable if the
            disk has no room for it.
    """
    async with read_files(request, model, {"file": True}) as form:
        yield FileForm(form.files["file"], form.fields)


@asynccontextmanager
async def read_files(
    request: Request, model: type[Fields], files: Mapping[str, bool]
) -> AsyncIterator[FilesForm[Fields]]:
    """As ``read_form``, with several files. files: by name, whether it is required.

    ``image[]`` is read as ``image``, as programs write it that may send several.
    """
    _check_media_type(request.headers.get("content-type", ""))
    try:
        async with request.form(
            max_files=len(files) + 1, max_fields=_MAX_FIELDS, max_part_size=_MAX_FIELD_BYTES
        ) as form:
            items = [(name.removesuffix("[]"), value) for name, value in form.multi_items()]
            _check_names([name for name, _ in items], (*files, *model.model_fields))
            found = {name: v for name, v in items if name in files and isinstance(v, UploadFile)}
            for name, required in files.items():
                if required and name not in found:
                    raise input_problem(InputError(name, "is missing", "required"))
            texts = {name: value for name, value in items if name not in found}
            yield FilesForm(found, _fields(model, texts))
    except MultiPartException as error:
        raise ProblemError("malformed", error.message) from None
    except OSError as error:
        if not disk_full(error):
            raise
        _log.error("a form could not be kept: %s", error)
        raise ProblemError("unavailable", "the disk for uploaded files is full now") from None


def _check_media_type(content_type: str) -> None:
    """A form in UTF-8: RFC 7578 knows no other charset for the whole form."""
    media_type, *parameters = (part.strip().lower() for part in content_type.split(";"))
    if media_type != _MEDIA_TYPE:
        raise wrong_media_type(_MEDIA_TYPE)
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip().strip('"') not in _CHARSETS:
            raise wrong_media_type(f"{_MEDIA_TYPE} in UTF-8")


def _check_names(names: list[str], known: tuple[str, ...]) -> None:
    for name in names:
        if name not in known:
            raise input_problem(
                InputError(name[:100], "is not a field", f"one of {', '.join(known)}")
            )
        if names.count(name) > 1:
            raise input_problem(InputError(name, "is given twice", "each field once"))


def _fields(model: type[Fields], texts: dict[str, Any]) -> Fields:
    try:
        return model(**{name: value for name, value in texts.items() if value != ""})
    except ValidationError as error:
        raise validation_problem(error.errors(include_url=False)) from None


def form_schema(
    model: type[BaseModel], example: dict[str, Any], files: Mapping[str, bool] | None = None
) -> dict[str, Any]:
    """The OpenAPI ``requestBody`` of a form with files and the fields of ``model``.

    files: by name, whether it is required; None: one, ``file``.
    """
    files = {"file": True} if files is None else files
    binary = {
        "type": "string",
        "contentMediaType": "application/octet-stream",
        "format": "binary",
    }
    required = [name for name, needed in files.items() if needed]
    required += [name for name, field in model.model_fields.items() if field.is_required()]
    schema = {
        "type": "object",
        "required": required,
        "additionalProperties": False,
        "properties": {name: binary for name in files} | _form_properties(model),
    }
    media = {"schema": schema, "examples": {"plain": {"value": example}}}
    return {"requestBody": {"required": True, "content": {_MEDIA_TYPE: media}}}


def _form_properties(model: type[BaseModel]) -> dict[str, Any]:
    """The model's fields as a form has them: it knows no null, what is left out is none."""
    properties: dict[str, Any] = model.model_json_schema().get("properties", {})
    for schema in properties.values():
        kinds = [kind for kind in schema.pop("anyOf", []) if kind != {"type": "null"}]
        schema |= {"anyOf": kinds} if len(kinds) > 1 else dict(*kinds)
        if schema.get("default", "") is None:
            del schema["default"]
    return properties
