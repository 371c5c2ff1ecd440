"""The benchmarks that need a GPU or hours run in small here, so that they run when they must."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


def run(name: str, *arguments: str) -> str:
    command = [sys.executable, str(FOLDER / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.py")))
def test_they_find_what_they_measure(name: str) -> None:
    """What they import of the library and the service is there; the slow tests run them."""
    module = importlib.import_module(f"benchmarks.{name}")
    assert module.__doc__ and module.__file__ == str(FOLDER / f"{name}.py")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_gpu_benchmark_measures_all_parts_of_both_shapes(tmp_path: Path) -> None:
    run("gpu.py", "--device", "cpu", "--dtype", "float32", "--tiny", "--out", str(tmp_path))
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert list(report["bases"]) == ["sd14", "sdxl"]
    for found in report["bases"].values():
        assert found["left_out"] == []
        for part in ("plain", "peers", "alone", "together", "training", "profile", "ratios"):
            assert found[part] and all(v >= 0 for v in found[part].values()), part
        assert sum(found["profile"].values()) == pytest.approx(1, abs=0.01)
    assert (tmp_path / "gpu.png").stat().st_size > 1000
    assert {"step_s", "step_s_of_2", "peers_step_s"} == set(report["bases"]["sd14"]["training"])
    assert {"step_s", "step_s_of_2"} == set(report["bases"]["sdxl"]["training"])
    assert "peers' training step / ours" in report["bases"]["sd14"]["ratios"]
    table = (tmp_path / "gpu.md").read_text()
    assert "| together: edit_s_of_4 |" in table
    assert "| parts left out for lack of time | none | none |" in table


def test_the_table_has_memory_and_what_was_left_out() -> None:
    from benchmarks import gpu  # which imports torch and more

    found = {"plain": {"row_ms_of_1": 2.0}, "peak_memory_gib": 7.5, "left_out": ["peers", "alone"]}
    report = {
        "device": "a card", "dtype": "bfloat16", "torch": "2", "steps": 50, "peak_tflops": 100,
        "bases": {"sd14": found, "sdxl": {"left_out": []}},
    }  # fmt: skip
    table = gpu.table(report)
    assert "| plain: row_ms_of_1 | 2.0 |  |" in table
    assert "| peak memory, GiB | 7.5 |  |" in table
    assert "| parts left out for lack of time | peers, alone | none |" in table


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_jobs_under_load_end_once_each(tmp_path: Path) -> None:
    out = tmp_path / "load.json"
    run(
        "load.py", "run", "--jobs", "40", "--workers", "4", "--tenants", "3",
        "--job-seconds", "0.05", "--rounds", "1", "--steps", "2", "--out", str(out),
    )  # fmt: skip
    report = json.loads(out.read_text())
    assert (report["lost"], report["doubled"]) == (0, 0)
    assert [size["jobs"] for size in report["growth"]] == [20, 40]
    assert report["run"]["claim"]["count"] >= 40


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_submits_are_answered_by_both_front_ends() -> None:
    arguments = ("--requests", "32", "--clients", "4", "--apis", "2")
    found = json.loads(run("service.py", "submit", *arguments))
    assert (found["requests"], found["errors"], found["front ends"]) == (32, 0, 2)
    spent = found["processor_ms_of_a_submit"]
    assert min(spent["api-1"], spent["api-2"], spent["clients"]) > 0


def test_a_submits_cost_is_told_without_stores() -> None:
    found = json.loads(run("submit_cost.py", "--submits", "2", "--repeats", "2"))
    assert (found["submits"], found["errors"], len(found["each_repeat_ms"])) == (2, 0, 2)
    assert 0 < found["event_loop_ms"] <= found["processor_ms"]
