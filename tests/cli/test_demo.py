"""The demo as it is typed: the whole service started, a look taught and painted, all ended."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_writes_its_pictures_and_leaves_nothing_running(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CUSTOMEDIT_")}
    out = tmp_path / "demo-output"
    command = [sys.executable, "-m", "customedit.cli", "demo", "--out", str(out), "--port", "0"]
    done = subprocess.run(
        [*command, "--training-steps", "10"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for name in ("before.png", "after.png"):
        assert Image.open(out / name).size == (128, 128)
    assert Image.open(out / "sheet.png").width > 128
    key = (out / "service" / "api-key").read_text().strip()
    assert key not in done.stderr and "reference" in done.stderr
    assert "/#/jobs/job_" in done.stderr  # where the page shows the edit
    mine = [p for p in Path("/proc").glob("[0-9]*/cmdline") if str(out).encode() in _read(p)]
    assert mine == []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended meanwhile
        return b""
