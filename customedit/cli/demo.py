"""``customedit demo``: from nothing to a finished edit by the whole service, on this machine."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from customedit.cli import console, outputs
from customedit.cli.command_errors import CommandFailed
from customedit.cli.serve import end_on_signals, local_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from customedit.client import CustomEdit
    from customedit.devserver.stack import Stack
    from customedit.schemas import answers

TENANT: Final = "demo"
LOOK: Final = "plaid"
SOURCE: Final = "03-cup"
STRENGTHS: Final = [0.4, 0.6]


def demo_command(
    out: Annotated[
        Path, typer.Option(help="A folder for the pictures and the service's data.")
    ] = Path("demo-output"),
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The port of the front end.")] = 8000,
    keep: Annotated[bool, typer.Option("--keep", help="Leave it running at the end.")] = False,
    training_steps: Annotated[
        int | None, typer.Option(min=1, help="Fewer are faster and teach the look worse.")
    ] = None,
) -> None:
    """Start the service, teach it a look, paint it on a cup; before, after and sheet in OUT."""
    outputs.check_folder(out, force=True)
    from customedit.client import CustomEdit, JobFailed
    from customedit.devserver.stack import Stack
    from customedit.devserver.supervisor import LocalError

    # As Ctrl-C does, so that what runs by then is ended in order at any moment.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Stack(out / "service", port=port, say=console.status) as stack:
            key = local_key(stack, TENANT)
            with CustomEdit(stack.url, key.read_text().strip()) as client:
                edited = show(client, training_steps)
                write(client, edited, out)
            finish(stack, key, out, keep, edited.id)
    except (LocalError, JobFailed) as error:
        raise CommandFailed(str(error)) from None


def show(client: CustomEdit, training_steps: int | None) -> answers.Job:
    """Customize and edit by REST, with progress; the edit's job."""
    from customedit.client import ConceptUse, TrainingOptions
    from customedit.mini import samples

    look = next(x for x in samples.looks() if x.name == LOOK)
    source = next(x for x in samples.sources() if x.name == SOURCE)
    console.status(
        f"uploading {len(look.images)} references, a {look.noun} each, and a picture to edit"
    )
    references = [client.upload(path).id for path in look.images]
    picture = client.upload(source.image)
    learning = client.customize(
        references=references,
        noun=look.noun,
        attribute=look.attribute,
        token=look.token,
        name=f"{look.name}, from the demo",
        training=TrainingOptions(steps=training_steps),
    )
    with bars() as listen:
        learned = client.wait(learning, listen)
    assert learned.concept is not None
    console.status(f"{look.token} is learned: {learned.concept}")
    editing = client.edit(
        image=picture.id,
        source_prompt=source.prompt,
        target_prompt=source.target_prompt(look),
        concepts=[ConceptUse(id=learned.concept)],
        strengths=STRENGTHS,
    )
    with bars() as listen:
        return client.wait(editing, listen)


def write(client: CustomEdit, edited: answers.Job, out: Path) -> None:
    """Before, after and the sheet of all strengths, and what the edit measured of itself."""
    from customedit.schemas.answers import EditResult

    assert isinstance(edited.result, EditResult)
    best = next(o for o in edited.result.outputs if o.best)
    client.download(client.image(edited.request["image"]).url, out / "before.png")
    client.download(best.url, out / "after.png")
    if edited.result.sheet_url is not None:
        client.download(edited.result.sheet_url, out / "sheet.png")
    similar = best.similarities.model_dump(exclude_none=True)
    shown = "  ".join(f"{name} {value:.2f}" for name, value in similar.items())
    console.status(f"{edited.request['target_prompt']}: {shown}")
    console.status(f"written: {out}/before.png, {out}/after.png, {out}/sheet.png")


def finish(stack: Stack, key: Path, out: Path, keep: bool, edit: str) -> None:
    """How to go on; with ``keep`` the service runs until it is stopped. edit: the job's id."""
    if keep:
        console.status(f"it runs at {stack.url} (API: /openapi.json); Ctrl-C stops it")
        console.status(f"page: {stack.url}/  (sign in with the key in {key})")
        console.status(f"this edit: {stack.url}/#/jobs/{edit}")
        end_on_signals(stack)
        stack.run()
    else:
        again = f"--data {out / 'service'} --tenant {TENANT} --port {stack.port}"
        console.status(f"go on with: customedit serve {again}  (at {stack.url})")
        console.status(f"then this edit is at {stack.url}/#/jobs/{edit}, the key in {key}")


@contextmanager
def bars() -> Iterator[Callable[[answers.Job], None]]:
    """A bar for each phase of a job, as the client hears of it."""
    tasks: dict[str, TaskID] = {}
    with Progress(
        TextColumn("{task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console.errors,
    ) as shown:

        def listen(job: answers.Job) -> None:
            progress = job.progress
            now = None if progress is None else progress.phase
            for phase, task in tasks.items():
                if phase != now or job.finished:  # over: its last step may not have been seen
                    shown.update(task, completed=shown.tasks[task].total)
            if progress is None or not progress.steps or job.finished:
                return
            if progress.phase not in tasks:
                tasks[progress.phase] = shown.add_task(progress.phase, total=progress.steps)
            shown.update(tasks[progress.phase], completed=progress.step, total=progress.steps)

        yield listen
