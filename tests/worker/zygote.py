"""Starts workers by fork: the seconds of importing are spent once for all of a test run.

Reads JSON lines ``{"env": {...}, "log": path}`` from standard input; for each it forks a process
that becomes a worker as ``python -m worker`` would, and prints its pid. What is forked is only
code that was imported: no connection, no thread, no model. Its children are reaped by the kernel.

A base is loaded once and let go, since diffusers and transformers import what its parts are made of
when they first read them, which is longer work than the reading.
"""

from __future__ import annotations

import json
import os
import signal
import sys

import worker.main
from customedit.diffusion.base import Base
from customedit.mini.draw import hush


def become_worker(env: dict[str, str], log: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ.update(env)
    out = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
    quiet = os.open(os.devnull, os.O_RDONLY)
    for number, target in ((0, quiet), (1, out), (2, out)):
        os.dup2(target, number)
    os.setsid()
    status = worker.main.main()
    os.write(out, f"exit status {status}\n".encode())
    os._exit(status)


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    hush()
    Base.load()
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        pid = os.fork()
        if pid == 0:
            try:
                become_worker(asked["env"], asked["log"])
            finally:
                os._exit(1)
        print(pid, flush=True)


if __name__ == "__main__":
    main()
