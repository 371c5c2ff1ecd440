"""The OpenAPI document against the service it describes: all checks, chains of calls included.

The front end is real and so are its stores; no worker runs, so jobs stay queued or are cancelled.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from customedit.config.settings import Settings
from customedit.jobs.store import Jobs
from customedit.storage.store import Storage
from customedit.tenants.catalogue import Concepts

from .conftest import Running, customize, edit, finish_concept, upload, upload_mask

# A stream does not end while its job is queued; below it has ended. OpenAI's edit waits for a
# worker, of which there is none: tests/service has one.
LEFT_OUT = ("watchJob", "editImage")


def furnish(client: httpx.Client) -> None:
    """Things for the lists to show, so that their ids lead on."""
    for number in range(8):
        upload(client, f"#{number:06x}")
        edit(client, seeds=[number])
        customize(client, name=str(number))


def run(api: Running, tmp_path: Path, *more: str) -> None:
    furnish(api.client("anna"))
    left_out = [f"--exclude-operation-id={name}" for name in LEFT_OUT]
    ask(api, tmp_path, CONFIG.format(key=api.key("anna")), *left_out, *more)


def ask(api: Running, tmp_path: Path, configuration: str, *more: str, **variables: str) -> None:
    config = tmp_path / "schemathesis.toml"
    config.write_text(configuration)
    command = [
        sys.executable,
        "-c",
        "from schemathesis.cli import schemathesis; schemathesis()",
        "--config-file",
        str(config),
        "run",
        f"{api.url}/openapi.json",
        "--request-timeout=30",
        "--no-color",
        *more,
    ]
    environment = {**os.environ, "NO_PROXY": "127.0.0.1", "COLUMNS": "200", **variables}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-30_000:] + done.stderr[-3_000:]


# All checks are on. Six operations refuse some requests that fit their schemas, since no schema
# can say what a picture is, which tokens a prompt may name, that a webhook wants a secret first, or
# that one number is below another.
# test_refusals.py and test_refused_*.py have these cases; acceptable.py makes up for them below.
CONFIG = """
headers = {{ Authorization = "Bearer {key}" }}

[[operations]]
include-operation-id = [
  "uploadImage", "importConcept", "createEdit", "createConcept", "createBatch", "savePreset",
]
checks.positive_data_acceptance.enabled = false
"""


# Of these every request that fits its schema is carried out.
ACCEPTED = (
    "uploadImage", "importConcept", "createConcept", "createEdit", "savePreset", "watchJob",
)  # fmt: skip
ACCEPTING = """
hooks = "{hooks}"
headers = {{ Authorization = "Bearer {key}" }}

[checks]
negative_data_rejection.enabled = false

[checks.positive_data_acceptance]
expected-statuses = ["2xx"]
"""


@pytest.fixture
def roomy(start: Callable[..., Running], settings: Settings) -> Running:
    """A front end whose limits are far away."""
    api: Running = start(
        settings,
        rate_per_minute=1_000_000,
        new_keys_per_minute=1_000_000,
        queue_limit_per_tenant=100_000,
    )
    return api


SURE = "--generation-deterministic"


def test_chains_of_calls_and_chance(roomy: Running, tmp_path: Path) -> None:
    run(roomy, tmp_path, "--phases=examples,fuzzing,stateful", "--max-examples=8", SURE)


@pytest.mark.timeout(300)
def test_the_edges_of_what_is_sent(roomy: Running, tmp_path: Path) -> None:
    run(roomy, tmp_path, "--phases=coverage", "--include-method=POST", SURE)


@pytest.mark.timeout(300)
def test_what_fits_is_accepted(
    roomy: Running, tmp_path: Path, jobs: Jobs, concepts: Concepts, storage: Storage
) -> None:
    anna = roomy.client("anna")
    assert anna.post("/v1/webhooks/secret").status_code == 201
    made = customize(anna, token="<plaid>")
    ready = finish_concept(jobs, concepts, storage, made["id"])
    given = {
        "ACCEPTABLE_IMAGE": upload(anna),
        "ACCEPTABLE_MASK": upload_mask(anna),
        "ACCEPTABLE_CONCEPT": ready.id,
        "ACCEPTABLE_TOKEN": ready.token,
        "ACCEPTABLE_JOB": made["id"],
    }
    config = ACCEPTING.format(key=roomy.key("anna"), hooks=Path(__file__).parent / "acceptable.py")
    only = [f"--include-operation-id={name}" for name in ACCEPTED]
    how = ("--phases=examples,coverage,fuzzing", "--max-examples=20", "--mode=positive", SURE)
    ask(roomy, tmp_path, config, *only, *how, **given)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [20, 21])
def test_many_more_cases(roomy: Running, tmp_path: Path, seed: int) -> None:
    run(roomy, tmp_path, "--max-examples=60", f"--seed={seed}")
