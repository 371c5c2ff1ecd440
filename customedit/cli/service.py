"""``customedit recover``, and the stores of a service: for those who run it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from customedit.cli import console
from customedit.errors import InputError

if TYPE_CHECKING:
    from redis import Redis

    from customedit.config.settings import Settings
    from customedit.storage.store import Storage

DataOption = Annotated[
    Path | None,
    typer.Option("--data", help="The data folder of a customedit serve that runs on this machine."),
]


@contextmanager
def open_stores(data: Path | None = None) -> Iterator[tuple[Settings, Redis, Storage]]:
    """Redis and S3 as ``CUSTOMEDIT_*`` names them, or those of a local service.

    data: the folder of ``customedit serve``. Errors are one line, exit status 2.
    """
    from redis.exceptions import RedisError

    from customedit.config.settings import Settings
    from customedit.jobs.redis import connect
    from customedit.storage.store import Storage, StorageError

    settings = Settings.of_environment(**_local_settings(data))
    try:
        with connect(settings) as client:
            yield settings, client, Storage(settings)
    except RedisError as error:
        problem = f"Redis does not answer ({type(error).__name__})"
        if data is not None:
            remedy = f"start the service first: customedit serve --data {data}"
            raise InputError("data", problem, remedy) from None
        raise InputError("CUSTOMEDIT_REDIS_URL", problem, "start it or fix the URL") from None
    except StorageError as error:
        raise InputError("CUSTOMEDIT_S3_ENDPOINT", str(error), "is S3 up?") from None


def _local_settings(data: Path | None) -> dict[str, str]:
    """Where the servers of a local service are, as settings; {} without ``data``.

    Raises:
        InputError: the folder has none.
    """
    if data is None:
        return {}
    from customedit.config.settings import PREFIX
    from customedit.devserver.data_folder import LocalFolder

    folder = LocalFolder(data / "servers")
    if not (folder.path / "local.json").is_file():
        problem = f"{data} is not the data folder of a local service"
        raise InputError("data", problem, "give the folder of customedit serve --data")
    folder.read()
    found = folder.environment()
    return {name.removeprefix(PREFIX).lower(): value for name, value in found.items()}


def recover_command(as_json: console.JsonOption = False) -> None:
    """Put back into Redis whatever the journal in S3 has: jobs, images, concepts, keys.

    For a Redis that lost its data. It may run twice, and while the service runs.
    """
    from dataclasses import asdict

    with open_stores() as (settings, client, storage):
        from customedit.jobs.recovery import recover

        done = recover(client, storage, settings)
    lines = [f"{name:<10} {count}" for name, count in asdict(done).items() if name != "unreadable"]
    lines += [f"unreadable: {key}" for key in done.unreadable]
    console.say(asdict(done), lines, as_json)
    if done.unreadable:
        raise typer.Exit(1)
