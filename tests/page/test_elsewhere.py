"""Pages of other origins in a real browser: a named one uses the API, another one cannot."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Browser

from customedit.platform.settings import Settings

from ..api.conftest import Running

NAMED, OTHER = "http://localhost:5173", "http://localhost:5174"
ASK = """async ([url, key]) => {
  const headers = { Authorization: `Bearer ${key}`, "Idempotency-Key": "once" };
  try {
    const good = await fetch(`${url}/v1/limits`, { headers });
    const bad = await fetch(`${url}/v1/edits`, { method: "POST", headers, body: "{" });
    const id = bad.headers.get("X-Request-Id");
    return [(await good.json()).tenant, bad.status, id === (await bad.json()).request_id];
  } catch (error) {
    return [String(error)];
  }
}"""


@pytest.mark.parametrize(
    ("origin", "found"),
    [(NAMED, ["anna", 415, True]), (OTHER, ["TypeError: Failed to fetch"])],
    ids=["named", "other"],
)
def test_only_named_origins_can_use_the_api(
    browser: Browser,
    start: Callable[..., Running],
    settings: Settings,
    origin: str,
    found: list[object],
) -> None:
    api = start(settings, cors_origins=NAMED)
    with browser.new_context() as context:
        context.route(f"{origin}/", lambda route: route.fulfill(body="a page elsewhere"))
        page = context.new_page()
        page.goto(f"{origin}/")
        assert page.evaluate(ASK, [api.url, api.key()]) == found
