"""Runs one server as a child that does not outlive the process that wanted it.

``python -I -S guard.py GRACE_S LOG LOG_BYTES COMMAND ...``: standard input is a pipe whose other
end the parent holds. When it closes, because the parent stopped us or died in whatever way, the
child gets SIGTERM and, ``GRACE_S`` seconds later, SIGKILL; a SIGQUIT to us kills it at once. What
the child says goes to the file ``LOG``, our standard output, which is turned over at ``LOG_BYTES``.
Ends with the child's exit status, and leaves its process id in ``server.pid`` of the working
directory. Uses nothing but the standard library, and works where there is no PR_SET_PDEATHSIG;
where there is, the child also goes when this process is killed itself.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from typing import Final

PID: Final = "server.pid"
_PR_SET_PDEATHSIG: Final = 1


def follow_parent() -> None:
    """In a child, before it becomes what it is to be: ask for SIGTERM when its parent dies."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def former(log: str) -> str:
    """Where a log goes when it is turned over."""
    return f"{log}.1"


def turn_over(log: str, most: int) -> None:
    """Keep a log that others append to within ``most`` bytes, and as many of its former ones.

    It is copied and emptied, since who writes holds it open; a line of that moment may be lost.
    """
    if not os.path.exists(log) or os.path.getsize(log) <= most:
        return
    with open(log, "rb+") as file:
        file.seek(-most, os.SEEK_END)
        with open(former(log), "wb") as out:
            while part := file.read(1 << 20):
                out.write(part)
        file.truncate(0)


def main(grace_s: float, log: str, log_bytes: int, command: list[str]) -> int:
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
    with open(PID, "w") as file:
        file.write(str(child.pid))
    while child.poll() is None and not stopping and os.getppid() == parent:
        readable, _, _ = select.select([0], [], [], 0.1)
        if readable and not os.read(0, 64):
            break
        turn_over(log, log_bytes)
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
    turn_over(log, log_bytes)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4:]))
