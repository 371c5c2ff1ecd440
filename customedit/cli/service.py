"""``customedit keys`` and ``customedit recover``: for those who run the service."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from customedit.cli import console
from customedit.errors import InputError

if TYPE_CHECKING:
    from redis import Redis

    from customedit.config.settings import Settings
    from customedit.storage.store import Storage
    from customedit.tenants.access import ApiKey, ApiKeys

keys = typer.Typer(name="keys", help="API keys of the service's tenants.", no_args_is_help=True)

ScopeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--scope",
        help="What the key may do; repeat it. images:write, edits:write, concepts:write, read, "
        "admin. Default: all but admin.",
    ),
]


DataOption = Annotated[
    Path | None,
    typer.Option("--data", help="The data folder of a customedit serve that runs on this machine."),
]


@contextmanager
def _service(data: Path | None = None) -> Iterator[tuple[Settings, Redis, Storage]]:
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


@contextmanager
def _keys(data: Path | None) -> Iterator[ApiKeys]:
    from customedit.jobs.journal import Journal
    from customedit.tenants.access import ApiKeys

    with _service(data) as (settings, client, storage):
        yield ApiKeys(client, settings, Journal(storage))


@keys.command("create")
def create_command(
    tenant: Annotated[str, typer.Argument(help="Who it is for: a-z, 0-9 and -, up to 63.")],
    name: Annotated[str, typer.Option("--name", help="A note to find it again.")] = "",
    scope: ScopeOption = None,
    days: Annotated[float | None, typer.Option("--days", help="Days until it expires.")] = None,
    data: DataOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Create a key and print it, this once: only its hash is stored."""
    given: dict[str, Any] = {} if not scope else {"scopes": scope}
    with _keys(data) as api_keys:
        key, text = api_keys.create(tenant, name=name, days=days, **given)
    document = _shown(key) | {"key": text}
    console.say(document, [text, f"{key.id} of {tenant}: {' '.join(key.scopes)}"], as_json)


@keys.command("list")
def list_command(
    tenant: Annotated[str | None, typer.Argument(help="Only this tenant's.")] = None,
    data: DataOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """List keys, oldest first; never the keys themselves."""
    with _keys(data) as api_keys:
        shown = [_shown(key) for key in api_keys.list(tenant)]
    lines = [
        f"{k['id']}  {k['tenant']:<16} {k['state']:<8} {' '.join(k['scopes'])}  {k['name']}"
        for k in shown
    ]
    console.say({"keys": shown}, lines or ["no keys"], as_json)


@keys.command("revoke")
def revoke_command(
    id: Annotated[str, typer.Argument(help="The key's id, key_...")],
    data: DataOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """End a key at once."""
    with _keys(data) as api_keys:
        key = api_keys.revoke(id)
        if key is None:
            raise InputError("id", f"no key is called {id}", "see customedit keys list")
    console.say(_shown(key), [f"{key.id} of {key.tenant} is revoked"], as_json)


def recover_command(as_json: console.JsonOption = False) -> None:
    """Put back into Redis whatever the journal in S3 has: jobs, images, concepts, keys.

    For a Redis that lost its data. It may run twice, and while the service runs.
    """
    from dataclasses import asdict

    with _service() as (settings, client, storage):
        from customedit.jobs.recovery import recover

        done = recover(client, storage, settings)
    lines = [f"{name:<10} {count}" for name, count in asdict(done).items() if name != "unreadable"]
    lines += [f"unreadable: {key}" for key in done.unreadable]
    console.say(asdict(done), lines, as_json)
    if done.unreadable:
        raise typer.Exit(1)


def _shown(key: ApiKey) -> dict[str, Any]:
    """A key as people see it: no hash."""
    state = "valid" if key.valid(time.time()) else "revoked" if key.revoked_at else "expired"
    times = {
        name: None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
        for name in ("created_at", "expires_at", "last_used_at")
        for at in [getattr(key, name)]
    }
    return {
        "id": key.id,
        "tenant": key.tenant,
        "name": key.name,
        "scopes": list(key.scopes),
        "state": state,
        **times,
    }
