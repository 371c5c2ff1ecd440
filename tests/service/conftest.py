"""The whole service on this machine, with one worker, for programs that talk to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from customedit.cli.serve import local_key
from customedit.client import CustomEdit, TrainingOptions
from customedit.devserver.stack import Stack
from customedit.mini import samples
from customedit.schemas.answers import ConceptResult

LOOK = samples.looks()[0]
SOURCE = samples.sources()[3]
QUICK = TrainingOptions(steps=3, class_images=0, crops=1, class_steps=4)


@dataclass(frozen=True)
class Service:
    """Where it is, a key of the tenant ``local``, and the folder of its data."""

    url: str
    key: str
    folder: Path


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    with Stack(folder, port=0, workers=1, say=lambda _: None) as stack:
        yield Service(stack.url, local_key(stack, "local").read_text().strip(), folder)


@pytest.fixture
def client(service: Service) -> Iterator[CustomEdit]:
    with CustomEdit(service.url, service.key) as client:
        yield client


@pytest.fixture(scope="session")
def concept(service: Service) -> str:
    """A concept of the token ``LOOK.token``, hardly trained."""
    with CustomEdit(service.url, service.key) as client:
        references = [client.upload(path).id for path in LOOK.images[:2]]
        job = client.customize(
            references=references,
            noun=LOOK.noun,
            attribute=LOOK.attribute,
            token=LOOK.token,
            training=QUICK,
        )
        result = client.wait(job, timeout=100).result
        assert isinstance(result, ConceptResult)
        return result.concept
