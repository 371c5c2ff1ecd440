"""How the page's files are served, without a browser."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

import api as package
from api.page_files import picture_origin, policy
from customedit.config.settings import Settings
from customedit.storage.store import Storage

from .. import web
from ..api.conftest import Running

FOLDER = Path(package.__file__).with_name("page")
FILES = sorted(path for path in FOLDER.iterdir() if path.is_file())


def ask(api: Running, path: str, method: str = "GET", **headers: str) -> httpx.Response:
    return web.request(method, api.url + path, headers=headers)


def test_the_page_needs_no_key_and_says_where_it_may_reach(api: Running) -> None:
    page = ask(api, "/")
    assert page.status_code == 200
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert page.headers["Cache-Control"] == "no-cache"
    assert "RateLimit" not in page.headers
    assert page.headers["Content-Security-Policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        f"img-src 'self' blob: data: {api.settings.s3_endpoint}; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )
    other = ask(api, "/healthz")
    assert other.headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"


def test_each_file_is_served_as_what_it_is(api: Running) -> None:
    kinds = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    for path in FILES:
        answer = ask(api, f"/page/{path.name}")
        assert answer.status_code == 200 and answer.content == path.read_bytes()
        assert answer.headers["Content-Type"].startswith(kinds.get(path.suffix, "text/html"))
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        plain = {"Accept-Encoding": "identity"}
        head = ask(api, f"/page/{path.name}", "HEAD", **plain)
        assert head.status_code == 200 and head.content == b""
        assert head.headers["Content-Length"] == str(len(answer.content))


def test_files_are_compressed_for_those_who_take_it(api: Running) -> None:
    packed = ask(api, "/page/main.js", **{"Accept-Encoding": "br, gzip"})
    plain = ask(api, "/page/main.js", **{"Accept-Encoding": "gzip;q=0"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in plain.headers
    assert packed.content == plain.content
    assert packed.headers["ETag"] != plain.headers["ETag"]  # another representation
    assert int(packed.headers["Content-Length"]) < int(plain.headers["Content-Length"]) / 2
    assert packed.headers["Vary"] == plain.headers["Vary"] == "Accept-Encoding"


def test_what_may_be_asked_for_is_compressed_as_well(api: Running) -> None:
    packed = ask(api, "/openapi.json")
    plain = ask(api, "/openapi.json", **{"Accept-Encoding": "identity"})
    assert packed.headers["Content-Encoding"] == "gzip" and packed.json() == plain.json()
    assert int(packed.headers["Content-Length"]) < len(plain.content) / 4
    assert "Content-Encoding" not in plain.headers
    assert ask(api, "/openapi.json", "HEAD").status_code == 200


def test_a_file_that_the_browser_has_is_not_sent_again(api: Running) -> None:
    etag = ask(api, "/page/main.js").headers["ETag"]
    for given in (etag, f'"other", W/{etag}', "*"):
        again = ask(api, "/page/main.js", **{"If-None-Match": given})
        assert again.status_code == 304 and again.content == b"" and again.headers["ETag"] == etag
    assert ask(api, "/page/main.js", **{"If-None-Match": '"other"'}).status_code == 200


def test_unknown_names_are_problems(api: Running) -> None:
    for name in ("/none.js", "/", "", "/..%2Fapp.py", "/%2e%2e/app.py", "/__init__.py"):
        answer = ask(api, f"/page{name}")
        assert answer.status_code == 404, name
        assert answer.json()["type"] == "/problems/not-found"


def test_the_page_is_only_read(api: Running) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        answer = ask(api, "/", method)
        assert answer.status_code == 405
        assert answer.headers["Allow"] == "GET, HEAD"
        assert answer.json()["type"] == "/problems/method-not-allowed"


def test_the_page_is_no_part_of_the_api(api: Running) -> None:
    paths = ask(api, "/openapi.json").json()["paths"]
    assert "/" not in paths and not any(path.startswith("/page") for path in paths)
    ask(api, "/page/none.js")
    assert 'route="/page"' in ask(api, "/metrics").text


def test_nothing_is_loaded_from_elsewhere_nor_written_as_markup() -> None:
    for path in FILES:
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://", text), path.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)
        for name in re.findall(r'(?:from|href=|src=) ?"(?:\./|page/)([^"]+)"', text):
            assert (FOLDER / name).is_file(), f"{path.name} asks for {name}"


def test_the_policy_without_a_store_is_still_one() -> None:
    assert "img-src 'self' blob: data:; " in policy("")


def test_pictures_come_from_where_presigned_addresses_lead() -> None:
    keys: dict[str, Any] = {"s3_access_key": "a", "s3_secret_key": "b", "s3_bucket": "pictures"}
    amazon = Storage(Settings(**keys, s3_endpoint=None, s3_public_endpoint=None))
    assert urlsplit(amazon.presign_get("x.png")).netloc in picture_origin(amazon)
    assert picture_origin(amazon).startswith("https://pictures.s3.")
    own = Settings(
        **keys, s3_endpoint="http://seaweed:8333", s3_public_endpoint="https://s3.example"
    )
    assert picture_origin(Storage(own)) == "https://s3.example"


def test_all_modules_are_fetched_at_once() -> None:
    """Named in the first file, they need not wait for each other to be read."""
    index = (FOLDER / "index.html").read_text()
    named = set(re.findall(r'<link rel="modulepreload" href="page/([^"]+)">', index))
    assert named == {path.name for path in FILES if path.suffix == ".js"} - {"main.js"}
