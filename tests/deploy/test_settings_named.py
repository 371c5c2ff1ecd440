"""Every setting that the deployment or its documentation names is one."""

import re
from pathlib import Path
from typing import Any

import pytest

from customedit.config.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parents[2]
KNOWN = {PREFIX + name.upper() for name in Settings.model_fields}
FILES = [
    ROOT / "docker-compose.yml",
    ROOT / "docs" / "operations.md",
    *sorted(path for path in (ROOT / "deploy").rglob("*") if path.is_file()),
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_settings_exist(path: Path) -> None:
    assert set(re.findall(rf"{PREFIX}[A-Z0-9_]*[A-Z0-9]", path.read_text())) <= KNOWN


def test_settings_given_by_manifests_are_within_their_limits(
    production: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (config,) = (o for o in production if o["metadata"]["name"].startswith("customedit-settings"))
    for name, value in config["data"].items():
        monkeypatch.setenv(name, value)
    for item in production:
        if item["kind"] == "Deployment":
            (container,) = item["spec"]["template"]["spec"]["containers"]
            with monkeypatch.context() as own:
                for variable in container["env"]:
                    own.setenv(variable["name"], variable["value"])
                assert Settings.of_environment().base.startswith("stable-diffusion")
