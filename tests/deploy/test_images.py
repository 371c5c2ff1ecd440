"""The images: what a linter says of them, whom they run as, what they are made from."""

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILES = sorted((ROOT / "deploy").glob("*.Dockerfile"))
PINNED = re.compile(r"[\w./-]+:[\w.-]*\d+\.\d+[\w.-]*@sha256:[0-9a-f]{64}")
each = pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)


def pins(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / name).read_text()
    locked = re.findall(r"^([\w.-]+)==([^\s\\]+)", text, re.MULTILINE)
    return {canonicalize_name(package): version for package, version in locked}


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    split = [line.strip().partition(" ") for line in text.splitlines() if line.strip()]
    return [(word, re.sub(r"\s+", " ", rest)) for word, _, rest in split]


def test_there_are_the_two_images() -> None:
    assert [d.name for d in DOCKERFILES] == ["api.Dockerfile", "worker.Dockerfile"]


@each
def test_hadolint_finds_nothing(dockerfile: Path, find_program: Any) -> None:
    command = [find_program("hadolint"), "--no-color", "--failure-threshold", "style", dockerfile]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


@each
def test_bases_are_pinned_by_tag_and_digest(dockerfile: Path) -> None:
    said = instructions(dockerfile)
    bases = [rest.partition("=")[2] for word, rest in said if word == "ARG" and "_IMAGE=" in rest]
    assert bases and all(PINNED.fullmatch(base) for base in bases)
    assert {rest.split(" ")[0] for word, rest in said if word == "FROM"} == {"${PYTHON_IMAGE}"}


def test_operations_tell_how_to_check_each_digest() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    files = [*DOCKERFILES, ROOT / "docker-compose.yml", *(ROOT / "deploy").rglob("*.yaml")]
    pinned = {i for f in files for i in re.findall(r"([\w./-]+:[\w.-]+)@sha256:", f.read_text())}
    assert len(pinned) == 3  # one digest for each of them, wherever it is used
    for image in pinned:
        assert f"docker buildx imagetools inspect {image}\n" in page
    digests = {d for f in files for d in re.findall(r"@sha256:([0-9a-f]{64})", f.read_text())}
    assert len(digests) == len(pinned)


def test_images_have_the_python_that_the_locks_were_resolved_with() -> None:
    for dockerfile in DOCKERFILES:
        (python,) = set(re.findall(r"python:(3\.\d+)\.", dockerfile.read_text()))
        assert f"LOCK_PYTHON := {python}\n" in (ROOT / "Makefile").read_text()


@each
def test_image_runs_as_a_numbered_user_who_is_not_root(dockerfile: Path) -> None:
    said = instructions(dockerfile)
    users = [rest for word, rest in said if word == "USER"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1])
    words = [word for word, _ in said]
    assert "RUN" not in words[words.index("USER") :]  # nor is anything installed by that user


@each
def test_packages_are_cached_between_builds_and_checked_for_health(dockerfile: Path) -> None:
    said = instructions(dockerfile)
    installs = [rest for word, rest in said if word == "RUN" and "pip install" in rest]
    assert installs and all(rest.startswith("--mount=type=cache") for rest in installs)
    (health,) = [rest for word, rest in said if word == "HEALTHCHECK"]
    assert json.loads(health.partition("CMD ")[2])[0] == "python"


@each
def test_stop_signal_reaches_python(dockerfile: Path) -> None:
    (command,) = [rest for word, rest in instructions(dockerfile) if word == "CMD"]
    program = dockerfile.name.removesuffix(".Dockerfile")
    wanted = ["python", "-m", "customedit.programs", program]
    assert json.loads(command) == wanted  # exec form: no shell in between


@each
def test_what_is_copied_is_let_through_by_the_ignore_file(dockerfile: Path) -> None:
    own = dockerfile.with_name(dockerfile.name + ".dockerignore")
    ignore = (own if own.exists() else ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in ignore if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {line.removeprefix("!") for line in rules if line.startswith("!")}
    copied = set()
    for word, rest in instructions(dockerfile):
        if word == "COPY" and not rest.startswith("--from"):
            copied |= set(rest.split(" ")[:-1])
    assert copied and copied <= allowed
    assert all((ROOT / name).exists() for name in copied)


def test_front_end_has_no_torch_and_takes_its_versions_from_what_is_tested() -> None:
    api, worker, tested = pins("api.txt"), pins("worker.txt"), pins("ci.txt")
    assert {"torch", "diffusers", "transformers", "accelerate"}.isdisjoint(api)
    assert {"diffusers", "transformers", "accelerate"} <= worker.keys()
    assert api.items() <= tested.items()
    assert worker.items() <= tested.items()
    assert pins("build.txt").items() <= tested.items()
    assert "hatchling" in pins("build.txt")


def test_locks_meet_what_pyproject_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    api = pins("api.txt")
    worker = pins("worker.txt") | pins("torch.txt")
    front = project["dependencies"] + extras["server"]
    for lock, lines in ((api, front), (worker, front + extras["engine"])):
        for required in map(Requirement, lines):
            pinned = lock[canonicalize_name(required.name)]
            assert required.specifier.contains(pinned, prereleases=True), required
