"""The command line: ``customedit customize | edit | sweep | replay | concept | ...``.

``study`` and ``lookbench`` measure the method. ``jobs``, ``concepts``, ``images`` and ``batches``
talk to a service. The service itself has ``serve``, ``demo``, ``api``,
``worker``, ``keys`` and ``recover``. Whatever takes seconds to import is imported by the command
that needs it. How commands fail is in ``command_errors``.
"""

from __future__ import annotations

import os
from typing import Annotated

import typer

import customedit
from customedit.cli import (
    concept,
    customize,
    demo,
    doctor,
    edit,
    keys,
    lookbench,
    mcp,
    models,
    remote_catalogue,
    remote_jobs,
    replay,
    serve,
    service,
    study,
)
from customedit.cli.command_errors import Commands

for _library in ("DIFFUSERS", "TRANSFORMERS"):  # read when they are first imported
    os.environ.setdefault(f"{_library}_VERBOSITY", "error")

app = typer.Typer(
    name="customedit",
    cls=Commands,
    help="Teach a text-to-image model a look from a few images, then paint it into any picture.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    # rich prints bold and dim text even where NO_COLOR asks for plain text (no-color.org)
    rich_markup_mode=None if os.environ.get("NO_COLOR") else "rich",
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"customedit {customedit.__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """Teach a text-to-image model a look from a few images, then paint it into any picture."""


app.command("customize")(customize.customize_command)
app.command("edit")(edit.edit_command)
app.command("sweep")(edit.sweep_command)
app.command("replay")(replay.replay_command)
app.command("study")(study.study_command)
app.add_typer(lookbench.app, name="lookbench")
app.command("doctor")(doctor.doctor_command)
app.add_typer(concept.app, name="concept")
app.add_typer(models.app, name="models")
app.add_typer(keys.app, name="keys")
app.add_typer(remote_jobs.jobs, name="jobs", no_args_is_help=True)
app.add_typer(remote_catalogue.concepts, name="concepts", no_args_is_help=True)
app.add_typer(remote_catalogue.images, name="images", no_args_is_help=True)
app.add_typer(remote_jobs.batches, name="batches", no_args_is_help=True)
app.command("recover")(service.recover_command)
app.command("serve")(serve.serve_command)
app.command("api")(serve.api_command)
app.command("worker")(serve.worker_command)
app.command("mcp")(mcp.mcp_command)
app.command("demo")(demo.demo_command)


def main() -> None:
    """The ``customedit`` command."""
    app()
