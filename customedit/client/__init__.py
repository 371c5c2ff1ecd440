"""A typed client of the service's REST API: no torch, and nothing of the service but its words.

``CustomEdit`` waits, ``AsyncCustomEdit`` is for asyncio; both have the same methods.
"""

from customedit.client.aio import AsyncCustomEdit
from customedit.client.calls import API_KEY, SERVER
from customedit.client.errors import ApiError, JobFailed, TimedOut
from customedit.client.sync import CustomEdit

__all__ = [
    "API_KEY",
    "SERVER",
    "ApiError",
    "AsyncCustomEdit",
    "CustomEdit",
    "JobFailed",
    "TimedOut",
]
