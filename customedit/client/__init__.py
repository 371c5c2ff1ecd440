"""A typed client of the service's REST API. It imports neither torch nor the service.

``CustomEdit`` waits, ``AsyncCustomEdit`` is for asyncio; both have the same methods.
"""

from customedit.client.aio import AsyncCustomEdit
from customedit.client.calls import API_KEY, SERVER
from customedit.client.errors import ApiError, JobFailed, TimedOut
from customedit.client.sync import CustomEdit
from customedit.schemas.concepts import TrainingOptions
from customedit.schemas.methods import (
    DdpmOptions,
    DirectEditOptions,
    FlowEditOptions,
    MasaCtrlOptions,
    P2POptions,
    PlugAndPlayOptions,
    SDEditOptions,
)
from customedit.schemas.requests import ConceptUse

__all__ = [
    "API_KEY",
    "SERVER",
    "ApiError",
    "AsyncCustomEdit",
    "ConceptUse",
    "CustomEdit",
    "DdpmOptions",
    "DirectEditOptions",
    "FlowEditOptions",
    "JobFailed",
    "MasaCtrlOptions",
    "P2POptions",
    "PlugAndPlayOptions",
    "SDEditOptions",
    "TimedOut",
    "TrainingOptions",
]
