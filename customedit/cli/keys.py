"""``customedit keys``: API keys of a service, in its stores or over its REST API."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from customedit.cli import console
from customedit.cli.remote import KeyOption, open_client
from customedit.cli.service import DataOption, open_stores
from customedit.errors import InputError

if TYPE_CHECKING:
    from customedit.schemas import answers as d
    from customedit.tenants.access import ApiKey, ApiKeys

app = typer.Typer(
    help="API keys: of all tenants for those who run the service, or, with --url, of your own "
    "tenant over REST.",
    no_args_is_help=True,
)

ScopeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--scope",
        help="What the key may do; repeat it. images:write, edits:write, concepts:write, read, "
        "admin. Default: all but admin.",
    ),
]
UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="The address of a service: act over REST, with a --key of the scope admin and for its "
        "tenant. Unset: in the stores, as the settings name them.",
    ),
]


@contextmanager
def _keys(data: Path | None) -> Iterator[ApiKeys]:
    from customedit.jobs.journal import Journal
    from customedit.tenants.access import ApiKeys

    with open_stores(data) as (settings, client, storage):
        yield ApiKeys(client, settings, Journal(storage))


def _check_remote(tenant: str | None, data: Path | None) -> None:
    """Refuse what contradicts --url.

    Raises:
        InputError: it is given.
    """
    if tenant is not None:
        raise InputError("tenant", "is that of the --key", "leave it out with --url")
    if data is not None:
        raise InputError("data", "contradicts --url", "leave out one of the two")


@app.command("create")
def create_command(
    tenant: Annotated[
        str | None,
        typer.Argument(help="Who it is for: a-z, 0-9 and -, up to 63. With --url: left out."),
    ] = None,
    name: Annotated[str, typer.Option("--name", help="A note to find it again.")] = "",
    scope: ScopeOption = None,
    days: Annotated[float | None, typer.Option("--days", help="Days until it expires.")] = None,
    data: DataOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Create a key and print it, this once: only its hash is stored."""
    given: dict[str, Any] = {} if not scope else {"scopes": scope}
    if url is not None:
        _check_remote(tenant, data)
        with open_client(url, key) as client:
            made = client.make_key(name=name, days=days, **given)
        document, text = made.model_dump(mode="json"), made.key
        line = f"{made.id}: {' '.join(made.scopes)}"
    else:
        if tenant is None:
            raise InputError("tenant", "is missing", "say who the key is for")
        with _keys(data) as api_keys:
            record, text = api_keys.create(tenant, name=name, days=days, **given)
        document = _shown(record) | {"key": text}
        line = f"{record.id} of {tenant}: {' '.join(record.scopes)}"
    console.say(document, [text, line], as_json)


@app.command("list")
def list_command(
    tenant: Annotated[str | None, typer.Argument(help="Only this tenant's.")] = None,
    data: DataOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """List keys, oldest first, with --url newest first; never the keys themselves."""
    if url is not None:
        _check_remote(tenant, data)
        with open_client(url, key) as client:
            items = client.keys().items
        shown = [item.model_dump(mode="json") for item in items]
        lines = list(map(_line, items))
    else:
        with _keys(data) as api_keys:
            shown = [_shown(record) for record in api_keys.list(tenant)]
        lines = [
            f"{k['id']}  {k['tenant']:<16} {k['state']:<8} {' '.join(k['scopes'])}  {k['name']}"
            for k in shown
        ]
    console.say({"keys": shown}, lines or ["no keys"], as_json)


@app.command("revoke")
def revoke_command(
    id: Annotated[str, typer.Argument(help="The key's id, key_...")],
    data: DataOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """End a key at once. With --url, not the one that you use."""
    if url is not None:
        _check_remote(None, data)
        with open_client(url, key) as client:
            ended = client.revoke_key(id)
        console.say(ended.model_dump(mode="json"), [f"{ended.id} is revoked"], as_json)
        return
    with _keys(data) as api_keys:
        record = api_keys.revoke(id)
        if record is None:
            raise InputError("id", f"no key is called {id}", "see customedit keys list")
    console.say(_shown(record), [f"{record.id} of {record.tenant} is revoked"], as_json)


def _line(key: d.ApiKey) -> str:
    """A key in one line, as the service tells of it."""
    used = "never used" if key.last_used_at is None else f"used {key.last_used_at:%F %H:%M}"
    mark = "*" if key.current else " "
    return f"{key.id}{mark} {key.state:<8} {used:<21} {' '.join(key.scopes)}  {key.name}".rstrip()


def _shown(key: ApiKey) -> dict[str, Any]:
    """A key as people see it: no hash."""
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
        "state": key.state(time.time()),
        **times,
    }
