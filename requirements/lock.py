"""Write the locks: one exact version of every package that an installation needs, with its hashes.

``ci.txt``      the development environment, ``.[dev,service,local]``
``worker.txt``  the worker's image, ``.[service]``
``api.txt``     the front end's image: ``.[service]`` without torch and what goes with it
``build.txt``   what makes a wheel of the project, in both images' first stage
``torch.txt``   torch alone, without hashes

Run by `make lock`, from the repository root, as `python requirements/lock.py TORCH_SPEC
[PIP_OPTION ...]`. pip resolves pyproject.toml afresh and reports what it would install; nothing is
installed. The images' locks take their versions from ci.txt, so that what is tested is what runs.
Each version is written with the sha256 of all its files on the index, so that other platforms than
this one can install it too. Torch stands apart, as its version without the local part (`2.13.0`,
not `2.13.0+cpu`): its CPU and CUDA builds have other hashes, and come from other indexes.
"""

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import Request, urlopen

from packaging.requirements import Requirement
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import Version

# What the front end imports of our own dependencies; tests/deploy/test_rooms.py holds it to it.
API_NEEDS = frozenset({"numpy", "pillow", "pydantic", "rich", "typer"})

# What redis needs on Python before 3.11.3. pip resolves for the Python that runs it; the locks are
# for every 3.11.
EARLIER = ["async-timeout>=4.0.3,<6"]

HEADERS = {
    "ci.txt": "Every package of the development environment",
    "worker.txt": "Every package of a worker",
    "api.txt": "Every package of the front end",
    "build.txt": "What makes a wheel of the project",
    "torch.txt": "Torch",
}
HEADER = """\
# {what}, resolved on Linux with Python {python}.
# Written by `make lock`; do not edit. {how}
"""
HOW = {
    "ci.txt": "`make env` installs these, then torch.txt.",
    "worker.txt": "deploy/worker.Dockerfile installs these, then torch.txt.",
    "api.txt": "deploy/api.Dockerfile installs these, then the project alone.",
    "build.txt": "Both Dockerfiles install these apart; nothing of them is in an image.",
    "torch.txt": "No hashes: its CPU and CUDA builds differ.",
}
FOLDER = Path(__file__).parent
INDEX = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/")
JSON = "application/vnd.pypi.simple.v1+json"


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


def version_of(filename: str) -> Version | None:
    """The version that a file of an index holds; None if it is neither wheel nor source archive."""
    try:
        wheel = filename.endswith(".whl")
        return (parse_wheel_filename if wheel else parse_sdist_filename)(filename)[1]
    except (InvalidWheelFilename, InvalidSdistFilename):
        return None


def hashes(package: str, version: str) -> list[str]:
    """The sha256 of every file that the index has of ``version``, sorted.

    Raises:
        LookupError: the index has no such file.
        OSError: it does not answer.
    """
    page = Request(f"{INDEX}/{canonicalize_name(package)}/", headers={"Accept": JSON})
    with urlopen(page, timeout=60) as answer:
        files = json.load(answer)["files"]
    wanted = Version(version)
    found = {f["hashes"]["sha256"] for f in files if version_of(f["filename"]) == wanted}
    if not found:
        raise LookupError(f"{INDEX} has no file of {package} {version}")
    return sorted(found)


def write(name: str, lines: list[str]) -> None:
    """Write a lock next to this file."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    header = HEADER.format(what=HEADERS[name], how=HOW[name], python=python)
    (FOLDER / name).write_text(header + "".join(f"{line}\n" for line in lines))


def write_locks(locks: dict[str, dict[str, str]]) -> None:
    """Write the locks, given as file name to package to version. All versions are ci.txt's."""
    pins = {package: v for package, v in locks["ci.txt"].items() if package != "torch"}
    with ThreadPoolExecutor(8) as pool:
        known = dict(zip(pins, pool.map(hashes, pins, pins.values()), strict=True))
    for name, packages in locks.items():
        chosen = sorted(packages.keys() - {"torch"}, key=str.lower)
        write(name, [_hashed(f"{p}=={packages[p]}", known[p]) for p in chosen])
    write("torch.txt", [f"torch=={locks['ci.txt']['torch']}"])


def _hashed(pin: str, found: list[str]) -> str:
    return " \\\n".join([pin, *(f"    --hash=sha256:{digest}" for digest in found)])


def main() -> None:
    """Resolve, then write the locks."""
    torch_spec, *pip_options = sys.argv[1:]
    tested = resolve([torch_spec, *EARLIER, "--editable", ".[dev,service,local]"], pip_options)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.writelines(f"{package}=={version}\n" for package, version in tested.items())
        constraints.flush()
        as_tested = [*pip_options, "--constraint", constraints.name]
        worker = resolve([torch_spec, *EARLIER, "--editable", ".[service]"], as_tested)
        told = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())
        api = resolve([*api_requirements(told["project"]), *EARLIER], as_tested)
        build = resolve(told["build-system"]["requires"], as_tested)
    write_locks({"ci.txt": tested, "worker.txt": worker, "api.txt": api, "build.txt": build})


if __name__ == "__main__":
    main()
