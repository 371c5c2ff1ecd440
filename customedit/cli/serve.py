"""``customedit serve``: the whole service on this machine until Ctrl-C.

``customedit api`` and ``customedit worker`` run one program of the service, in this process.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from customedit import programs
from customedit.cli import console, outputs
from customedit.cli.command_errors import CommandFailed
from customedit.errors import InputError

if TYPE_CHECKING:
    from types import FrameType

    from customedit.devserver.stack import Stack

DATA = Annotated[Path, typer.Option(help="The folder of all data: jobs, pictures, concepts, logs.")]


def serve_command(
    data: DATA = Path("customedit-data"),
    host: Annotated[str, typer.Option(help="Where the front end listens.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Its port; another free one if it is taken.")
    ] = 8000,
    workers: Annotated[int, typer.Option(min=0, max=64, help="Worker processes.")] = 1,
    apis: Annotated[
        int,
        typer.Option(
            min=1,
            max=64,
            help="Processes of the front end, for a load balancer; those after the first listen on "
            "free ports, which are printed.",
        ),
    ] = 1,
    tenant: Annotated[str, typer.Option(help="The tenant whose API key is created.")] = "local",
    base: Annotated[
        str | None,
        typer.Option(help="The base of the workers: mini (bundled), a folder, or a hub name."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Where it runs: auto, cpu, mps, cuda or cuda:N.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Its numbers: auto, float32, bfloat16 or float16.")
    ] = None,
) -> None:
    """Run Redis, S3, the front end and workers on this machine; a second start finds all again.

    The first start creates an API key and keeps it in DATA/api-key, readable by you alone; others
    are created with customedit keys --data DATA. Base, device and numbers that are not given are
    those of the environment (CUSTOMEDIT_BASE, ...), or mini on the first GPU.
    """
    from customedit.devserver.stack import Stack
    from customedit.devserver.supervisor import LocalError

    outputs.check_folder(data, force=True, field="data")
    options = {"base": base, "device": device, "dtype": dtype}
    given = {name: value for name, value in options.items() if value is not None}
    if base is not None and Path(base).exists():
        given["base"] = str(Path(base).resolve())  # workers run elsewhere
    _check(given)
    stack = Stack(
        data, host=host, port=port, workers=workers, apis=apis, say=console.status, given=given
    )
    ended = end_on_signals(stack)
    try:
        with stack:
            key = local_key(stack, tenant)
            console.status(f"ready at {stack.url}  (API: {stack.url}/openapi.json)")
            for other in stack.urls[1:]:
                console.status(f"also at {other}")
            console.status(f"page: {stack.url}/")
            console.status(f"API key of tenant {tenant}: in {key}")
            console.status("Ctrl-C stops it; unfinished jobs go on at the next start")
            stack.run()
    except LocalError as error:
        if not ended:
            raise CommandFailed(str(error)) from None


def _check(given: dict[str, str]) -> None:
    """Raises InputError that names the option of a setting that cannot be used."""
    from customedit.config.settings import PREFIX, Settings

    try:
        Settings.of_environment(**given)
    except InputError as error:
        name = error.field.removeprefix(PREFIX).lower()
        if name in given:
            raise InputError(
                name, error.problem, f"see customedit serve --help, --{name}"
            ) from None
        raise


def api_command() -> None:
    """Run the front end of the service: the REST API and the page.

    The environment variables CUSTOMEDIT_* are its settings (docs/settings.md), such as
    CUSTOMEDIT_REDIS_URL and CUSTOMEDIT_S3_ENDPOINT. SIGTERM or Ctrl-C stops it.
    """
    programs.run("api")


def worker_command() -> None:
    """Run a worker of the service, which trains concepts and draws edits.

    The environment variables CUSTOMEDIT_* are its settings (docs/settings.md), such as
    CUSTOMEDIT_REDIS_URL and CUSTOMEDIT_S3_ENDPOINT. SIGTERM or Ctrl-C stops it.
    """
    programs.run("worker")


def local_key(stack: Stack, tenant: str) -> Path:
    """The file with the API key of ``tenant``, created unless a valid one exists.

    The key may do everything of its tenant: whoever can read the file runs the service.
    """
    from customedit.jobs.journal import Journal
    from customedit.jobs.redis import connect
    from customedit.schemas.keys import SCOPES
    from customedit.storage.store import Storage
    from customedit.tenants.access import ApiKeys

    settings, file = stack.settings(), stack.folder / "api-key"
    with connect(settings) as client:
        keys = ApiKeys(client, settings, Journal(Storage(settings)))
        before = keys.verify(file.read_text().strip()) if file.exists() else None
        if before is not None and before.tenant == tenant:
            return file
        _, text = keys.create(tenant, name="made by customedit serve", scopes=SCOPES)
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as out:
        out.write(text + "\n")
    return file


def end_on_signals(stack: Stack) -> list[int]:
    """SIGINT and SIGTERM end the stack in order; returns the list of those received."""
    received: list[int] = []

    def end(number: int, _: FrameType | None) -> None:
        received.append(number)
        stack.end()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    return received
