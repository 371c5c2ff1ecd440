"""The page ``/docs``: everything that is in the contract, and nothing from anywhere else."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi import FastAPI

from api import openapi
from api.openapi import text
from api.reference_page import DOCUMENT, PATH, page

from .. import web
from .conftest import Running


def test_the_page_is_served_under_a_strict_policy(api: Running) -> None:
    answer = web.get(api.url + PATH)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src" not in policy
    assert "unsafe" not in policy
    again = web.get(api.url + PATH, headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304
    assert web.head(api.url + PATH).status_code == 200
    assert web.post(api.url + PATH).status_code == 405


def test_it_loads_nothing_and_tells_all() -> None:
    import json

    document = json.loads(text())
    shown = page(document)
    assert not re.search(r"<(script|link|img|iframe)\b|@import|url\(|style=", shown)
    links = set(re.findall(r'href="([^"]+)"', shown))
    anchors = {f"#{name}" for name in re.findall(r' id="?([A-Za-z0-9_-]+)', shown)}
    assert links - anchors == {"/openapi.json"}
    for path, methods in document["paths"].items():
        assert path in shown
        for operation in methods.values():
            assert f'id="{operation["operationId"]}"' in shown


def test_what_the_document_says_is_text() -> None:
    hostile = "<script>alert(1)</script>"
    operation = {"operationId": "x", "summary": hostile, "tags": ["t"], "responses": {}}
    shown = page(
        {
            "info": {"title": hostile, "version": "1", "description": hostile},
            "tags": [{"name": "t", "description": hostile}],
            "paths": {"/x": {"get": operation}},
            "components": {"schemas": {"S": {"description": hostile, "properties": {}}}},
        }
    )
    assert "<script>" not in shown


def test_others_are_answered_while_the_document_is_made(
    api: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    made = openapi._document

    def slow(app: FastAPI) -> dict[str, Any]:
        begun.set()
        assert go_on.wait(60)
        return made(app)

    monkeypatch.setattr(openapi, "_document", slow)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(web.get, api.url + path) for path in (PATH, DOCUMENT)]
        assert begun.wait(60)
        assert web.get(f"{api.url}/healthz").status_code == 200
        assert not any(future.done() for future in waiting)
        go_on.set()
        assert [future.result().status_code for future in waiting] == [200, 200]
