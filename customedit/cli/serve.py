"""``customedit serve``: the whole service on this machine until Ctrl-C."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from customedit.cli import console

if TYPE_CHECKING:
    from customedit.devserver.stack import Stack

DATA = Annotated[
    Path, typer.Option(help="Everything that is kept: jobs, pictures, concepts, logs.")
]


def serve_command(
    data: DATA = Path("customedit-data"),
    host: Annotated[str, typer.Option(help="Where the front end listens.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Its port; another free one if it is taken.")
    ] = 8000,
    workers: Annotated[int, typer.Option(min=0, max=64, help="Worker processes.")] = 1,
    tenant: Annotated[str, typer.Option(help="Whose API key is made at the first start.")] = (
        "local"
    ),
) -> None:
    """Run Redis, S3, the front end and workers on this machine; a second start finds it all again.

    An API key is made at the first start and kept in DATA/api-key, for its owner alone to read.
    """
    with console.mendable():
        from customedit.devserver.stack import Stack
        from customedit.devserver.supervisor import LocalError

        stack = Stack(data, host=host, port=port, workers=workers, say=say)
        ended = end_on_signals(stack)
        try:
            with stack:
                key = local_key(stack, tenant)
                say(f"ready at {stack.url}  (API: {stack.url}/openapi.json)")
                say(f"page: {stack.url}/")
                say(f"API key of tenant {tenant}: in {key}")
                say("Ctrl-C stops it; what was begun goes on at the next start")
                stack.run()
        except LocalError as error:
            if not ended:
                console.errors.print(f"[red]error:[/red] {error}", highlight=False, soft_wrap=True)
                raise typer.Exit(1) from None


def say(line: str) -> None:
    """One line of what happens, for people."""
    console.errors.print(line, highlight=False, soft_wrap=True)


def local_key(stack: Stack, tenant: str) -> Path:
    """The file with the API key of ``tenant``, made if there is none that is still good."""
    from customedit.jobs.journal import Journal
    from customedit.jobs.redis import connect
    from customedit.storage.store import Storage
    from customedit.tenants.access import ApiKeys

    settings, file = stack.settings(), stack.folder / "api-key"
    with connect(settings) as client:
        keys = ApiKeys(client, settings, Journal(Storage(settings)))
        before = keys.verify(file.read_text().strip()) if file.exists() else None
        if before is not None and before.tenant == tenant:
            return file
        _, text = keys.create(tenant, name="made by customedit serve")
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as out:
        out.write(text + "\n")
    return file


def end_on_signals(stack: Stack) -> list[int]:
    """SIGINT and SIGTERM end the stack in order; returns the list that they are noted in."""
    seen: list[int] = []

    def heard(number: int, _: object) -> None:
        seen.append(number)
        stack.end()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, heard)
    return seen
