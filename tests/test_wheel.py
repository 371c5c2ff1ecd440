"""What an installed wheel brings: no package but ours, no torch for a client, and the service."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"torch", "diffusers", "transformers", "numpy", "redis", "boto3", "fastapi", "celery"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", str(out), str(ROOT)]
    subprocess.run(command, check=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel unpacked: what would be in site-packages."""
    folder = tmp_path_factory.mktemp("site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run_with(
    installed: Path, *arguments: str, cwd: Path, hide: frozenset[str] = frozenset()
) -> subprocess.CompletedProcess[str]:
    """Runs Python with ``installed`` before the checkout, and the modules ``hide`` not there."""
    blocker = (
        "import sys\n"
        f"sys.path.insert(0, {str(installed)!r})\n"
        f"sys.path[:] = [p for p in sys.path if p != {str(ROOT)!r}]\n"
        f"hidden = {sorted(hide)!r}\n"
        "class Hidden:\n"
        "    @staticmethod\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        if name.partition('.')[0] in hidden:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Hidden)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "-c", blocker + arguments[0], *arguments[1:]],
        env=environment, cwd=cwd, capture_output=True, text=True,
    )  # fmt: skip


def test_a_wheel_has_one_package_at_its_top(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"customedit"}
    assert "customedit/_service/api/page/index.html" in names
    assert "customedit/_service/worker/__main__.py" in names
    assert not [name for name in names if "__pycache__" in name or name.startswith("tests")]


def test_a_client_needs_neither_torch_nor_the_server(installed: Path, tmp_path: Path) -> None:
    code = (
        "from customedit.client import CustomEdit\n"
        "import customedit, customedit.schemas.requests, customedit.schemas.answers\n"
        "print(customedit.__file__)"
    )
    run = run_with(installed, code, cwd=tmp_path, hide=frozenset(HEAVY | {"PIL", "scipy"}))
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(str(installed))


def test_programs_run_from_a_wheel(installed: Path, tmp_path: Path) -> None:
    for program, module in (("api", "api.app"), ("worker", "worker.executor")):
        code = (
            "import importlib, sys\n"
            "from customedit import programs\n"
            f"sys.path.insert(0, str(programs.folder({program!r})))\n"
            f"print(importlib.import_module({module!r}).__file__)"
        )
        run = run_with(installed, code, cwd=tmp_path)
        assert run.returncode == 0, run.stderr
        assert run.stdout.startswith(str(installed / "customedit" / "_service"))


def test_a_command_says_how_to_get_what_is_missing(installed: Path, tmp_path: Path) -> None:
    code = "import sys; sys.argv[0] = 'customedit'; from customedit.cli import main; main()"
    run = run_with(installed, code, "doctor", cwd=tmp_path, hide=frozenset(HEAVY))
    assert run.returncode == 2
    assert "customedit[engine]" in run.stderr and "Traceback" not in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1
