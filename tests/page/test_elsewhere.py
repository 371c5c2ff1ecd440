"""Pages of other origins in a real browser: a named one uses the API, another one cannot."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from customedit.config.settings import Settings

from ..api.conftest import Running

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


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """A web server of somebody else's page; by its two names it is two origins."""
    (tmp_path / "index.html").write_text("a page elsewhere")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_only_named_origins_can_use_the_api(
    browser: Browser, start: Callable[..., Running], settings: Settings, port: int
) -> None:
    named, other = f"http://127.0.0.1:{port}", f"http://localhost:{port}"
    api = start(settings, cors_origins=named)
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(named)
        assert page.evaluate(ASK, [api.url, api.key()]) == ["anna", 415, True]
        page.goto(other)
        assert page.evaluate(ASK, [api.url, api.key()]) == ["TypeError: Failed to fetch"]
