"""The service itself: health, metrics, and the pages that problem types point to."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from redis.exceptions import RedisError

import customedit
from api.dependencies import AppContainer, Container
from api.openapi import refusals
from api.problem_types import TYPES
from api.problems import ProblemError
from customedit.schemas import answers as d

router = APIRouter(tags=["service"])


@router.get("/healthz", operation_id="getHealth", summary="Is the process alive")
async def get_health() -> d.Health:
    """Alive, even while the stores are down: a restart would not help them."""
    # A coroutine, so that it needs no thread: a Redis that says nothing holds all of them.
    return d.Health(status="ok", version=customedit.__version__)


@router.get(
    "/readyz",
    operation_id="getReadiness",
    summary="Can requests be served",
    response_model=d.Health,
    responses={503: {"model": d.Health, "description": "A store is away, or it is stopping."}},
)
def get_readiness(container: AppContainer) -> Response:
    """Ready when Redis and the file store answer.

    A store that is full, or nearly, is told in ``warnings`` and by metrics: most calls are served
    still, and no other process would serve the rest.
    """
    checks = {
        "redis": _redis(container),
        "storage": "ok" if container.storage.reachable() else "does not answer",
    }
    if container.stopping():
        checks["process"] = "is stopping"
    ready = all(check == "ok" for check in checks.values())
    document = d.Health(
        status="ok" if ready else "unavailable",
        version=customedit.__version__,
        checks=checks,
        warnings=container.watch.warnings,
    )
    return JSONResponse(document.model_dump(mode="json"), 200 if ready else 503)


def _redis(container: Container) -> str:
    try:
        container.redis.ping()
    except RedisError:
        return "does not answer"
    return "ok"


@router.get(
    "/metrics",
    operation_id="getMetrics",
    summary="Metrics for Prometheus",
    response_class=PlainTextResponse,
    responses=refusals("not-found", common=False),
)
def get_metrics(container: AppContainer) -> Response:
    """The metrics of this process, as Prometheus reads them; a setting turns them off."""
    if not container.settings.api_metrics:
        raise ProblemError("not-found")
    return Response(generate_latest(container.metrics.registry), media_type=CONTENT_TYPE_LATEST)


@router.get(
    "/problems/{slug}",
    operation_id="getProblemType",
    summary="What a problem type means",
    response_class=PlainTextResponse,
    responses=refusals("not-found", common=False),
)
def get_problem_type(
    slug: Annotated[str, Path(max_length=100, examples=["validation"])],
) -> Response:
    """The page that a problem's ``type`` points to."""
    kind = TYPES.get(slug)
    if kind is None:
        raise ProblemError("not-found", field="slug", limit=f"one of {', '.join(TYPES)}")
    return PlainTextResponse(f"{kind.title}\n\n{kind.meaning}\n{kind.remedy}\n")
