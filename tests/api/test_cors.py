"""Pages of other origins: those that are named may use the API, no others, errors included."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from customedit.config.settings import Settings
from customedit.errors import InputError

from .. import web
from .conftest import Running

OURS, OTHER = "https://shop.example", "https://shop.example:8443"


@pytest.fixture
def named(start: Callable[..., Running], settings: Settings) -> Running:
    """A front end that two origins may use, with a rate that is soon used up."""
    return start(settings, cors_origins=f"http://localhost:5173,{OURS}", rate_per_minute=2)


def preflight(
    api: Running, origin: str, method: str = "POST", headers: str = "authorization"
) -> httpx.Response:
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": headers,
    }
    return web.options(f"{api.url}/v1/edits", headers=asked)


def told(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("access-")}


def test_a_named_origin_may_read_answers_and_their_headers(named: Running) -> None:
    answer = named.client().get("/v1/limits", headers={"Origin": OURS})
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == OURS
    assert "Origin" in answer.headers["Vary"]
    exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
    for name in ("Location", "Retry-After", "RateLimit", "RateLimit-Policy", "X-Request-Id"):
        assert name in exposed
    assert "Idempotency-Replayed" in exposed
    assert "Access-Control-Allow-Credentials" not in answer.headers
    assert answer.headers["Cross-Origin-Resource-Policy"] == "cross-origin"


def test_preflights_need_no_key(named: Running) -> None:
    wanted = "authorization,content-type,idempotency-key,last-event-id,prefer"
    answer = preflight(named, OURS, "DELETE", wanted)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == OURS
    assert "DELETE" in answer.headers["Access-Control-Allow-Methods"]
    allowed = answer.headers["Access-Control-Allow-Headers"].lower()
    assert all(name in allowed for name in wanted.split(","))
    assert "RateLimit" not in answer.headers  # it costs nobody anything


@pytest.mark.parametrize("origin", [OTHER, "http://shop.example", "null", f"{OURS}.evil.example"])
def test_other_origins_may_read_nothing(named: Running, origin: str) -> None:
    asked = preflight(named, origin)
    assert asked.status_code == 400 and "Access-Control-Allow-Origin" not in asked.headers
    answer = named.client().get("/v1/limits", headers={"Origin": origin})
    assert answer.status_code == 200 and "Access-Control-Allow-Origin" not in answer.headers
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_errors_can_be_read_too(named: Running) -> None:
    client = named.client()
    origin = {"Origin": OURS}
    refused = web.get(f"{named.url}/v1/limits", headers=origin)
    invalid = client.post("/v1/edits", json={}, headers=origin)
    client.get("/v1/limits")
    limited = client.get("/v1/limits", headers=origin)
    assert [a.status_code for a in (refused, invalid, limited)] == [401, 422, 429]
    for answer in (refused, invalid, limited):
        assert answer.headers["Access-Control-Allow-Origin"] == OURS
        assert answer.headers["Content-Type"] == "application/problem+json"
    assert int(limited.headers["Retry-After"]) > 0


def test_a_fault_of_the_service_can_be_read_too(
    start: Callable[..., Running], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = start(settings, cors_origins=OURS)
    client = api.client()
    monkeypatch.setattr(type(api.container.jobs), "open_jobs", lambda *_: 1 / 0)
    answer = client.get("/v1/limits", headers={"Origin": OURS})
    assert answer.status_code == 500
    assert answer.headers["Access-Control-Allow-Origin"] == OURS


def test_by_default_no_origin_is_let_in(api: Running) -> None:
    assert told(api.client().get("/v1/limits", headers={"Origin": OURS})) == {}
    asked = preflight(api, OURS)
    assert asked.status_code == 401 and told(asked) == {}


@pytest.mark.parametrize(
    "origins",
    [
        "*",
        f"{OURS},*",
        f"{OURS}/",
        f"{OURS}:443",
        "http://a:80",
        "null",
        "https://A.b",
        f"{OURS}, x",
    ],
)
def test_what_is_no_origin_is_refused_at_the_start(
    origins: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUSTOMEDIT_CORS_ORIGINS", origins)
    with pytest.raises(InputError) as caught:
        Settings.of_environment()
    assert caught.value.field == "CUSTOMEDIT_CORS_ORIGINS"
    assert ("is refused" if "*" in origins else "https://host:port") in str(caught.value)


@pytest.mark.parametrize("origins", ["", OURS, f"{OURS},http://[::1]:8000", "https://a:80"])
def test_origins_as_browsers_send_them_are_taken(
    origins: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUSTOMEDIT_CORS_ORIGINS", origins)
    assert Settings.of_environment().cors_origins == origins
