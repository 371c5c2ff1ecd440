"""An MCP server over a service: assistants teach looks and edit pictures, with tools over stdio.

The Model Context Protocol (modelcontextprotocol.io), by its Python SDK. Pictures are files of the
machine that the server runs on; results are shown to the assistant and may be written to files.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import httpx
from mcp.server.mcpserver import Context, Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field, ValidationError

import customedit
from customedit.boxes import Box, check_box
from customedit.client.aio import AsyncCustomEdit
from customedit.client.errors import ApiError, JobFailed, TimedOut
from customedit.errors import InputError
from customedit.prompt_syntax import tokens_in
from customedit.schemas.answers import Concept, EditResult, Job
from customedit.schemas.concepts import TrainingOptions
from customedit.schemas.requests import ConceptUse
from customedit.schemas.validation import input_error

WAIT_S: Final = 600.0
"""How long a tool waits for its job, unless told otherwise; then the assistant calls ``wait``.

The bundled base learns a look within it, so that a look is taught and painted in two calls.
"""

TOLD_EACH_S: Final = 3.0
"""How often a waiting tool tells the caller how far its job is, which also keeps the call alive in
clients that give up on a silent one."""

INSTRUCTIONS: Final = """
Custom-Edit paints a look that it was taught from a few reference pictures into other pictures.

1. teach: 3 to 6 reference pictures of one look, the noun that they show, and a token such as
   <plaid>.
2. edit: a picture, what it shows (source_prompt) and what it shall show (target_prompt, which names
   the look as "<plaid> patterned teapot").

Both wait for their end; if they answer "running", call wait with the job. An edited picture has an
id (out_...), which edit takes as the next picture. look shows any picture or look by its id. With
several looks in one prompt, say with regions where each of them acts.
"""

Seconds = Annotated[float, Field(ge=0, le=3600, description="Seconds to wait for the end.")]
Content = list[str | Image]


def make_server(url: str, key: str) -> MCPServer:
    """The server of the service at ``url``, with an API ``key`` of its tenant; ``run`` it."""
    server = MCPServer("customedit", instructions=INSTRUCTIONS, version=customedit.__version__)
    tools = _Tools(url, key)
    for tool in (tools.teach, tools.edit, tools.wait, tools.look, tools.concepts):
        server.add_tool(tool, structured_output=False)
    return server


class _Tools:
    def __init__(self, url: str, key: str) -> None:
        self._url, self._key = url, key

    @contextlib.asynccontextmanager
    async def _client(self) -> AsyncIterator[AsyncCustomEdit]:
        """A client; what goes wrong is told to the assistant in words."""
        try:
            async with AsyncCustomEdit(self._url, self._key) as client:
                yield client
        except ApiError as error:
            limit = f" ({error.problem.limit})" if error.problem.limit else ""
            raise ToolError(f"{error}{limit}") from None
        except JobFailed as error:
            raise ToolError(str(error)) from None
        except ValidationError as error:
            raise ToolError(str(input_error(error))) from None
        except httpx.TransportError as error:
            problem = f"the service at {self._url} does not answer ({type(error).__name__})"
            raise ToolError(problem) from None

    async def teach(
        self,
        references: Annotated[
            list[str],
            Field(min_length=1, max_length=20, description="Paths of pictures of the look."),
        ],
        noun: Annotated[str, Field(description='What they show, such as "teapot".')],
        context: Context,
        token: Annotated[
            str, Field(description="What prompts will call the look, such as <plaid>.")
        ] = "<look>",
        attribute: Annotated[
            str, Field(description="What of the pictures is the look; empty: the whole object.")
        ] = "patterned",
        steps: Annotated[
            int | None, Field(ge=1, le=20_000, description="Training steps; default: the base's.")
        ] = None,
        class_images: Annotated[
            int | None,
            Field(
                ge=0,
                le=1000,
                description="Pictures of the noun that the base draws first, so that it forgets "
                "nothing; 0 is quick. Default: the base's.",
            ),
        ] = None,
        wait_seconds: Seconds = WAIT_S,
    ) -> Content:
        """Teach a look from reference pictures (3 to 6 are best), and wait until it is learned."""
        async with self._client() as client:
            images = [await _picture(client, path) for path in references]
            job = await client.customize(
                references=images,
                noun=noun,
                token=token,
                attribute=attribute,
                training=TrainingOptions(steps=steps, class_images=class_images),
            )
            return await self._outcome(client, job, wait_seconds, context)

    async def edit(
        self,
        picture: Annotated[
            str, Field(description="Path of a picture, or the id of one (out_... or img_...).")
        ],
        target_prompt: Annotated[
            str, Field(description="What it shall show; looks are named by their tokens.")
        ],
        context: Context,
        source_prompt: Annotated[
            str, Field(description="What it shows now, in words like those of the target.")
        ] = "",
        change: Annotated[
            float | None, Field(ge=0, le=1, description="How much changes; 0.5 is usual.")
        ] = None,
        method: Annotated[
            Literal["p2p", "sdedit"] | None,
            Field(
                description="p2p keeps shapes and needs source_prompt; sdedit paints more freely: "
                "with source_prompt in the region of the words that change, without it everywhere."
            ),
        ] = None,
        mask: Annotated[
            str | None, Field(description="Path of a mask, white where the picture may change.")
        ] = None,
        regions: Annotated[
            dict[str, list[float] | str] | None,
            Field(
                description="Where looks act, by their tokens: left, top, right and bottom as "
                'fractions of the picture\'s sides, such as {"<plaid>": [0.1, 0.2, 0.6, 0.9]}, or '
                "the path of a mask that is white there. Others act everywhere.",
            ),
        ] = None,
        seed: Annotated[int, Field(ge=0, description="Of what sdedit draws.")] = 0,
        steps: Annotated[int, Field(ge=1, le=200, description="Sampling steps.")] = 50,
        save_to: Annotated[
            str | None, Field(description="Path of the PNG file to write the result to.")
        ] = None,
        wait_seconds: Seconds = WAIT_S,
    ) -> Content:
        """Edit a picture by words, with looks that were taught, and show the result."""
        async with self._client() as client:
            named = await _named(client, target_prompt)
            uses = await _uses(client, named, regions or {})
            job = await client.edit(
                image=await _picture(client, picture),
                source_prompt=source_prompt,
                target_prompt=target_prompt,
                concepts=uses,
                change=change,
                method=method or ("p2p" if source_prompt else "sdedit"),
                mask=None if mask is None else await _picture(client, mask),
                seeds=[seed],
                steps=steps,
            )
            return await self._outcome(client, job, wait_seconds, context, save_to)

    async def wait(
        self,
        job: Annotated[str, Field(description="The id of the job, job_...")],
        context: Context,
        save_to: Annotated[
            str | None, Field(description="Path of the PNG file to write the result to.")
        ] = None,
        wait_seconds: Seconds = WAIT_S,
    ) -> Content:
        """Wait for a job that was still running, and show its result."""
        async with self._client() as client:
            found = await client.job(job)
            return await self._outcome(client, found, wait_seconds, context, save_to)

    async def look(
        self,
        id: Annotated[str, Field(description="out_..., img_..., con_... or job_...")],
    ) -> Content:
        """Show an edited picture, an image, or what a look was taught to be."""
        async with self._client() as client:
            if id.startswith("con_"):
                concept = await client.concept(id)
                return [_about(concept), *await _shown(client, concept.preview_url, "jpeg")]
            if id.startswith("img_"):
                image = await client.image(id)
                kind = image.media_type.rpartition("/")[2]
                facts = f"{id}: {image.width} x {image.height} pixels"
                return [facts, *await _shown(client, image.url, kind)]
            name = f"job_{id.split('_')[1]}" if id.startswith("out_") else id
            job = await client.job(name)
            if not isinstance(job.result, EditResult):
                return [_state(job)]
            wanted = [o for o in job.result.outputs if id in (o.id, job.id)]
            if not wanted:
                raise ToolError(f"{job.id} has no picture {id}")
            shown: Content = [_state(job)]
            for output in wanted:
                shown += [output.id, *await _shown(client, output.url, "png")]
            return shown

    async def concepts(self) -> Content:
        """List the looks that were taught, newest first."""
        async with self._client() as client:
            lines = [_about(concept) async for concept in _concepts(client)]
        return ["\n".join(lines) or "none yet; teach one"]

    async def _outcome(
        self,
        client: AsyncCustomEdit,
        job: Job,
        seconds: float,
        context: Context,
        save_to: str | None = None,
    ) -> Content:
        """What came of a job, or that it goes on."""
        done = await _until(client, job, seconds, context)
        if not done.finished:
            return [f"{_state(done)}\nCall wait with the job {done.id}."]
        if not isinstance(done.result, EditResult):
            concept = await client.concept(done.concept or "")
            shown = await _shown(client, concept.preview_url, "jpeg")
            return [f"{_state(done)}\n{_about(concept)}", *shown, *done.warnings]
        best = next(o for o in done.result.outputs if o.best)
        data = await client.download(best.url)
        lines = [_state(done), f"picture: {best.id}"]
        if save_to is not None:
            Path(save_to).expanduser().write_bytes(data)
            lines.append(f"written to {save_to}")
        return ["\n".join(lines), Image(data=data, format="png"), *done.warnings]


async def _until(client: AsyncCustomEdit, job: Job, seconds: float, context: Context) -> Job:
    """The job once it has succeeded, or as it is after ``seconds``.

    The caller is told every few seconds how far it is: seconds that are gone, seconds in all (where
    the service can tell), and the state in words.

    Raises:
        JobFailed: it failed or was cancelled.
    """
    start = time.monotonic()
    while True:
        gone = time.monotonic() - start
        await context.report_progress(gone, _total(job, gone), _state(job))
        try:
            left = max(seconds - gone, 0)
            return await client.wait(job, timeout=min(left, TOLD_EACH_S))
        except TimedOut as running:
            assert isinstance(running.job, Job)
            job = running.job
        if time.monotonic() - start >= seconds:
            return job


def _total(job: Job, gone: float) -> float | None:
    """Seconds from now's wait to the job's end, ``gone`` of which have passed; None: not known."""
    left = None if job.estimate is None else job.estimate.seconds
    return None if left is None else gone + left


async def _picture(client: AsyncCustomEdit, name: str) -> str:
    """The id of a picture: of one that is there, or of a file, which is uploaded.

    Raises:
        ToolError: there is no such file.
    """
    path = Path(name).expanduser()
    if name.startswith(("img_", "out_")) and not path.exists():
        return name
    if not path.is_file():
        raise ToolError(f"{name} is not a file on this machine, and no id of a picture")
    return (await client.upload(path)).id


async def _named(client: AsyncCustomEdit, prompt: str) -> list[Concept]:
    """The newest concept that is ready, for each token that ``prompt`` names.

    Raises:
        ToolError: there is none.
    """
    tokens = tokens_in(prompt)
    known: dict[str, Concept] = {}
    if not tokens:
        return []
    async for concept in _concepts(client):
        if concept.state == "ready":
            known.setdefault(concept.token, concept)
        if known.keys() >= set(tokens):
            break
    for token in tokens:
        if token not in known:
            there = ", ".join(known) or "none"
            raise ToolError(f"no look {token} has been taught; there are: {there}")
    return [known[token] for token in tokens]


async def _concepts(client: AsyncCustomEdit) -> AsyncIterator[Concept]:
    """All concepts of the tenant, newest first, read as far as they are asked for."""
    cursor = None
    while True:
        page = await client.concepts(cursor=cursor, limit=100)
        for concept in page.items:
            yield concept
        cursor = page.next_cursor
        if cursor is None:
            return


async def _uses(
    client: AsyncCustomEdit, named: Sequence[Concept], regions: Mapping[str, list[float] | str]
) -> list[ConceptUse]:
    """The named concepts, each with its part of the picture. regions: boxes and masks by token.

    Raises:
        ToolError: a region is of no token of the prompt, is no box, or names no picture.
    """
    tokens = [concept.token for concept in named]
    for token in regions:
        if token not in tokens:
            there = ", ".join(tokens) or "none"
            raise ToolError(f"regions: the target prompt does not name {token}; it names: {there}")
    boxes = {token: box for token, box in regions.items() if not isinstance(box, str)}
    for token, box in boxes.items():
        try:
            check_box(box, f"the region of {token}")
        except InputError as error:
            raise ToolError(str(error)) from None
    uses = []
    for concept in named:  # masks are sent once all boxes are right
        mask = regions.get(concept.token)
        sent = await _picture(client, mask) if isinstance(mask, str) else None
        uses.append(ConceptUse(id=concept.id, box=_sides(boxes.get(concept.token)), mask=sent))
    return uses


def _sides(box: list[float] | None) -> Box | None:
    return None if box is None else (box[0], box[1], box[2], box[3])


async def _shown(client: AsyncCustomEdit, url: str | None, format: str) -> Content:
    if url is None:
        return []
    return [Image(data=await client.download(url), format=format)]


def _about(concept: Concept) -> str:
    words = " ".join(part for part in (concept.token, concept.attribute, concept.noun) if part)
    return f'{concept.id} ({concept.state}): name it in prompts as "{words}"'


def _state(job: Job) -> str:
    facts: list[Any] = [f"job {job.id}: {job.state}"]
    if job.queue_position:
        facts.append(f"{job.queue_position} jobs before it")
    if job.estimate is not None:
        left = job.estimate.seconds
        facts.append(job.estimate.unknown if left is None else f"about {left:.0f} s left")
    return ", ".join(filter(None, facts))
