"""``customedit jobs | batches``: the jobs of a service, alone and in batches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from customedit.cli import console, outputs
from customedit.cli.remote import (
    CursorOption,
    Id,
    Ids,
    KeyOption,
    LimitOption,
    OutOption,
    TimeoutOption,
    UrlOption,
    download_files,
    open_client,
    show_deleted,
    show_document,
    show_files,
    show_on_line,
    show_page,
    time_left,
)
from customedit.errors import InputError

if TYPE_CHECKING:
    from customedit.client import CustomEdit
    from customedit.schemas.answers import Batch, Job

jobs = typer.Typer(help="Jobs of a service: list, show, wait, cancel, delete, download.")
batches = typer.Typer(help="Batches of a service: list, show, wait, cancel, delete, download.")


def job_line(job: Job) -> str:
    """A job in one line."""
    place = "" if job.queue_position is None else f"{job.queue_position} before it"
    progress = job.progress
    at = f"{progress.phase} {progress.step}/{progress.steps}" if progress else ""
    why = job.error.title if job.error else ""
    facts = [fact for fact in (place, at, time_left(job.estimate), why) if fact]
    return f"{job.id}  {job.kind:<9} {job.state:<9} {'; '.join(facts)}".rstrip()


@jobs.command("list")
def list_jobs(
    kind: Annotated[str | None, typer.Option(help="edit, customize or import.")] = None,
    state: Annotated[
        str | None, typer.Option(help="queued, running, succeeded, failed or cancelled.")
    ] = None,
    limit: LimitOption = 20,
    cursor: CursorOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """List your jobs, newest first."""
    with open_client(url, key) as client:
        page = client.jobs(kind=kind, state=state, cursor=cursor, limit=limit)  # type: ignore[arg-type]  # refused by the service
    show_page(page.items, [job_line(job) for job in page.items], page.next_cursor, as_json)


@jobs.command("show")
def show_job(
    id: Id, url: UrlOption = None, key: KeyOption = None, as_json: console.JsonOption = False
) -> None:
    """Show a job."""
    with open_client(url, key) as client:
        job = client.job(id)
    show_document(job, [job_line(job), *job.warnings, *_outputs(job)], as_json)


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
        job = client.wait(id, on_progress=lambda job: show_on_line(job_line(job)), timeout=timeout)
    show_on_line("")
    show_document(job, [job_line(job), *_outputs(job)], as_json)


@jobs.command("cancel")
def cancel_jobs(
    ids: Ids, url: UrlOption = None, key: KeyOption = None, as_json: console.JsonOption = False
) -> None:
    """Cancel jobs."""
    with open_client(url, key) as client:
        done = [client.cancel(id) for id in ids]
    show_page(done, [job_line(job) for job in done], None, as_json)


@jobs.command("delete")
def delete_jobs(
    ids: Ids, url: UrlOption = None, key: KeyOption = None, as_json: console.JsonOption = False
) -> None:
    """Delete finished jobs and the pictures that they made."""
    with open_client(url, key) as client:
        for id in ids:
            client.delete_job(id)
    show_deleted(ids, as_json)


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
    show_files(written, as_json)


def _download_outputs(client: CustomEdit, job: Job, out: Path, force: bool) -> list[Path]:
    if job.result is None or job.result.kind != "edit":
        raise InputError("id", f"{job.id} has no pictures", "give an edit that has succeeded")
    files = {out / f"{output.id}.png": output.url for output in job.result.outputs}
    return download_files(client, files, out, force)


# batches


def batch_line(batch: Any) -> str:
    """A batch, or the summary of one, in one line."""
    counts = ", ".join(f"{n} {state}" for state, n in batch.counts if n)
    facts = f"{batch.progress:.0%}; {counts}"
    left = time_left(batch.estimate)
    return f"{batch.id}  {batch.state:<9} {facts}{'; ' if left else ''}{left}"


@batches.command("list")
def list_batches(
    limit: LimitOption = 20,
    cursor: CursorOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """List your batches, newest first."""
    with open_client(url, key) as client:
        page = client.batches(cursor=cursor, limit=limit)
    show_page(page.items, [batch_line(batch) for batch in page.items], page.next_cursor, as_json)


def _batch_lines(batch: Batch) -> list[str]:
    return [batch_line(batch), *("  " + job_line(job) for job in batch.jobs)]


@batches.command("show")
def show_batch(
    id: Id, url: UrlOption = None, key: KeyOption = None, as_json: console.JsonOption = False
) -> None:
    """Show a batch with its jobs."""
    with open_client(url, key) as client:
        batch = client.batch(id)
    show_document(batch, _batch_lines(batch), as_json)


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
            id, on_progress=lambda batch: show_on_line(batch_line(batch)), timeout=timeout
        )
    show_on_line("")
    show_document(batch, _batch_lines(batch), as_json)
    if batch.counts.succeeded < len(batch.jobs):
        raise typer.Exit(1)


@batches.command("cancel")
def cancel_batch(
    id: Id, url: UrlOption = None, key: KeyOption = None, as_json: console.JsonOption = False
) -> None:
    """Cancel the jobs of a batch that are not finished."""
    with open_client(url, key) as client:
        batch = client.cancel_batch(id)
    show_document(batch, _batch_lines(batch), as_json)


@batches.command("delete")
def delete_batches(
    ids: Ids, url: UrlOption = None, key: KeyOption = None, as_json: console.JsonOption = False
) -> None:
    """Delete finished batches, their jobs and pictures."""
    with open_client(url, key) as client:
        for id in ids:
            client.delete_batch(id)
    show_deleted(ids, as_json)


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
        written = download_files(client, files, out, force)
    show_files(written, as_json)
