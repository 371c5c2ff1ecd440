"""The OpenAPI document against the service it describes: all checks, chains of calls included.

The front end is real and so are its stores; no worker runs, so jobs stay queued or are cancelled.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from .conftest import Running, customize, edit, upload

LEFT_OUT = (
    "getMetrics",  # its answer is no JSON and has its own test
    "watchJob",  # a stream that does not end while its job is queued; tested in test_events.py
)


def furnish(client: httpx.Client) -> None:
    """Things for the lists to show, so that their ids lead on."""
    for number in range(8):
        upload(client, f"#{number:06x}")
        edit(client, seeds=[number])
        customize(client, name=str(number))


def run(api: Running, tmp_path: Path, *more: str) -> None:
    furnish(api.client("anna"))
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG.format(key=api.key("anna")))
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
        *[f"--exclude-operation-id={name}" for name in LEFT_OUT],
        *more,
    ]
    environment = {**os.environ, "NO_PROXY": "127.0.0.1", "COLUMNS": "200"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-30_000:] + done.stderr[-3_000:]


# All checks are on. Four operations refuse some requests that fit their schemas, since no schema
# can say what a picture is, which fields go together, or that a webhook wants a secret first;
# test_refusals.py has each of these cases.
CONFIG = """
headers = {{ Authorization = "Bearer {key}" }}

[[operations]]
include-operation-id = ["uploadImage", "importConcept", "createEdit", "createConcept"]
checks.positive_data_acceptance.enabled = false
"""


@pytest.fixture
def roomy(start, settings) -> Running:
    """A front end whose limits are far away."""
    api: Running = start(settings, rate_per_minute=1_000_000, queue_limit_per_tenant=100_000)
    return api


SURE = "--generation-deterministic"


def test_chains_of_calls_and_chance(roomy: Running, tmp_path: Path) -> None:
    run(roomy, tmp_path, "--phases=examples,fuzzing,stateful", "--max-examples=8", SURE)


@pytest.mark.timeout(300)
def test_the_edges_of_what_is_sent(roomy: Running, tmp_path: Path) -> None:
    run(roomy, tmp_path, "--phases=coverage", "--include-method=POST", SURE)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [2, 3])
def test_many_more_cases(roomy: Running, tmp_path: Path, seed: int) -> None:
    run(roomy, tmp_path, "--max-examples=60", f"--seed={seed}")
