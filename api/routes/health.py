"""How the service itself is: health, figures, and the pages that problem types point to."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from redis.exceptions import RedisError

import customedit
from api.auth import Here
from api.container import Services
from api.openapi import refusals
from api.problem_types import TYPES
from api.problems import Refused
from customedit.schemas import answers as d

router = APIRouter(tags=["service"])


@router.get("/healthz", operation_id="getHealth", summary="Is the process alive")
def get_health() -> d.Health:
    """Alive, whatever the stores do: restarting it would not help them."""
    return d.Health(status="ok", version=customedit.__version__)


@router.get(
    "/readyz",
    operation_id="getReadiness",
    summary="Can requests be served",
    response_model=d.Health,
    responses={503: {"model": d.Health, "description": "A store is away, or it is stopping."}},
)
def get_readiness(here: Here) -> Response:
    """Ready when Redis and the file store answer."""
    checks = {
        "redis": _redis(here),
        "storage": "ok" if here.storage.reachable() else "does not answer",
    }
    if here.stopping():
        checks["process"] = "is stopping"
    ready = all(found == "ok" for found in checks.values())
    document = d.Health(
        status="ok" if ready else "unavailable", version=customedit.__version__, checks=checks
    )
    return JSONResponse(document.model_dump(mode="json"), 200 if ready else 503)


def _redis(here: Services) -> str:
    try:
        here.redis.ping()
    except RedisError:
        return "does not answer"
    return "ok"


@router.get(
    "/metrics",
    operation_id="getMetrics",
    summary="Figures for Prometheus",
    response_class=PlainTextResponse,
    responses=refusals("not-found", common=False),
)
def get_metrics(here: Here) -> Response:
    """The figures of this process, as Prometheus reads them; a setting turns them off."""
    if not here.settings.api_metrics:
        raise Refused("not-found")
    return Response(generate_latest(here.figures.registry), media_type=CONTENT_TYPE_LATEST)


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
        raise Refused("not-found", field="slug", limit=f"one of {', '.join(TYPES)}")
    return PlainTextResponse(f"{kind.title}\n\n{kind.meaning}\n{kind.remedy}\n")
