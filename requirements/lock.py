"""Write the locks: one exact version of every package that an installation needs.

``ci.txt``      the development environment, ``.[dev,service,local]``
``worker.txt``  the worker's image, ``.[service]``
``api.txt``     the front end's image: ``.[service]`` without torch and what goes with it

Run by `make lock`, from the repository root, as `python requirements/lock.py TORCH_SPEC
[PIP_OPTION ...]`. pip resolves pyproject.toml afresh and reports what it would install; nothing is
installed. The images' locks take their versions from ci.txt, so that what is tested is what runs.
Torch is resolved to TORCH_SPEC and written without its local part (`2.13.0`, not `2.13.0+cpu`), so
that the same line is met by a CPU and by a CUDA build.
"""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

# What the front end imports of our own dependencies; tests/deploy/test_rooms.py holds it to it.
API_NEEDS = frozenset({"numpy", "pillow", "pydantic", "rich", "typer"})

HEADERS = {
    "ci.txt": "Every package of the development environment",
    "worker.txt": "Every package of a worker",
    "api.txt": "Every package of the front end",
}
HEADER = """\
# {what}, resolved on Linux with Python {python}.
# Written by `make lock`; do not edit. {how}
"""
HOW = {
    "ci.txt": "`make env` installs torch first, in a call of its own.",
    "worker.txt": "deploy/worker.Dockerfile installs torch first, by itself.",
    "api.txt": "deploy/api.Dockerfile installs these, then the project alone.",
}
FOLDER = Path(__file__).parent


def resolve(wanted: list[str], pip_options: list[str]) -> dict[str, str]:
    """Ask pip which version of each package it would install, by package name.

    Raises:
        subprocess.CalledProcessError: pip found no set of versions; its output says why.
    """
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
    command = [*pip, *pip_options, "--report", "-", *wanted]
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    packages = [item["metadata"] for item in json.loads(run.stdout)["install"]]
    return {p["name"]: p["version"].split("+")[0] for p in packages if p["name"] != "customedit"}


def api_requirements(project: dict) -> list[str]:
    """Of pyproject.toml's ``project`` table, what the front end asks for."""
    own = [line for line in project["dependencies"] if Requirement(line).name in API_NEEDS]
    return [*own, *project["optional-dependencies"]["service"]]


def write(name: str, pins: dict[str, str]) -> None:
    """Write a lock next to this file."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    header = HEADER.format(what=HEADERS[name], how=HOW[name], python=python)
    lines = [f"{package}=={pins[package]}\n" for package in sorted(pins, key=str.lower)]
    (FOLDER / name).write_text(header + "".join(lines))


def main() -> None:
    """Resolve, then write the three locks."""
    torch_spec, *pip_options = sys.argv[1:]
    write("ci.txt", resolve([torch_spec, "--editable", ".[dev,service,local]"], pip_options))
    as_tested = [*pip_options, "--constraint", str(FOLDER / "ci.txt")]
    write("worker.txt", resolve([torch_spec, "--editable", ".[service]"], as_tested))
    project = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())["project"]
    write("api.txt", resolve(api_requirements(project), as_tested))


if __name__ == "__main__":
    main()
