"""``/docs``: the API for people, made from the OpenAPI document; ``/openapi.json``: the document.

The page loads nothing from anywhere: HTML with its style in it, which the policy allows by its
hash; no scripts.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Final

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from api.page_files import accepts_gzip, matches
from api.problems import ProblemError

PATH: Final = "/docs"
DOCUMENT: Final = "/openapi.json"
_METHODS: Final = ("get", "post", "put", "delete")
_MOST_FIELDS: Final = 60
_STYLE: Final = """
:root { color-scheme: light dark; --edge: #8884; --quiet: #777; }
@media (prefers-color-scheme: dark) { :root { --quiet: #aaa; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 1rem; }
h1, h2, h3 { line-height: 1.2; }
h2 { border-bottom: 1px solid var(--edge); margin-top: 2.5rem; }
nav ul { columns: 16rem; padding: 0; }
nav li { list-style: none; }
code, pre { font: 0.9em/1.4 ui-monospace, monospace; }
pre { border: 1px solid var(--edge); border-radius: 6px; overflow: auto; padding: 0.7rem; }
details { border: 1px solid var(--edge); border-radius: 6px; margin: 0.6rem 0;
  padding: 0.5rem 0.8rem; }
summary { cursor: pointer; overflow-wrap: anywhere; }
summary b { display: inline-block; min-width: 4.2rem; }
table { border-collapse: collapse; display: block; margin: 0.5rem 0; overflow-x: auto; }
td, th { border-top: 1px solid var(--edge); padding: 0.3rem 0.8rem 0.3rem 0; text-align: left;
  vertical-align: top; }
.quiet { color: var(--quiet); }
"""
_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'"
)


def install(app: FastAPI) -> None:
    """Let ``app`` serve the page and the document."""
    app.router.routes.append(Route(PATH, ReferencePage(app)))
    document = DocumentFile(app)
    app.add_api_route(DOCUMENT, document.serve, methods=["GET", "HEAD"], include_in_schema=False)


class DocumentFile:
    """The OpenAPI document as a file, made when it is first asked for.

    It has 200 KB, of which gzip leaves less than a fifth: the web page reads it before it can show
    a form. Making it takes half a second of processor time: in a thread, so that other requests
    are answered meanwhile.
    """

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    @cached_property
    def _bodies(self) -> tuple[bytes, bytes]:
        """Plain, and compressed."""
        text = json.dumps(self._app.openapi(), ensure_ascii=False, separators=(",", ":"))
        return text.encode(), gzip.compress(text.encode(), mtime=0)

    async def serve(self, request: Request) -> Response:
        """The document, compressed for those who take it."""
        packed = accepts_gzip(request.headers.get("accept-encoding", ""))
        bodies = await run_in_threadpool(lambda: self._bodies)
        headers = {"Vary": "Accept-Encoding"} | ({"Content-Encoding": "gzip"} if packed else {})
        return Response(bodies[packed], headers=headers, media_type="application/json")


class ReferencePage:
    """ASGI app that sends the page, made when it is first asked for; it answers GET and HEAD."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._body: bytes | None = None

    path = PATH
    """The route's name in the metrics."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the page, or nothing if the browser has it: ASGI.

        Raises:
            ProblemError: another method.
        """
        scope["route"] = self
        if scope["method"] not in ("GET", "HEAD"):
            raise ProblemError("method-not-allowed", headers={"Allow": "GET, HEAD"})
        if self._body is None:
            self._body = await run_in_threadpool(lambda: page(self._app.openapi()).encode())
        etag = f'"{hashlib.sha256(self._body).hexdigest()[:32]}"'
        headers = {
            "ETag": etag,
            "Cache-Control": "no-cache",
            "Content-Security-Policy": POLICY,
        }
        if matches(Headers(scope=scope).get("if-none-match", ""), etag):
            await Response(status_code=304, headers=headers)(scope, receive, send)
        else:
            answer = Response(self._body, 200, headers, "text/html; charset=utf-8")
            await answer(scope, receive, send)


def page(document: Mapping[str, Any]) -> str:
    """The page that tells of an OpenAPI document."""
    info = document["info"]
    operations = list(_operations(document))
    tags = {tag["name"]: tag.get("description", "") for tag in document.get("tags", [])}
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        '<meta name=viewport content="width=device-width, initial-scale=1">',
        f"<title>{_text(info['title'])}: the API</title><style>{_STYLE}</style>",
        f"<h1>{_text(info['title'])} <small class=quiet>{_text(info['version'])}</small></h1>",
        _prose(info.get("description", "")),
        '<p>As a file for programs: <a href="/openapi.json">openapi.json</a>.</p>',
        "<nav aria-label=Contents><ul>",
        *(f'<li><a href="#{_slug(tag)}">{_text(tag)}</a></li>' for tag in tags),
        '<li><a href="#documents">documents</a></li></ul></nav><main>',
    ]
    for tag, about in tags.items():
        parts.append(f'<h2 id="{_slug(tag)}">{_text(tag)}</h2>{_prose(about)}')
        for path, method, operation in operations:
            if tag in operation.get("tags", []):
                parts.append(_operation(path, method, operation))
    parts.append("<h2 id=documents>documents</h2>")
    for name, schema in sorted(document["components"]["schemas"].items()):
        parts.append(
            f'<details id="{_slug(name)}"><summary><code>{_text(name)}</code></summary>'
            f"{_prose(schema.get('description', ''))}{_fields(schema)}</details>"
        )
    return "\n".join([*parts, "</main></html>"])


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method in _METHODS:
            if method in methods:
                yield path, method, methods[method]


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    parts = [
        f'<details id="{_slug(operation["operationId"])}"><summary><b>{method.upper()}</b> '
        f"<code>{_text(path)}</code> {_text(operation.get('summary', ''))}</summary>",
        _prose(operation.get("description", "")),
    ]
    parameters = operation.get("parameters", [])
    if parameters:
        rows = [
            (p["name"], p["in"], p.get("required", False), p["schema"], p.get("description", ""))
            for p in parameters
        ]
        parts.append(
            _table(
                "parameter",
                [
                    (name, f"{_type(schema)}, in the {where}", needed, text)
                    for name, where, needed, schema, text in rows
                ],
            )
        )
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        parts.append(f"<p>Body: <code>{_text(media)}</code> {_type(content['schema'])}</p>")
        if "properties" in content["schema"]:
            parts.append(_fields(content["schema"]))
        for name, example in content.get("examples", {}).items():
            shown = json.dumps(example["value"], indent=2, ensure_ascii=False)
            parts.append(f"<p>Example, {_text(name)}:</p><pre>{_text(shown)}</pre>")
    parts.append("<table><tr><th>answer</th><th>when</th><th>document</th></tr>")
    for status, answer in operation["responses"].items():
        documents = [
            _type(content.get("schema", {})) for content in answer.get("content", {}).values()
        ]
        about = _prose(answer.get("description", ""))
        parts.append(f"<tr><td>{status}</td><td>{about}</td><td>{' '.join(documents)}</td></tr>")
    return "".join([*parts, "</table></details>"])


def _fields(schema: Mapping[str, Any]) -> str:
    required = schema.get("required", [])
    rows = [
        (name, _type(field), name in required, field.get("description", ""))
        for name, field in list(schema.get("properties", {}).items())[:_MOST_FIELDS]
    ]
    return _table("field", rows) if rows else ""


def _table(what: str, rows: list[tuple[str, str, bool, str]]) -> str:
    lines = [
        f"<tr><td><code>{_text(name)}</code>{' (required)' * needed}</td><td>{kind}</td>"
        f"<td>{_inline(text)}</td></tr>"
        for name, kind, needed, text in rows
    ]
    head = f"<tr><th>{what}</th><th>what it is</th><th>meaning</th></tr>"
    return f"<table>{head}{''.join(lines)}</table>"


def _type(schema: Mapping[str, Any]) -> str:
    """What a value is, as HTML, with links to documents."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#{_slug(name)}">{_text(name)}</a>'
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return " or ".join(dict.fromkeys(_type(member) for member in schema[union]))
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return ", ".join(f"<code>{_text(json.dumps(value))}</code>" for value in values)
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    bounds = [
        f"{words} {schema[name]}"
        for name, words in (
            ("minimum", "at least"),
            ("exclusiveMinimum", "above"),
            ("maximum", "at most"),
            ("exclusiveMaximum", "below"),
            ("maxLength", "characters at most"),
        )
        if name in schema
    ]
    default = schema.get("default")
    if default is not None:
        bounds.append(f"default {json.dumps(default)}")
    return _text(", ".join([str(kind), *bounds]))


def _prose(text: str) -> str:
    """Paragraphs of simple Markdown as HTML."""
    blocks = [block.strip() for block in re.split(r"\n\s*\n", text.strip()) if block.strip()]
    return "".join(f"<p>{_inline(block)}</p>" for block in blocks)


def _inline(text: str) -> str:
    """Code and bold of Markdown."""
    marked = re.sub(r"`+([^`]+)`+", r"<code>\1</code>", _text(" ".join(text.split())))
    return re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", marked)


def _text(text: str) -> str:
    return html.escape(text)


def _slug(name: str) -> str:
    """A name as the anchor of its section."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name)
