"""A front end over real sockets, real stores behind it, and keys of two tenants."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from PIL import Image
from redis import Redis

from api.app import create_app
from api.dependencies import Container
from api.main import Server, server
from customedit.config.settings import Settings
from customedit.jobs.records import ConceptOutcome, ConceptRecord, EditOutcome
from customedit.jobs.store import Claim, Jobs
from customedit.schemas.change import ChangeCurve
from customedit.storage.store import Storage
from customedit.tenants.access import ApiKeys
from customedit.tenants.catalogue import Concepts

from .. import web

ALL = ("images:write", "edits:write", "concepts:write", "read", "admin")


@dataclass
class Running:
    """A front end that listens, and who may talk to it."""

    url: str
    settings: Settings
    container: Container
    server: Server
    keys: ApiKeys
    _clients: list[httpx.Client] = field(default_factory=list)

    def key(self, tenant: str = "anna", scopes: tuple[str, ...] = ALL) -> str:
        return self.keys.create(tenant, scopes=scopes)[1]

    def client(self, tenant: str = "anna", scopes: tuple[str, ...] = ALL) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.key(tenant, scopes)}"}
        made = web.Client(base_url=self.url, headers=headers)
        self._clients.append(made)
        return made


@pytest.fixture
def start(
    storage: Storage, redis_client: Redis, one_openapi_document: None
) -> Iterator[Callable[..., Running]]:
    """Starts a front end with some settings changed; each is stopped at the end of the test."""
    running: list[tuple[Running, threading.Thread]] = []

    def begin(settings: Settings, **changed: Any) -> Running:
        settings = settings.model_copy(update={"api_port": 0, **changed})
        app = create_app(settings)
        serving = server(settings, app)
        listener = socket.create_server(("127.0.0.1", 0))
        thread = threading.Thread(target=serving.run, kwargs={"sockets": [listener]})
        thread.start()
        wait_for(lambda: serving.started or not thread.is_alive())
        assert serving.started
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        keys = ApiKeys(redis_client, settings)
        made = Running(url, settings, app.state.container, serving, keys)
        running.append((made, thread))
        return made

    yield begin
    for made, thread in running:
        for client in made._clients:
            client.close()
        made.server.stop_streams()
        made.server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture
def api(start: Callable[..., Running], settings: Settings) -> Running:
    return start(settings)


@pytest.fixture
def anna(api: Running) -> httpx.Client:
    return api.client("anna")


@pytest.fixture
def bert(api: Running) -> httpx.Client:
    return api.client("bert")


@pytest.fixture
def jobs(api: Running) -> Jobs:
    """What a worker drives jobs with."""
    return api.container.jobs


@pytest.fixture
def concepts(api: Running) -> Concepts:
    return api.container.concepts


def wait_for(condition: Callable[[], Any], seconds: float = 30) -> Any:
    """The first true value of ``condition``, which is asked again and again."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)
    return found


def png(colour: str = "red", size: tuple[int, int] = (32, 24)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, "PNG")
    return stream.getvalue()


def upload(client: httpx.Client, colour: str = "red") -> str:
    """Uploads a picture; gives its id."""
    answer = client.post("/v1/images", files={"file": ("a.png", png(colour), "image/png")})
    assert answer.status_code in (200, 201), answer.text
    return str(answer.json()["id"])


def upload_mask(client: httpx.Client, size: tuple[int, int] = (32, 24)) -> str:
    """Uploads a mask of the left half; gives its id."""
    mask, stream = Image.new("L", size), io.BytesIO()
    mask.paste(255, (0, 0, size[0] // 2, size[1]))
    mask.save(stream, "PNG")
    answer = client.post("/v1/images", files={"file": ("m.png", stream.getvalue(), "image/png")})
    assert answer.status_code in (200, 201), answer.text
    return str(answer.json()["id"])


def customize(client: httpx.Client, **more: Any) -> dict[str, Any]:
    """Asks for a concept of one picture; gives the job."""
    body = {"references": [upload(client)], "noun": "cup", **more}
    answer = client.post("/v1/concepts", json=body)
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def edit(client: httpx.Client, **more: Any) -> dict[str, Any]:
    """Asks for an edit; gives the job."""
    body = {
        "image": upload(client),
        "source_prompt": "a cup",
        "target_prompt": "a blue cup",
        **more,
    }
    answer = client.post("/v1/edits", json=body)
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def claimed(jobs: Jobs, job_id: str) -> Claim:
    found = jobs.claim(job_id, "worker-of-a-test")
    assert found is not None
    return found


def finish_edit(
    jobs: Jobs,
    storage: Storage,
    job_id: str,
    *,
    region: bool = False,
    outputs: int = 1,
    colour: str = "blue",
    words: Sequence[str] = (),
    curve: ChangeCurve | None = None,
) -> None:
    """Does what a worker does at the end of an edit.

    region: it found one, the picture's middle; words: with maps of 2 x 2 cells, of which word k
    looked at cell k alone; curve: what ``change`` "auto" chose by.
    """
    claim = claimed(jobs, job_id)
    key = claim.key("0.png")
    storage.put(key, png(colour), "image/png")
    found: dict[str, Any] = {}
    if region:
        mask = Image.new("L", (32, 24))
        mask.paste(255, (8, 6, 24, 18))
        stream = io.BytesIO()
        mask.save(stream, "PNG")
        found["mask_key"] = claim.key("mask.png")
        storage.put(found["mask_key"], stream.getvalue(), "image/png")
    if words:
        tiles = Image.new("L", (2 * len(words), 2 * outputs))
        for row in range(outputs):
            for k in range(len(words)):
                tiles.putpixel((2 * k + k % 2, 2 * row + k // 2 % 2), 255)
        stream = io.BytesIO()
        tiles.save(stream, "PNG")
        kept = {"key": claim.key("words.png"), "words": list(words), "rows": 2, "columns": 2}
        storage.put(claim.key("words.png"), stream.getvalue(), "image/png")
        found["word_maps"] = kept
    outcome = EditOutcome.model_validate(
        {
            "outputs": [
                {
                    "strength": 0.5,
                    "change": curve and curve.chosen,
                    "seed": number,
                    "image_key": key,
                    "width": 32,
                    "height": 24,
                    "similarities": {"text": 0.3},
                    "best": number == 0,
                    "recipe": {"steps": 50},
                }
                for number in range(outputs)
            ],
            "sheet_key": key,
            "change_curve": curve,
            **found,
        }
    )
    assert jobs.commit(claim, outcome.model_dump(mode="json"))


def finish_concept(
    jobs: Jobs,
    concepts: Concepts,
    storage: Storage,
    job_id: str,
    columns: dict[str, int] | None = None,
) -> ConceptRecord:
    """Does what a worker does at the end of a training. columns: as of the record."""
    claim = claimed(jobs, job_id)
    tenant, concept_id = claim.record.tenant, claim.record.concept
    assert concept_id is not None
    record = concepts.get(tenant, concept_id)
    assert record is not None
    folder = f"tenants/{tenant}/concepts/{concept_id}/"
    weights, diffusers = f"{folder}1-weights.safetensors", f"{folder}1-diffusers.zip"
    storage.put(weights, b"weights of a test")
    storage.put(diffusers, b"weights for diffusers")
    made = {
        "weights_key": weights,
        "diffusers_key": diffusers,
        "bytes": 17,
        "base": "mini",
        "recipe": {"steps": 3},
        "columns": columns or {},
    }
    ready = record.model_copy(update={**made, "state": "ready", "ready_at": time.time()})
    outcome = ConceptOutcome.model_validate(
        {**made, "concept": concept_id, "token": record.token, "noun": "cup", "attribute": ""}
    )
    assert jobs.commit(claim, outcome.model_dump(mode="json"), concept=ready)
    return ready
