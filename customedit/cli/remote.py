"""What commands that talk to a service over REST have in common: connection, options, answers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from customedit.cli import console, outputs
from customedit.cli.command_errors import CommandFailed
from customedit.errors import InputError
from customedit.schemas.validation import input_error

if TYPE_CHECKING:
    from customedit.client import CustomEdit
    from customedit.schemas.answers import Document, Estimate

UrlOption = Annotated[
    str | None,
    typer.Option("--url", envvar="CUSTOMEDIT_SERVER", help="The service's address."),
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        "--key", envvar="CUSTOMEDIT_KEY", show_envvar=True, help="An API key of yours, ce_..."
    ),
]
LimitOption = Annotated[int, typer.Option("--limit", min=1, max=100, help="Most to be shown.")]
CursorOption = Annotated[
    str | None,
    typer.Option("--cursor", help="Go on after this item: as the end of the list before names it."),
]
TimeoutOption = Annotated[
    float | None,
    typer.Option("--timeout", min=0, help="Seconds to wait at most; unset: for ever."),
]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="The folder to write into.")]
Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="One or several ids.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="Its id.")]


def connection(url: str | None, key: str | None) -> tuple[str, str]:
    """The address and the key that are given.

    Raises:
        InputError: one is missing.
    """
    for name, value, variable in (("url", url, "SERVER"), ("key", key, "KEY")):
        if not value:
            raise InputError(name, "is missing", f"give --{name}, or set CUSTOMEDIT_{variable}")
    assert url is not None and key is not None
    return url, key


@contextmanager
def open_client(url: str | None, key: str | None) -> Iterator[CustomEdit]:
    """A client; what goes wrong is one line."""
    import httpx
    from pydantic import ValidationError

    from customedit.client import ApiError, CustomEdit, JobFailed, TimedOut

    url, key = connection(url, key)
    try:
        with CustomEdit(url, key) as client:
            yield client
    except ApiError as error:
        limit = f" ({error.problem.limit})" if error.problem.limit else ""
        raise CommandFailed(f"{error}{limit}") from None
    except ValidationError as error:
        raise input_error(error) from None
    except (JobFailed, TimedOut) as error:
        raise CommandFailed(str(error)) from None
    except (httpx.TransportError, httpx.InvalidURL) as error:
        problem = f"{url} does not answer ({type(error).__name__})"
        raise InputError("url", problem, "is it the service's address, and does it run?") from None


def show_document(document: Document, lines: list[str], as_json: bool) -> None:
    """Print an answer: its ``lines``, or all of it as JSON."""
    console.say(document.model_dump(mode="json"), lines, as_json)


def show_page(items: list[Any], lines: list[str], next_cursor: str | None, as_json: bool) -> None:
    """Print one page of a list: a line of each of ``items``, and whether there are more."""
    shown = {"items": [item.model_dump(mode="json") for item in items], "next_cursor": next_cursor}
    more = [f"(more: --cursor {next_cursor})"] if next_cursor else []
    console.say(shown, [*lines, *more] or ["none"], as_json)


def show_deleted(ids: list[str], as_json: bool) -> None:
    """Print what was deleted."""
    console.say({"deleted": ids}, [f"{id} is deleted" for id in ids], as_json)


def show_files(written: list[Path], as_json: bool) -> None:
    """Print the paths that were written."""
    console.say({"files": [str(p) for p in written]}, [str(p) for p in written], as_json)


def time_left(estimate: Estimate | None) -> str:
    """How long a job will still take, in words; "" for nothing known."""
    if estimate is None:
        return ""
    if estimate.seconds is None:
        return estimate.unknown or ""
    return f"{estimate.seconds:.0f} s left"


def show_on_line(text: str) -> None:
    """Show what is going on, in one line of a terminal that is written over."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{text}")
        sys.stderr.flush()


def download_files(
    client: CustomEdit, files: dict[Path, str], out: Path, force: bool
) -> list[Path]:
    """Download ``files``, path to address. Raises InputError if one exists, unless ``force``."""
    out.mkdir(parents=True, exist_ok=True)
    for path in files:
        outputs.check_file(path, force)
    for path, address in files.items():
        client.download(address, path)
    return list(files)
