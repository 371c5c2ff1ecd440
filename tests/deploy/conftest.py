"""What the tests of the deployment share: the files, and where they lie."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
FILLED = {"VALKEY_PASSWORD": "0a" * 16, "CUSTOMEDIT_S3_SECRET_KEY": "0b" * 16}


def program(name: str) -> str:
    """A program that the development environment has as a wheel."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    assert found, f"{name} is missing: make env"
    return found


def filled(example: Path) -> str:
    """An example of an env file, its empty secrets filled in as its reader would."""
    lines = example.read_text().splitlines()
    done = [
        f"{n}={FILLED[n]}" if (n := line.removesuffix("=")) in FILLED else line for line in lines
    ]
    text = "\n".join(done).replace("redis://:PASSWORD@", f"redis://:{FILLED['VALKEY_PASSWORD']}@")
    assert all(f"{name}={value}" in text for name, value in FILLED.items())
    return text + "\n"


@pytest.fixture(scope="session")
def find_program() -> Callable[[str], str]:
    return program


@pytest.fixture(scope="session")
def compose(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """docker-compose.yml as Compose itself reads it, all profiles on."""
    folder = tmp_path_factory.mktemp("compose")
    shutil.copy(ROOT / "docker-compose.yml", folder)
    (folder / ".env").write_text(filled(ROOT / "deploy" / "compose" / "example.env"))
    command = [program("docker-compose"), "--profile", "*", "config"]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return yaml.safe_load(run.stdout)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Any]]:
    """All objects of an overlay, as kubectl's kustomize builds them."""
    folder = tmp_path_factory.mktemp("kubernetes") / "kubernetes"
    shutil.copytree(KUBERNETES, folder)
    local = folder / "overlays" / "local"
    (local / "secrets.env").write_text(filled(local / "secrets.example.env"))

    @functools.cache
    def build(name: str) -> list[Any]:
        command = [program("kubectl"), "kustomize", str(folder / "overlays" / name)]
        run = subprocess.run(command, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        return list(yaml.safe_load_all(run.stdout))

    return build


@pytest.fixture(params=["local", "production"])
def overlay(request: pytest.FixtureRequest, built: Callable[[str], list[Any]]) -> list[Any]:
    return built(request.param)


@pytest.fixture
def production(built: Callable[[str], list[Any]]) -> list[Any]:
    return built("production")
