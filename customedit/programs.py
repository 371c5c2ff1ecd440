"""The programs of the service, ``api`` and ``worker``, wherever this package is installed.

In a checkout they are packages beside ``customedit``. A wheel carries them below it, in
``customedit/_service``, so that no environment gets top-level packages of such common names.
``python -m customedit.programs api`` runs one in either case, as do ``customedit api`` and
``customedit worker``. Nothing here imports torch.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Final, Literal, get_args

Program = Literal["api", "worker"]
PROGRAMS: Final = get_args(Program)


def folder(program: Program) -> Path:
    """The folder that holds the package of ``program``.

    Raises:
        FileNotFoundError: this installation does not have it.
    """
    package = Path(__file__).resolve().parent
    for candidate in (package / "_service", package.parent):
        if (candidate / program / "__main__.py").is_file():
            return candidate
    raise FileNotFoundError(
        f"{package} has no program {program}: neither in _service nor in a checkout around it"
    )


def command(program: Program) -> list[str]:
    """The command line that runs ``program`` with this interpreter."""
    return [sys.executable, "-m", "customedit.programs", program]


def run(program: Program) -> None:
    """Run ``program`` in this process until it ends; raises SystemExit with its status."""
    place = str(folder(program))
    if place not in sys.path:
        sys.path.insert(0, place)
    sys.argv = [program]
    runpy.run_module(program, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in PROGRAMS:
        sys.exit(f"usage: python -m customedit.programs {'|'.join(PROGRAMS)}")
    run(sys.argv[1])  # type: ignore[arg-type]  # one of PROGRAMS
