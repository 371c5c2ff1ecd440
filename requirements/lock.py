"""Write requirements/ci.txt: one exact version of every package that `.[dev,service,local]` needs.

Run by `make lock`, from the repository root, as `python requirements/lock.py TORCH_SPEC
[PIP_OPTION ...]`. pip resolves pyproject.toml afresh and reports what it would install; nothing is
installed. Torch is resolved to TORCH_SPEC and written without its local part (`2.13.0`, not
`2.13.0+cpu`), so that the same line is met by a CPU and by a CUDA build.
"""

import json
import subprocess
import sys
from pathlib import Path

HEADER = """\
# Every package of the development environment, resolved on Linux with Python {python}.
# Written by `make lock`; do not edit. `make env` installs torch first, in a call of its own.
"""


def resolve(torch_spec: str, pip_options: list[str]) -> dict[str, str]:
    """Ask pip which version of each package it would install, by package name.

    Raises:
        subprocess.CalledProcessError: pip found no set of versions; its output says why.
    """
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
    wanted = ["--report", "-", torch_spec, "--editable", ".[dev,service,local]"]
    run = subprocess.run([*pip, *pip_options, *wanted], check=True, stdout=subprocess.PIPE)
    packages = [item["metadata"] for item in json.loads(run.stdout)["install"]]
    return {p["name"]: p["version"].split("+")[0] for p in packages if p["name"] != "customedit"}


def main() -> None:
    """Resolve, then write the lock next to this file."""
    torch_spec, *pip_options = sys.argv[1:]
    pins = resolve(torch_spec, pip_options)
    lines = [f"{name}=={pins[name]}\n" for name in sorted(pins, key=str.lower)]
    header = HEADER.format(python=f"{sys.version_info.major}.{sys.version_info.minor}")
    Path(__file__).with_name("ci.txt").write_text(header + "".join(lines))


if __name__ == "__main__":
    main()
