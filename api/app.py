"""The app: all routes, the middleware before them, and how errors are answered."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Final

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

import customedit
from api import openapi, page_files, problems, reference_page
from api.dependencies import open_container
from api.middleware.admission import AuthenticationMiddleware
from api.middleware.observability import Metrics, ObservabilityMiddleware
from api.routes import (
    account,
    batches,
    concepts,
    edits,
    health,
    image_edits,
    images,
    imports,
    job_events,
    jobs,
    keys,
    pictures,
    presets,
    prompts,
    webhooks,
)
from customedit.config.settings import Settings

__all__ = ["create_app"]

_REQUEST_HEADERS: Final = [
    "Authorization",
    "X-API-Key",
    "Content-Type",
    "Idempotency-Key",
    "If-None-Match",
    "Last-Event-ID",
    "Prefer",
    "X-Request-Id",
    "traceparent",
]
_RESPONSE_HEADERS: Final = [
    "Location",
    "Retry-After",
    "RateLimit",
    "RateLimit-Policy",
    "X-Request-Id",
    "Idempotency-Replayed",
    "Preference-Applied",
    "Allow",
    "WWW-Authenticate",
    "ETag",
]
"""Headers that pages of other origins may send, and may read."""


class App(FastAPI):
    """A FastAPI app behind its middleware: even Starlette's own answers pass through that."""

    outermost: ObservabilityMiddleware

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self
        await self.outermost(scope, receive, send)

    async def inside(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The app without its outermost middleware."""
        await super().__call__(scope, receive, send)


def create_app(settings: Settings | None = None) -> FastAPI:
    """The front end for ``settings``; None takes those of the environment.

    Connects when it starts, not here, and starts even while Redis or S3 are down: ``/readyz``
    tells. Pages of other origins cannot use the API unless ``cors_origins`` names them.

    Raises:
        InputError: the environment's settings are not usable.
    """
    settings = settings or Settings.of_environment()
    metrics = Metrics()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_container(settings, metrics) as app.state.container:
            yield

    app = App(
        title="Custom-Edit",
        version=customedit.__version__,
        lifespan=lifespan,
        openapi_url=None,  # the document is served compressed
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.add_middleware(AuthenticationMiddleware)
    app.outermost = ObservabilityMiddleware(
        cross_origin(app.inside, settings.cors_origins), metrics
    )
    problems.install(app)
    openapi.install(app)
    routers = (
        # Routes are tried one after the other: edits come first, since they come most often.
        *(edits, images, image_edits, imports, concepts, prompts, batches, presets),
        *(jobs, job_events, pictures, account, keys, webhooks, health),
    )
    for resource in routers:
        app.include_router(resource.router)
    page_files.install(app)
    reference_page.install(app)
    return app


def cross_origin(app: ASGIApp, origins: str) -> ASGIApp:
    """``app`` for pages of ``origins`` as well, exact ones with commas between; none: as it is.

    It stands before authentication, since preflights carry no key, and around all errors, so that
    pages can read those too. Keys come in headers: there are no credentials a browser would add.
    """
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins.split(","),
        allow_methods=["GET", "HEAD", "POST", "PUT", "DELETE"],
        allow_headers=_REQUEST_HEADERS,
        expose_headers=_RESPONSE_HEADERS,
        max_age=600,
    )
