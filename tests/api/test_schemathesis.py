"""The OpenAPI document against the service it describes: all checks, chains of calls included.

The front end is real and so are its stores; no worker runs, so jobs stay queued or are cancelled.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Running

LEFT_OUT = (
    "getMetrics",  # its answer is no JSON and has its own test
    "watchJob",  # a stream that does not end while its job is queued; tested in test_events.py
)


def run(api: Running, tmp_path: Path, examples: int, phases: str, seed: int) -> None:
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
        "--checks=all",
        f"--phases={phases}",
        f"--max-examples={examples}",
        f"--seed={seed}",
        "--generation-deterministic",
        "--generation-database=none",
        "--suppress-health-check=all",
        "--request-timeout=30",
        "--no-color",
        *[f"--exclude-operation-id={name}" for name in LEFT_OUT],
    ]
    environment = {**os.environ, "NO_PROXY": "127.0.0.1", "COLUMNS": "200"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-12_000:] + done.stderr[-3_000:]


CONFIG = """
headers = {{ Authorization = "Bearer {key}" }}
"""


def test_the_service_keeps_its_contract(start, settings, tmp_path: Path) -> None:
    api = start(settings, rate_per_minute=1_000_000, queue_limit_per_tenant=100_000)
    run(api, tmp_path, 4, "examples,coverage,fuzzing,stateful", 1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [2, 3])
def test_the_service_keeps_its_contract_in_many_more_cases(
    start, settings, tmp_path: Path, seed: int
) -> None:
    api = start(settings, rate_per_minute=1_000_000, queue_limit_per_tenant=100_000)
    run(api, tmp_path, 60, "examples,coverage,fuzzing,stateful", seed)
