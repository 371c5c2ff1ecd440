"""Multipart forms: charsets, boundaries, imports that lie on the disk once, a few at a time."""

from __future__ import annotations

import errno
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from api import quotas
from customedit.config.settings import Settings
from customedit.storage.store import Storage

from .conftest import Running, png, wait_for

Start = Callable[..., Running]
WEIGHTS = (8).to_bytes(8, "little") + b"{}      "


def body(name: bytes = b"file", extra: bytes = b"", data: bytes = png()) -> bytes:
    return (
        b'--b\r\nContent-Disposition: form-data; name="' + name + b'"; filename="a.png"\r\n'
        + extra + b"\r\n" + data + b"\r\n--b--\r\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    "charset",
    ["idna", "punycode", "undefined", "unicode_escape", "utf-16", "utf-7", "hex", "zlib", "rot13",
     "mbcs", "no-such", "x" * 5000, "raw_unicode_escape", "cp037"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/images", "/v1/concepts/import"])
def test_charsets(anna: httpx.Client, path: str, charset: str) -> None:
    media_type = f'multipart/form-data; boundary=b; charset="{charset}"'.encode()
    answer = anna.post(path, content=body(), headers=[(b"Content-Type", media_type)])
    assert answer.status_code == 415, answer.text
    assert answer.json()["limit"] == "multipart/form-data in UTF-8"


@pytest.mark.parametrize(
    ("media_type", "content", "status"),
    [
        ("multipart/form-data; boundary=b; charset=UTF-8", body(), 201),
        ("multipart/form-data; boundary=b", body(extra=b"Content-Type: x; charset=idna\r\n"), 201),
        ("multipart/form-data; boundary=b", body(b"_charset_"), 422),
        ("multipart/form-data; boundary=b", body(b"\xff\xfe"), 422),
        ("multipart/form-data", body(), 400),
        ("multipart/form-data; boundary=", body(), 400),
        ("multipart/form-data; boundary=" + "b" * 5000, body(), 400),
        ("multipart/form-data; boundary=\u00fc", body(), 400),
        ("multipart/form-data; boundary=b", b"no form", 400),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\nx\r\n--b--\r\n", 400),
        ("multipart/form-data; boundary=b", b"--b--\r\n", 422),
    ],
)
def test_forms_of_all_kinds(
    anna: httpx.Client, media_type: str, content: bytes, status: int
) -> None:
    headers = [(b"Content-Type", media_type.encode("utf-8"))]
    answer = anna.post("/v1/images", content=content, headers=headers)
    assert answer.status_code == status, answer.text
    if status != 201:
        assert answer.json()["type"] in ("/problems/malformed", "/problems/validation")


def imported(client: httpx.Client, size: int = 16) -> httpx.Response:
    files = {"file": ("c.safetensors", WEIGHTS + bytes(size), "application/octet-stream")}
    return client.post("/v1/concepts/import", files=files, data={"noun": "cup"})


def test_a_file_lies_on_the_disk_once(
    api: Running, anna: httpx.Client, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    real = tempfile.TemporaryFile

    def counted(*given: Any, **named: Any) -> Any:
        made.append(real(*given, **named))
        return made[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", counted)
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", lambda *a, **k: 1 / 0)
    answer = imported(anna, 3 * 2**20)
    assert answer.status_code == 202, answer.text
    assert len(made) == 1 and made[0].closed
    (stored,) = [s for s in storage.list("tenants/anna/") if s.bytes > 2**20]
    assert storage.get(stored.key) == WEIGHTS + bytes(3 * 2**20)


def test_few_files_are_taken_in_at_once(
    start: Start, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tenant has its share; others wait for a slot, and their files with them."""
    monkeypatch.setattr(quotas, "_IMPORT_WAIT_S", 0.5)
    api = start(settings, imports_at_once=2, imports_per_tenant=1)
    free, put = threading.Event(), api.container.storage.put
    entered: list[str] = []

    def slow(key: str, *given: Any, **named: Any) -> None:
        if key.endswith("given") or "/given" in key:
            entered.append(key)
            assert free.wait(60)
        put(key, *given, **named)

    monkeypatch.setattr(api.container.storage, "put", slow)
    anna, bert, carl = (api.client(tenant) for tenant in ("anna", "bert", "carl"))
    with ThreadPoolExecutor(3) as pool:
        first, second = pool.submit(imported, anna), pool.submit(imported, bert)
        wait_for(lambda: len(entered) == 2)
        mine = imported(anna)
        assert mine.status_code == 429 and mine.json()["type"] == "/problems/too-many-imports"
        other = imported(carl)
        assert other.status_code == 503 and other.headers["Retry-After"]
        assert carl.get("/v1/limits").status_code == 200
        free.set()
        assert first.result().status_code == second.result().status_code == 202
    assert imported(carl).status_code == 202
    assert not api.container.imports._active


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_without_room_for_a_form_is_no_error_of_ours(
    anna: httpx.Client, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    async def full(*_: object) -> None:
        raise OSError(number, "no room")

    with monkeypatch.context() as patch:
        patch.setattr("starlette.datastructures.UploadFile.write", full)
        for answer in (imported(anna), anna.post("/v1/images", files={"file": ("a.png", png())})):
            assert answer.status_code == 503, answer.text
            assert (
                answer.json()["type"] == "/problems/unavailable" and answer.headers["Retry-After"]
            )
    assert imported(anna).status_code == 202
