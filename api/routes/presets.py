"""Presets: settings of edits under names of the tenant's own."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Path, Response

from api.dependencies import AppContainer, Reader, needs
from api.openapi import example_bodies, refusals
from api.problems import input_problem, not_found
from api.serializers import at
from customedit.errors import InputError
from customedit.schemas import answers as d
from customedit.schemas import patterns
from customedit.schemas.requests import PresetSettings
from customedit.tenants.access import ApiKey
from customedit.tenants.presets import PresetRecord

router = APIRouter(tags=["presets"])
Writer = Annotated[ApiKey, needs("edits:write")]
PresetName = Annotated[str, Path(pattern=patterns.PRESET, description="Name of a preset.")]
EXAMPLES = example_bodies(
    {"gentle": {"method": "p2p", "change": 0.3, "steps": 50, "preserve": True}}
)


def _document(record: PresetRecord) -> d.Preset:
    return d.Preset(name=record.name, settings=record.settings, saved_at=at(record.saved_at))


@router.put(
    "/v1/presets/{name}",
    operation_id="savePreset",
    summary="Save settings under a name",
    response_model=d.Preset,
    responses={
        201: {"model": d.Preset, "description": "There was none of this name."},
        **refusals(
            "malformed", "request-timeout", "too-large", "unsupported-media-type", "validation"
        ),
    },
    openapi_extra=EXAMPLES,
)
def save_preset(
    name: PresetName,
    request: PresetSettings,
    response: Response,
    container: AppContainer,
    caller: Writer,
) -> d.Preset:
    """Takes the fields of an edit, without its pictures; replaces what had the name before."""
    record = PresetRecord(
        name=name,
        tenant=caller.tenant,
        settings=request.model_dump(mode="json", exclude_unset=True),
        saved_at=time.time(),
    )
    try:
        response.status_code = 201 if container.presets.save(record) else 200
    except InputError as error:
        raise input_problem(error) from None
    return _document(record)


@router.get(
    "/v1/presets",
    operation_id="listPresets",
    summary="List presets",
    response_model=d.Page[d.Preset],
    responses=refusals(),
)
def list_presets(container: AppContainer, caller: Reader) -> d.Page[d.Preset]:
    """All of your presets, by name."""
    return d.Page(items=[_document(record) for record in container.presets.list(caller.tenant)])


@router.get(
    "/v1/presets/{name}",
    operation_id="getPreset",
    summary="Read a preset",
    response_model=d.Preset,
    responses=refusals("not-found", "validation"),
)
def get_preset(name: PresetName, container: AppContainer, caller: Reader) -> d.Preset:
    """The settings that were saved under the name."""
    record = container.presets.get(caller.tenant, name)
    if record is None:
        raise not_found("preset", name)
    return _document(record)


@router.delete(
    "/v1/presets/{name}",
    operation_id="deletePreset",
    summary="Delete a preset",
    status_code=204,
    responses=refusals("not-found", "validation"),
)
def delete_preset(name: PresetName, container: AppContainer, caller: Writer) -> None:
    """Edits that were made with it stay as they are."""
    if not container.presets.delete(caller.tenant, name):
        raise not_found("preset", name)
