"""The project's own promises: what its files say about each other is true."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import customedit

from .conftest import LONG

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.MULTILINE))
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
HEAVY = {"torch", "diffusers", "transformers", "numpy", "PIL"}


def locked(name: str) -> dict[str, str]:
    """The versions that a lock pins."""
    pins = re.findall(r"^([\w.-]+)==([^\s\\]+)", (ROOT / "requirements" / name).read_text(), re.M)
    return {canonicalize_name(package): version for package, version in pins}


def test_installed_version_is_the_one_in_the_code() -> None:
    assert importlib.metadata.version("customedit") == customedit.__version__


def test_changelog_has_a_place_for_this_version() -> None:
    headings = re.findall(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    version = Version(customedit.__version__)
    assert headings[0] == "Unreleased"
    assert version.is_devrelease or str(version) in headings


def test_importing_customedit_loads_nothing_heavy() -> None:
    code = "import sys, customedit; print(*{m.partition('.')[0] for m in sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert HEAVY.isdisjoint(run.stdout.split())


def test_every_make_target_has_help() -> None:
    told = set(re.findall(r"^([a-z][a-z-]*):.*## \S", MAKEFILE, re.MULTILINE))
    phony = set(re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[0].split())
    assert told == TARGETS == phony


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_only_targets_that_exist(page: Path) -> None:
    code = re.findall(r"```.*?```|`[^`\n]+`", page.read_text(), re.DOTALL)
    named = set(re.findall(r"(?:^|[`\s])make ([a-z][a-z-]*)", "\n".join(code)))
    assert named <= TARGETS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_link_only_to_files_that_exist(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    local = [link for link in links if "://" not in link and not link.startswith("mailto:")]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_lock_meets_what_pyproject_asks_for() -> None:
    pins = locked("ci.txt") | locked("torch.txt")
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"].values()
    lines = sum(extras, start=project["dependencies"])
    required = [r for r in map(Requirement, lines) if r.name != project["name"]]
    unmet = [
        str(r) for r in required if pins.get(canonicalize_name(r.name), "0") not in r.specifier
    ]
    assert unmet == []


def test_make_and_lock_agree_on_torch() -> None:
    spec = re.search(r"^TORCH_SPEC \?= (\S+)$", MAKEFILE, re.MULTILINE)
    assert spec is not None
    assert spec[1] in (ROOT / "requirements" / "torch.txt").read_text().splitlines()


@pytest.mark.parametrize("name", ["api.txt", "build.txt", "ci.txt", "worker.txt"])
def test_every_pin_has_hashes_and_torch_is_none(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text().replace("\\\n", "")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    hashed = r"\S+==\S+( ; [^-]+?)?(\s+--hash=sha256:[0-9a-f]{64})+"
    assert [line.split()[0] for line in lines if not re.fullmatch(hashed, line)] == []
    assert "torch" not in locked(name)


def test_no_file_has_conflict_markers() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    (pattern,) = (hook["entry"] for hook in hooks if hook["id"] == "conflict-markers")
    merge = ["<" * 7 + " ours", "|" * 7 + " before", "=" * 7, ">" * 7 + " theirs"]
    assert all(re.search(pattern, line) for line in merge)
    found = subprocess.run(
        ["git", "grep", "-nIE", pattern], cwd=ROOT, capture_output=True, text=True
    )
    assert found.returncode == 1, found.stdout or found.stderr  # 1: no line matches


def test_what_is_begun_first_among_the_tests_is_there() -> None:
    assert len(set(LONG)) == len(LONG)
    assert [name for name in LONG if not (ROOT / name).exists()] == []
