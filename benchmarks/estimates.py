"""How good estimates are: ``python benchmarks/estimates.py idle | loaded``.

``idle``: edits one after another on an idle worker; ``loaded``: each submitted behind a handful of
others, and all of them beside a training if it is wanted. The dry run's seconds are compared with
those that the job then took, from its submission to its end. The first jobs only let the worker
measure itself and are not counted. Prints how many are within a fifth, and the errors.

On the bundled base and local servers, whose processors client and service share.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from customedit.cli.serve import local_key
from customedit.client import CustomEdit, TrainingOptions
from customedit.devserver.stack import Stack
from customedit.mini import samples
from customedit.mini.evaluate import machine
from customedit.schemas.answers import Job

SOURCE, LOOK = samples.sources()[3], samples.looks()[0]
BAR = 0.2
WARM_UP = (
    {"steps": 10},
    {"steps": 20, "strengths": [0.3, 0.6]},
    {"steps": 10, "method": "sdedit", "seeds": [0, 1]},
    {"steps": 30},
)

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Compared:
    """One job. told, took: seconds from its submission to its end."""

    request: dict[str, Any]
    told: float | None
    took: float

    @property
    def error(self) -> float:
        """The estimate's relative error; 1 where there was none."""
        return 1.0 if self.told is None else self.told / self.took - 1


@contextmanager
def service() -> Iterator[CustomEdit]:
    """A service of its own, with one worker."""
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder), port=0) as stack:
        key = local_key(stack, "local").read_text().strip()
        with CustomEdit(stack.url, key) as client:
            yield client


def requests(count: int, image: str) -> list[dict[str, Any]]:
    """Edits of many kinds, the same each time."""
    chance = random.Random(0)
    made = []
    for _ in range(count):
        request: dict[str, Any] = {
            "image": image,
            "source_prompt": SOURCE.prompt,
            "target_prompt": SOURCE.colour_prompt,
            "steps": chance.choice([10, 20, 30, 50]),
        }
        if chance.random() < 0.3:
            request |= {"method": "sdedit", "seeds": list(range(chance.randint(1, 3)))}
        elif chance.random() < 0.5:
            request["strengths"] = [0.3, 0.5, 0.7][: chance.randint(1, 3)]
        made.append(request)
    return made


def compare(client: CustomEdit, wanted: list[dict[str, Any]], most_before: int) -> list[Compared]:
    """Submit each request after a dry run, behind up to ``most_before`` others."""
    chance = random.Random(1)
    found = []
    for request in wanted:
        before = requests(chance.randint(min(1, most_before), most_before), request["image"])
        others = [client.edit(**other) for other in before]
        if others:
            time.sleep(1.5)  # the queue is read once a second
        told = client.try_edit(**request).estimate.seconds
        found.append(finished(client, request, told, client.edit(**request)))
        for other in others:
            client.wait(other)
    return found


def finished(client: CustomEdit, request: dict[str, Any], told: float | None, job: Job) -> Compared:
    """What came of a job that was to take ``told`` seconds."""
    done = client.wait(job)
    assert done.finished_at is not None
    return Compared(request, told, (done.finished_at - done.created_at).total_seconds())


def say(name: str, compared: list[Compared]) -> None:
    """Print the comparison."""
    errors = sorted(abs(entry.error) for entry in compared)
    within = sum(error <= BAR for error in errors)
    report = {
        "machine": machine(),
        name: f"{within} of {len(errors)} within {BAR:.0%}",
        "median": round(errors[len(errors) // 2], 3),
        "p90": round(errors[int(0.9 * (len(errors) - 1))], 3),
        "jobs": [
            {"steps": c.request["steps"], "told": c.told, "took": round(c.took, 2),
             "error": round(c.error, 3)}
            for c in compared
        ],
    }  # fmt: skip
    print(json.dumps(report, indent=1))


def warm_up(client: CustomEdit) -> str:
    """Jobs by which the worker measures itself; gives the picture's id."""
    image = client.upload(SOURCE.image).id
    words = {"source_prompt": SOURCE.prompt, "target_prompt": SOURCE.colour_prompt}
    for more in WARM_UP:
        given: dict[str, Any] = {"image": image, **words, **more}
        client.wait(client.edit(**given))
    time.sleep(3)  # it tells every two seconds
    return image


@app.command()
def idle(jobs: Annotated[int, typer.Option(min=1)] = 20) -> None:
    """Edits one after another."""
    with service() as client:
        image = warm_up(client)
        say("idle", compare(client, requests(jobs, image), 0))


@app.command()
def loaded(
    jobs: Annotated[int, typer.Option(min=1)] = 20,
    training: Annotated[bool, typer.Option(help="Beside a training.")] = False,
) -> None:
    """Edits behind up to eight others."""
    with service() as client:
        image = warm_up(client)
        if training:
            references = [client.upload(path).id for path in LOOK.images[:3]]
            options = TrainingOptions(steps=2000, class_images=0)
            client.customize(
                references=references, noun=LOOK.noun, token=LOOK.token, training=options
            )
            time.sleep(20)
        say("loaded", compare(client, requests(jobs, image), 8))


if __name__ == "__main__":
    app()
