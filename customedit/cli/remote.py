"""``customedit jobs | concepts | images | batches``: commands that talk to a service over REST."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from customedit.cli import console, outputs
from customedit.cli.command_errors import CommandFailed
from customedit.errors import InputError
from customedit.schemas.validation import input_error

if TYPE_CHECKING:
    from customedit.client import CustomEdit
    from customedit.schemas.answers import Batch, Document, Estimate, Job

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
TimeoutOption = Annotated[
    float | None,
    typer.Option("--timeout", min=0, help="Seconds to wait at most; unset: for ever."),
]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="The folder to write into.")]
Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="One or several ids.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="Its id.")]

jobs = typer.Typer(help="Jobs of a service: list, show, wait, cancel, delete, download.")
concepts = typer.Typer(help="Concepts of a service: list, show, delete, download.")
images = typer.Typer(help="Images of a service: upload, list, show, delete, download.")
batches = typer.Typer(help="Batches of a service: list, show, wait, cancel, delete, download.")


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


def _say(document: Document, lines: list[str], as_json: bool) -> None:
    console.say(document.model_dump(mode="json"), lines, as_json)


def _list(items: list[Any], lines: list[str], next_cursor: str | None, as_json: bool) -> None:
    shown = {"items": [item.model_dump(mode="json") for item in items], "next_cursor": next_cursor}
    more = ["(more: raise --limit, or use --json and next_cursor)"] if next_cursor else []
    console.say(shown, [*lines, *more] or ["none"], as_json)


def _time_left(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    if estimate.seconds is None:
        return estimate.unknown or ""
    return f"{estimate.seconds:.0f} s left"


def job_line(job: Job) -> str:
    """A job in one line."""
    place = "" if job.queue_position is None else f"{job.queue_position} before it"
    progress = job.progress
    at = f"{progress.phase} {progress.step}/{progress.steps}" if progress else ""
    why = job.error.title if job.error else ""
    facts = [fact for fact in (place, at, _time_left(job.estimate), why) if fact]
    return f"{job.id}  {job.kind:<9} {job.state:<9} {'; '.join(facts)}".rstrip()


def _on_line(text: str) -> None:
    """Show what is going on, in one line of a terminal that is written over."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{text}")
        sys.stderr.flush()


# jobs


@jobs.command("list")
def list_jobs(
    kind: Annotated[str | None, typer.Option(help="edit, customize or import.")] = None,
    state: Annotated[
        str | None, typer.Option(help="queued, running, succeeded, failed or cancelled.")
    ] = None,
    limit: LimitOption = 20,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """List your jobs, newest first."""
    with open_client(url, key) as client:
        page = client.jobs(kind=kind, state=state, limit=limit)  # type: ignore[arg-type]  # refused by the service
    _list(page.items, [job_line(job) for job in page.items], page.next_cursor, as_json)


@jobs.command("show")
def show_job(
    id: Id, url: UrlOption = None, key: KeyOption = None, as_json: console.JsonOption = False
) -> None:
    """Show a job."""
    with open_client(url, key) as client:
        job = client.job(id)
    _say(job, [job_line(job), *job.warnings, *_outputs(job)], as_json)


def _outputs(job: Job) -> list[str]:
    if job.result is None or job.result.kind != "edit":
        return []
    return [
        f"{output.id}  strength {output.strength} seed {output.seed}{' (best)' * output.best}"
        for output in job.result.outputs
    ]


@jobs.command("wait")
def wait_job(
    id: Id,
    timeout: TimeoutOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Wait until a job has succeeded; exit status 1 if it does not, or not in time."""
    with open_client(url, key) as client:
        job = client.wait(id, on_progress=lambda job: _on_line(job_line(job)), timeout=timeout)
    _on_line("")
    _say(job, [job_line(job), *_outputs(job)], as_json)


@jobs.command("cancel")
def cancel_jobs(
    ids: Ids, url: UrlOption = None, key: KeyOption = None, as_json: console.JsonOption = False
) -> None:
    """Cancel jobs."""
    with open_client(url, key) as client:
        done = [client.cancel(id) for id in ids]
    _list(done, [job_line(job) for job in done], None, as_json)


@jobs.command("delete")
def delete_jobs(
    ids: Ids, url: UrlOption = None, key: KeyOption = None, as_json: console.JsonOption = False
) -> None:
    """Delete finished jobs and the pictures that they made."""
    with open_client(url, key) as client:
        for id in ids:
            client.delete_job(id)
    console.say({"deleted": ids}, [f"{id} is deleted" for id in ids], as_json)


@jobs.command("download")
def download_job(
    id: Id,
    out: OutOption = Path("."),
    force: outputs.ForceOption = False,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Write the pictures of an edit into a folder."""
    with open_client(url, key) as client:
        written = _download_outputs(client, client.job(id), out, force)
    console.say({"files": [str(p) for p in written]}, [str(p) for p in written], as_json)


def _download_outputs(client: CustomEdit, job: Job, out: Path, force: bool) -> list[Path]:
    if job.result is None or job.result.kind != "edit":
        raise InputError("id", f"{job.id} has no pictures", "give an edit that has succeeded")
    files = {out / f"{output.id}.png": output.url for output in job.result.outputs}
    return _write(client, files, out, force)


def _write(client: CustomEdit, files: dict[Path, str], out: Path, force: bool) -> list[Path]:
    """Download ``files``, path to address. Raises InputError if one exists, unless ``force``."""
    out.mkdir(parents=True, exist_ok=True)
    for path in files:
        outputs.check_file(path, force)
    for path, address in files.items():
        client.download(address, path)
    return list(files)


# concepts


@concepts.command("list")
def list_concepts(
    limit: LimitOption = 20,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """List your concepts, newest first."""
    with open_client(url, key) as client:
        page = client.concepts(limit=limit)
    lines = [
        f"{c.id}  {c.token:<12} {c.state:<9} {c.attribute} {c.noun}  {c.name}".rstrip()
        for c in page.items
    ]
    _list(page.items, lines, page.next_cursor, as_json)


@concepts.command("show")
def show_concept(
    id: Id, url: UrlOption = None, key: KeyOption = None, as_json: console.JsonOption = False
) -> None:
    """Show a concept."""
    with open_client(url, key) as client:
        concept = client.concept(id)
    lines = [
        f"{concept.id} {concept.name}".rstrip(),
        f"token      {concept.token}",
        f"words      {concept.attribute} {concept.noun}",
        f"state      {concept.state}",
        f"made by    {concept.job} from {len(concept.references)} references",
        *concept.warnings,
    ]
    _say(concept, lines, as_json)


@concepts.command("delete")
def delete_concepts(
    ids: Ids, url: UrlOption = None, key: KeyOption = None, as_json: console.JsonOption = False
) -> None:
    """Delete concepts."""
    with open_client(url, key) as client:
        for id in ids:
            client.delete_concept(id)
    console.say({"deleted": ids}, [f"{id} is deleted" for id in ids], as_json)


@concepts.command("download")
def download_concept(
    id: Id,
    format: Annotated[
        Literal["customedit", "diffusers"], typer.Option(help="Our own, or what diffusers loads.")
    ] = "customedit",
    out: OutOption = Path("."),
    force: outputs.ForceOption = False,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Write the file of a concept into a folder."""
    with open_client(url, key) as client:
        weights = client.weights(id, format)
        (path,) = _write(client, {out / f"{id}-{weights.filename}": weights.url}, out, force)
    console.say({"files": [str(path)]}, [str(path)], as_json)


# images


@images.command("upload")
def upload_images(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="PNG, JPEG or WebP.")],
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Upload pictures and print their ids."""
    for file in files:
        if not file.is_file():
            raise InputError("files", f"{file} is not a file", "correct the path")
    with open_client(url, key) as client:
        made = [client.upload(file) for file in files]
    lines = [f"{image.id}  {file}" for image, file in zip(made, files, strict=True)]
    _list(made, lines, None, as_json)


@images.command("list")
def list_images(
    limit: LimitOption = 20,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """List your images, newest first."""
    with open_client(url, key) as client:
        page = client.images(limit=limit)
    lines = [f"{i.id}  {i.width} x {i.height}  {i.media_type}" for i in page.items]
    _list(page.items, lines, page.next_cursor, as_json)


@images.command("show")
def show_image(
    id: Id, url: UrlOption = None, key: KeyOption = None, as_json: console.JsonOption = False
) -> None:
    """Show an image."""
    with open_client(url, key) as client:
        image = client.image(id)
    facts = f"{image.width} x {image.height}  {image.media_type}  {image.bytes} bytes"
    _say(image, [f"{image.id}  {facts}", *image.warnings], as_json)


@images.command("delete")
def delete_images(
    ids: Ids, url: UrlOption = None, key: KeyOption = None, as_json: console.JsonOption = False
) -> None:
    """Delete images."""
    with open_client(url, key) as client:
        for id in ids:
            client.delete_image(id)
    console.say({"deleted": ids}, [f"{id} is deleted" for id in ids], as_json)


@images.command("download")
def download_images(
    ids: Ids,
    out: OutOption = Path("."),
    force: outputs.ForceOption = False,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Write images into a folder."""
    with open_client(url, key) as client:
        found = [client.image(id) for id in ids]
        files = {out / f"{i.id}.{i.media_type.rpartition('/')[2]}": i.url for i in found}
        written = _write(client, files, out, force)
    console.say({"files": [str(p) for p in written]}, [str(p) for p in written], as_json)


# batches


def batch_line(batch: Any) -> str:
    """A batch, or the summary of one, in one line."""
    counts = ", ".join(f"{n} {state}" for state, n in batch.counts if n)
    facts = f"{batch.progress:.0%}; {counts}"
    left = _time_left(batch.estimate)
    return f"{batch.id}  {batch.state:<9} {facts}{'; ' if left else ''}{left}"


@batches.command("list")
def list_batches(
    limit: LimitOption = 20,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """List your batches, newest first."""
    with open_client(url, key) as client:
        page = client.batches(limit=limit)
    _list(page.items, [batch_line(batch) for batch in page.items], page.next_cursor, as_json)


def _batch_lines(batch: Batch) -> list[str]:
    return [batch_line(batch), *("  " + job_line(job) for job in batch.jobs)]


@batches.command("show")
def show_batch(
    id: Id, url: UrlOption = None, key: KeyOption = None, as_json: console.JsonOption = False
) -> None:
    """Show a batch with its jobs."""
    with open_client(url, key) as client:
        batch = client.batch(id)
    _say(batch, _batch_lines(batch), as_json)


@batches.command("wait")
def wait_batch(
    id: Id,
    timeout: TimeoutOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Wait until all jobs of a batch are at their end; exit status 1 unless all succeeded."""
    with open_client(url, key) as client:
        batch = client.wait_batch(
            id, on_progress=lambda batch: _on_line(batch_line(batch)), timeout=timeout
        )
    _on_line("")
    _say(batch, _batch_lines(batch), as_json)
    if batch.counts.succeeded < len(batch.jobs):
        raise typer.Exit(1)


@batches.command("cancel")
def cancel_batch(
    id: Id, url: UrlOption = None, key: KeyOption = None, as_json: console.JsonOption = False
) -> None:
    """Cancel the jobs of a batch that are not finished."""
    with open_client(url, key) as client:
        batch = client.cancel_batch(id)
    _say(batch, _batch_lines(batch), as_json)


@batches.command("delete")
def delete_batches(
    ids: Ids, url: UrlOption = None, key: KeyOption = None, as_json: console.JsonOption = False
) -> None:
    """Delete finished batches, their jobs and pictures."""
    with open_client(url, key) as client:
        for id in ids:
            client.delete_batch(id)
    console.say({"deleted": ids}, [f"{id} is deleted" for id in ids], as_json)


@batches.command("download")
def download_batch(
    id: Id,
    out: OutOption = Path("."),
    force: outputs.ForceOption = False,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Write the pictures of all jobs of a batch that succeeded into a folder."""
    with open_client(url, key) as client:
        files = {
            out / f"{output.id}.png": output.url
            for job in client.batch(id).jobs
            if job.result is not None and job.result.kind == "edit"
            for output in job.result.outputs
        }
        if not files:
            raise InputError("id", f"{id} has no pictures yet", "wait for it")
        written = _write(client, files, out, force)
    console.say({"files": [str(p) for p in written]}, [str(p) for p in written], as_json)
