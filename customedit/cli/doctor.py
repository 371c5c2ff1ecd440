"""``customedit doctor``: what this machine has, and whether the bundled base works on it."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import typer

import customedit
from customedit.cli import console

PACKAGES = ("torch", "diffusers", "transformers", "safetensors", "numpy", "pillow")


def one_step(device: str, dtype: str) -> str:
    """The outcome of one step of the bundled base on ``device``."""
    from customedit.cli.models import check_forward

    check_forward(console.load_base("mini", device, dtype))
    return "works"


def doctor_command(as_json: console.JsonOption = False) -> None:
    """Check this machine: packages, processor, memory, GPU, and one step of the bundled base."""
    report: dict[str, Any] = {
        "customedit": customedit.__version__,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    }
    for name in PACKAGES:
        try:
            report[name] = version(name)
        except PackageNotFoundError:
            report[name] = "missing"
    problems = [
        f"{name} is missing: pip install {name}" for name in PACKAGES if report[name] == "missing"
    ]
    if not problems:
        import torch

        report["threads"] = torch.get_num_threads()
        tried = {"bundled base": ("cpu", "float32")}
        if torch.cuda.is_available():
            free, total = torch.cuda.mem_get_info()
            report["gpu"] = torch.cuda.get_device_name()
            report["gpu_memory"] = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
            known = torch.cuda.is_bf16_supported(including_emulation=False)
            tried["on the gpu"] = ("cuda", "bfloat16" if known else "float16")
        else:
            report["gpu"] = "none"
        for name, (device, dtype) in tried.items():
            try:
                report[name] = one_step(device, dtype)
            except Exception as error:
                report[name] = "fails"
                problems.append(f"the bundled base fails on {device}: {error}")
    lines = [f"{k:<14} {v}" for k, v in report.items()] + [f"problem: {p}" for p in problems]
    console.say(report | {"problems": problems}, lines, as_json)
    if problems:
        raise typer.Exit(1)
