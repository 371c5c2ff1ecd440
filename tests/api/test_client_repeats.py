"""What the client sends again, what it does not, and how its event streams go on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from customedit.client import ApiError, AsyncCustomEdit, CustomEdit, mcp_server
from customedit.client.events import Parser
from customedit.schemas.answers import Event

JOB = "job_" + "0" * 26
Answer = httpx.Response | Exception
Serve = Callable[..., CustomEdit]


@pytest.fixture
def sent() -> list[httpx.Request]:
    """The requests, in their order."""
    return []


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses, which take no time."""
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("asyncio.sleep", sleep)
    return pauses


def answering(answers: list[Answer], sent: list[httpx.Request]) -> httpx.MockTransport:
    """Gives the answers one after the other; the last one again and again."""

    def handle(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        answer.request = request
        return answer

    return httpx.MockTransport(handle)


@pytest.fixture
def serve(sent: list[httpx.Request], waited: list[float]) -> Iterator[Serve]:
    with CustomEdit("http://service", "ce_key") as client:

        def begin(*answers: Answer) -> CustomEdit:
            transport = answering(list(answers), sent)
            headers = client._http.headers
            client._http = httpx.Client(
                base_url="http://service", headers=headers, transport=transport
            )
            client._files = httpx.Client(transport=transport, follow_redirects=True)
            return client

        yield begin


def status(code: int, **headers: str) -> httpx.Response:
    return httpx.Response(code, headers={k.replace("_", "-"): v for k, v in headers.items()})


@pytest.mark.parametrize(
    "answer",
    [status(502), status(503), status(504), httpx.ReadError("cut"), httpx.ReadTimeout("silent")],
    ids=["502", "503", "504", "cut", "silent"],
)
def test_what_may_have_been_done_is_not_done_twice(
    serve: Serve, sent: list[httpx.Request], answer: Answer
) -> None:
    client = serve(answer)
    for call in (lambda: client.make_key(name="n"), lambda: client.delete_job(JOB)):
        sent.clear()
        with pytest.raises((ApiError, httpx.TransportError)):
            call()
        assert len(sent) == 1


@pytest.mark.parametrize(
    "refused",
    [status(429), status(429, retry_after="2"), status(503, retry_after="2")],
    ids=["429", "429 with seconds", "503 with seconds"],
)
def test_what_was_refused_is_sent_again(
    serve: Serve, sent: list[httpx.Request], waited: list[float], refused: Answer
) -> None:
    serve(refused, status(204)).delete_job(JOB)
    assert len(sent) == 2 and len(waited) == 1
    if "retry-after" in getattr(refused, "headers", {}):
        assert waited == [2.0]


@pytest.mark.parametrize("code", [429, 502, 503, 504])
def test_what_can_be_repeated_is_sent_again(
    serve: Serve, sent: list[httpx.Request], code: int
) -> None:
    page = httpx.Response(200, json={"items": [], "next_cursor": None})
    assert serve(status(code), page).jobs().items == []
    assert len(sent) == 2


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirection_is_no_success(serve: Serve, sent: list[httpx.Request], code: int) -> None:
    client = serve(status(code, location="https://elsewhere/x"))
    for call in (lambda: client.delete_job(JOB), lambda: client.limits(),
                 lambda: list(client.events(JOB))):  # fmt: skip
        sent.clear()
        with pytest.raises(ApiError, match="https://elsewhere/x") as refused:
            call()
        assert refused.value.status == code and len(sent) == 1


def test_files_are_followed_to_where_they_lie_without_the_key(
    serve: Serve, sent: list[httpx.Request], tmp_path: Path
) -> None:
    client = serve(status(307, location="https://bucket/b"), httpx.Response(200, content=b"pixels"))
    assert client.download("https://bucket/a", tmp_path / "a") == b"pixels"
    assert (tmp_path / "a").read_bytes() == b"pixels"
    assert [str(request.url) for request in sent] == ["https://bucket/a", "https://bucket/b"]
    assert not any("authorization" in request.headers for request in sent)


# events


def lines(number: int, state: str = "running") -> list[str]:
    data = json.dumps({"state": state, "attempt": 1})
    return [f"id: {number}-0", "event: state", f"data: {data}", ""]


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_half_an_event_counts_for_nothing(cut: int) -> None:
    parser = Parser("1-0")
    for line in lines(2)[:cut]:
        assert parser.feed(line) is None
    assert parser.last == "1-0"
    parser.reset()
    found = [event for line in lines(2, "failed") if (event := parser.feed(line)) is not None]
    assert [(event.id, event.data["state"]) for event in found] == [("2-0", "failed")]
    assert parser.last == "2-0"


class Cut(httpx.SyncByteStream, httpx.AsyncByteStream):
    """Lines of a stream, after which the connection breaks, or ends."""

    def __init__(self, *given: str, breaks: bool = True) -> None:
        self.text, self.breaks = "\n".join(given).encode(), breaks

    def __iter__(self) -> Iterator[bytes]:
        yield self.text
        if self.breaks:
            raise httpx.ReadError("cut")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self:
            yield part


def stream(*given: str, breaks: bool = True) -> httpx.Response:
    headers = {"content-type": "text/event-stream"}
    return httpx.Response(200, headers=headers, stream=Cut(*given, breaks=breaks))


def told(events: list[Event]) -> list[tuple[str, str]]:
    return [(event.id, event.data["state"]) for event in events]


WHOLE = [("1-0", "running"), ("2-0", "running"), ("3-0", "succeeded")]


def interrupted() -> list[Answer]:
    return [
        stream(*lines(1), "", *lines(2)[:3]),
        status(503),
        status(429, retry_after="5"),
        httpx.ConnectError("away"),
        stream(*lines(2), "", *lines(3)[:1], breaks=False),
        status(502),
        stream(*lines(3, "succeeded"), ""),
    ]


def test_a_stream_that_was_cut_goes_on_and_gives_each_event_once(
    serve: Serve, sent: list[httpx.Request], waited: list[float]
) -> None:
    assert told(list(serve(*interrupted()).events(JOB))) == WHOLE
    positions = [request.headers["last-event-id"] for request in sent]
    assert positions == ["0", "1-0", "1-0", "1-0", "1-0", "2-0", "2-0"]
    assert 5.0 in waited


def test_so_it_does_under_asyncio(sent: list[httpx.Request], waited: list[float]) -> None:
    async def watch() -> list[Event]:
        async with AsyncCustomEdit("http://service", "ce_key") as client:
            await client._http.aclose()
            transport = answering(interrupted(), sent)
            client._http = httpx.AsyncClient(base_url="http://service", transport=transport)
            return [event async for event in client.events(JOB)]

    assert told(asyncio.run(watch())) == WHOLE


@pytest.mark.parametrize(("code", "tries"), [(404, 1), (401, 1), (503, 5)])
def test_a_stream_that_cannot_be_opened_is_an_error(
    serve: Serve, sent: list[httpx.Request], code: int, tries: int
) -> None:
    with pytest.raises(ApiError) as refused:
        list(serve(status(code)).events(JOB))
    assert refused.value.status == code and len(sent) == tries


# lists


def concept(number: int, token: str, state: str = "ready") -> dict[str, Any]:
    return {
        "id": f"con_{number:026d}", "name": "", "token": token, "noun": "cup", "attribute": "",
        "state": state, "job": JOB, "references": [], "base": "mini", "bytes": 1, "warnings": [],
        "created_at": "2026-01-01T00:00:00Z", "ready_at": None, "recipe": {}, "columns": {},
        "preview_url": None,
    }  # fmt: skip


def test_an_assistants_looks_are_read_to_the_end_of_the_list() -> None:
    pages = {
        "": ([concept(1, "<new>"), concept(2, "<old>", "failed")], "a"),
        "a": ([concept(3, "<other>")], "b"),
        "b": ([concept(4, "<old>"), concept(5, "<new>")], None),
    }
    asked: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params.get("cursor", ""))
        items, following = pages[asked[-1]]
        return httpx.Response(200, json={"items": items, "next_cursor": following})

    async def ask() -> None:
        async with AsyncCustomEdit("http://service", "ce_key") as client:
            await client._http.aclose()
            transport = httpx.MockTransport(handle)
            client._http = httpx.AsyncClient(base_url="http://service", transport=transport)
            found = await mcp_server._named(client, "a <new> cup with <old>")
            assert [int(c.id[4:]) for c in found] == [1, 4] and asked == ["", "a", "b"]
            asked.clear()
            (newest,) = await mcp_server._named(client, "a <new> cup")
            assert int(newest.id[4:]) == 1 and asked == [""]
            assert await mcp_server._named(client, "a cup") == [] and asked == [""]
            with pytest.raises(Exception, match=r"no look <no> .* <new>, <other>, <old>"):
                await mcp_server._named(client, "a <no> cup")
            listed = [c async for c in mcp_server._concepts(client)]
            assert [int(c.id[4:]) for c in listed] == [1, 2, 3, 4, 5]

    asyncio.run(ask())
