"""The app: all routes, what stands before them, and how errors are told."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

import customedit
from api import account, concepts, edits, images, importing, jobs, openapi, problems, service
from api.edge import Edge, Figures
from api.gate import Gate
from api.services import opened
from customedit.platform.settings import Settings

__all__ = ["create_app"]


class App(FastAPI):
    """A FastAPI app behind its edge: even what Starlette itself answers passes through that."""

    edge: Edge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self
        await self.edge(scope, receive, send)

    async def inside(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The app without its edge."""
        await super().__call__(scope, receive, send)


def create_app(settings: Settings | None = None) -> FastAPI:
    """The front end for ``settings``; None takes those of the environment.

    Connects when it starts, not here, and starts even while Redis or S3 are down: ``/readyz``
    tells. CORS is off: pages of other origins cannot use the API.

    Raises:
        InputError: the environment's settings are not usable.
    """
    chosen = settings or Settings.of_environment()
    figures = Figures()

    @contextlib.asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        async with opened(chosen, figures) as app.state.services:
            yield

    app = App(
        title="Custom-Edit",
        version=customedit.__version__,
        lifespan=life,
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.add_middleware(Gate)
    app.edge = Edge(app.inside, figures)
    problems.install(app)
    openapi.install(app)
    for part in (images, importing, concepts, edits, jobs, account, service):
        app.include_router(part.router)
    return app
