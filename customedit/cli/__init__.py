"""The command line: ``customedit customize | edit | sweep | replay | study | ...``.

``concept``, ``models`` and ``doctor`` look after files and machine.
The service has ``serve``, ``demo``, ``keys`` and ``recover``. Whatever takes seconds to import is
imported by the command that needs it. Errors that the user can mend are one line on stderr and exit
status 2.
"""

from __future__ import annotations

import os

import typer

from customedit.cli import concept, customize, demo, doctor, edit, models, serve, service, study

app = typer.Typer(
    name="customedit",
    help="Teach a text-to-image model a look from a few images, then paint it into any picture.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)
app.command("customize")(customize.customize_command)
app.command("edit")(edit.edit_command)
app.command("sweep")(edit.sweep_command)
app.command("replay")(edit.replay_command)
app.command("study")(study.study_command)
app.command("doctor")(doctor.doctor_command)
app.add_typer(concept.app, name="concept")
app.add_typer(models.app, name="models")
app.add_typer(service.keys, name="keys")
app.command("recover")(service.recover_command)
app.command("serve")(serve.serve_command)
app.command("demo")(demo.demo_command)


def main() -> None:
    """The ``customedit`` command."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # read when it is first imported
    app()
