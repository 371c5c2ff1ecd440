"""Runs one process as a child that does not outlive the process that wanted it.

``python -I -S child_process.py GRACE_S LOG LOG_BYTES PID_FILE COMMAND ...``: standard input is a
pipe whose other end the parent holds. When it closes, because the parent stopped us or died in
whatever way, the child gets SIGTERM and, ``GRACE_S`` seconds later, SIGKILL; a SIGQUIT to us kills
it at once. What the child prints goes to the file ``LOG``, our standard output, which is rotated at
``LOG_BYTES``. Ends with the child's exit status, and leaves its process id in ``PID_FILE``. Uses
nothing but the standard library, and works where there is no PR_SET_PDEATHSIG; where there is, the
child also ends when this process is killed itself.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def follow_parent() -> None:
    """In a child, before it becomes what it is to be: ask for SIGTERM when its parent dies."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def rotated(log: str) -> str:
    """Where a log goes when it is rotated."""
    return f"{log}.1"


def rotate(log: str, most: int) -> None:
    """Keep a log that others append to within ``most`` bytes, and as many of the one before.

    It is copied and emptied, since who writes holds it open; a line of that moment may be lost.
    """
    if not os.path.exists(log) or os.path.getsize(log) <= most:
        return
    with open(log, "rb+") as file:
        file.seek(-most, os.SEEK_END)
        with open(rotated(log), "wb") as out:
            while part := file.read(1 << 20):
                out.write(part)
        file.truncate(0)


def main(grace_s: float, log: str, log_bytes: int, pid_file: str, command: list[str]) -> int:
    """Run ``command`` until it ends or standard input closes; gives its exit status."""
    # An interrupt at the terminal goes to the parent, which decides in what order things stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, lambda number, _: stopping.append(number))
    parent = os.getppid()
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        close_fds=False,  # the child keeps the folder's lock, too: it is free when all are gone
        preexec_fn=follow_parent,
    )
    with open(pid_file + ".new", "w") as file:
        file.write(str(child.pid))
    os.replace(pid_file + ".new", pid_file)
    while child.poll() is None and not stopping and os.getppid() == parent:
        readable, _, _ = select.select([0], [], [], 0.1)
        if readable and not os.read(0, 64):
            break
        rotate(log, log_bytes)
    if child.poll() is None:
        child.terminate()
        deadline = time.monotonic() + grace_s
        while child.poll() is None and time.monotonic() < deadline:
            if signal.SIGQUIT in stopping:
                break
            time.sleep(0.02)
    if child.poll() is None:
        child.kill()
    status = child.wait()
    rotate(log, log_bytes)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5:]))
