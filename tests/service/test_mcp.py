"""The MCP server with the SDK's own client over stdio: from reference pictures to an edited one."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from PIL import Image

from customedit.client import CustomEdit

from .conftest import LOOK, SOURCE, Service

pytestmark = pytest.mark.timeout(600)  # the first test starts the service

ROOT = Path(__file__).parents[2]


def parameters(service: Service) -> StdioServerParameters:
    environment = {
        "CUSTOMEDIT_SERVER": service.url,
        "CUSTOMEDIT_KEY": service.key,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    command = "from customedit.cli import main; main()"
    return StdioServerParameters(
        command=sys.executable, args=["-c", command, "mcp"], env=environment
    )


def texts(result: Any) -> str:
    return "\n".join(part.text for part in result.content if part.type == "text")


def pictures(result: Any) -> list[Image.Image]:
    return [
        Image.open(io.BytesIO(base64.b64decode(part.data)))
        for part in result.content
        if part.type == "image"
    ]


def test_from_references_to_a_picture_in_two_calls(service: Service, tmp_path: Path) -> None:
    """The first call outlasts several reports of how far it is, each later than the one before."""
    told: list[tuple[float, float | None, str | None]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total, message))

    async def talk() -> None:
        async with Client(stdio_client(parameters(service))) as client:
            tools = {tool.name for tool in (await client.list_tools()).tools}
            assert tools == {"teach", "edit", "wait", "look", "concepts"}
            taught = await client.call_tool(
                "teach",
                {
                    "references": [str(path) for path in LOOK.images[:3]],
                    "noun": LOOK.noun,
                    "attribute": LOOK.attribute,
                    "token": "<mcp>",
                    "steps": 30,
                    "class_images": 0,
                },
                progress_callback=on_progress,
            )
            assert not taught.is_error, texts(taught)
            seconds = [at for at, _, _ in told]
            assert len(told) >= 2 and seconds == sorted(set(seconds))
            assert all(total is None or total >= at for at, total, _ in told)
            assert all(message and message.startswith("job job_") for _, _, message in told)
            assert "succeeded" in texts(taught) and '"<mcp> ' in texts(taught)
            target = SOURCE.target_prompt(LOOK).replace(LOOK.token, "<mcp>")
            edited = await client.call_tool(
                "edit",
                {
                    "picture": str(SOURCE.image),
                    "source_prompt": SOURCE.prompt,
                    "target_prompt": target,
                    "regions": {"<mcp>": [0.2, 0.2, 0.8, 0.9]},
                    "steps": 4,
                    "save_to": str(tmp_path / "edited.png"),
                },
            )
            assert not edited.is_error, texts(edited)
            (picture,) = pictures(edited)
            assert picture.size == Image.open(SOURCE.image).size
            assert Image.open(tmp_path / "edited.png").size == picture.size
            with CustomEdit(service.url, service.key) as rest:
                (use,) = rest.jobs(kind="edit", limit=1).items[0].request["concepts"]
                assert use["box"] == [0.2, 0.2, 0.8, 0.9]
            nothing = [0.6, 0.2, 0.2, 0.9]
            for regions, words in (
                (
                    {"<mcp>": nothing},
                    "the region of <mcp>: is 0.6, 0.2, 0.2, 0.9, which has no area",
                ),
                ({"<mcp>": [0.1, 0.2]}, "give left, top, right, bottom"),
                ({"<other>": nothing}, "does not name <other>; it names: <mcp>"),
                ({"<mcp>": "/nowhere.png"}, "/nowhere.png is not a file"),
            ):
                asked = {
                    "picture": str(SOURCE.image), "source_prompt": SOURCE.prompt,
                    "target_prompt": target, "regions": regions,
                }  # fmt: skip
                refused = await client.call_tool("edit", asked)
                assert refused.is_error and words in texts(refused), texts(refused)
            output = next(w for w in texts(edited).split() if w.startswith("out_"))

            again = await client.call_tool(
                "edit",
                {
                    "picture": output, "source_prompt": SOURCE.prompt, "target_prompt": "a red cup",
                    "steps": 4, "wait_seconds": 0,
                },
            )  # fmt: skip
            assert "Call wait with the job" in texts(again)
            job = next(w.strip(":.") for w in texts(again).split() if w.startswith("job_"))
            done = await client.call_tool("wait", {"job": job})
            assert "succeeded" in texts(done) and len(pictures(done)) == 1
            assert len(pictures(await client.call_tool("look", {"id": output}))) == 1
            assert "<mcp>" in texts(await client.call_tool("concepts", {}))

    asyncio.run(talk())


def test_what_goes_wrong_is_told_in_words(service: Service) -> None:
    async def talk() -> None:
        async with Client(stdio_client(parameters(service))) as client:
            for arguments, words in (
                ({"picture": "/nowhere.png", "target_prompt": "a red cup"}, "is not a file"),
                ({"picture": str(SOURCE.image), "target_prompt": "a <no> cup"}, "no look <no>"),
                ({"picture": "img_1", "target_prompt": "a red cup"}, "img_ and 64 hex"),
                ({"picture": "img_" + "0" * 64, "target_prompt": "a cup"}, "you have no image"),
            ):
                refused = await client.call_tool("edit", arguments)
                assert refused.is_error and words in texts(refused), texts(refused)

    asyncio.run(talk())
