"""``customedit concepts | images``: what a tenant keeps at a service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from customedit.cli import console, outputs
from customedit.cli.remote import (
    CursorOption,
    Id,
    Ids,
    KeyOption,
    LimitOption,
    OutOption,
    UrlOption,
    download_files,
    open_client,
    show_deleted,
    show_document,
    show_files,
    show_page,
)
from customedit.errors import InputError

concepts = typer.Typer(help="Concepts of a service: list, show, delete, download.")
images = typer.Typer(help="Images of a service: upload, list, show, delete, download.")


@concepts.command("list")
def list_concepts(
    limit: LimitOption = 20,
    cursor: CursorOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """List your concepts, newest first."""
    with open_client(url, key) as client:
        page = client.concepts(cursor=cursor, limit=limit)
    lines = [
        f"{c.id}  {c.token:<12} {c.state:<9} {c.attribute} {c.noun}  {c.name}".rstrip()
        for c in page.items
    ]
    show_page(page.items, lines, page.next_cursor, as_json)


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
    show_document(concept, lines, as_json)


@concepts.command("delete")
def delete_concepts(
    ids: Ids, url: UrlOption = None, key: KeyOption = None, as_json: console.JsonOption = False
) -> None:
    """Delete concepts."""
    with open_client(url, key) as client:
        for id in ids:
            client.delete_concept(id)
    show_deleted(ids, as_json)


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
        (path,) = download_files(
            client, {out / f"{id}-{weights.filename}": weights.url}, out, force
        )
    show_files([path], as_json)


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
    show_page(made, lines, None, as_json)


@images.command("list")
def list_images(
    limit: LimitOption = 20,
    cursor: CursorOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """List your images, newest first."""
    with open_client(url, key) as client:
        page = client.images(cursor=cursor, limit=limit)
    lines = [
        f"{i.id}  {i.width} x {i.height}  {i.media_type}  {i.name}".rstrip() for i in page.items
    ]
    show_page(page.items, lines, page.next_cursor, as_json)


@images.command("show")
def show_image(
    id: Id, url: UrlOption = None, key: KeyOption = None, as_json: console.JsonOption = False
) -> None:
    """Show an image."""
    with open_client(url, key) as client:
        image = client.image(id)
    facts = f"{image.width} x {image.height}  {image.media_type}  {image.bytes} bytes"
    line = f"{image.id}  {facts}  {image.name}".rstrip()
    show_document(image, [line, *image.warnings], as_json)


@images.command("delete")
def delete_images(
    ids: Ids, url: UrlOption = None, key: KeyOption = None, as_json: console.JsonOption = False
) -> None:
    """Delete images."""
    with open_client(url, key) as client:
        for id in ids:
            client.delete_image(id)
    show_deleted(ids, as_json)


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
        written = download_files(client, files, out, force)
    show_files(written, as_json)
