"""A process that checks pictures and masks: ``python -m customedit.images.decoder_process``.

It reads requests from standard input and answers on standard output, one at a time:

1. The request: a line of JSON (``field``, ``limits``, ``bytes``, ``mask``: what marks the inside
   of a mask, null for a picture), then the file.
2. The answer: ``{"memory": n}``, the bytes that decoding takes, or ``{"refused": [...]}``.
3. ``go`` on a line of its own; the answer: ``{"checked": {...}}`` (of a mask null) or
   ``{"refused": [...]}``. Any other line ends the request without one.

The process ends when its input does. Its memory is limited by the system (RLIMIT_AS), so that a
file whose memory was misjudged ends in an error here and not in a machine without memory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import sys
from typing import Any, BinaryIO

from customedit.errors import InputError
from customedit.images import masks
from customedit.images.reading import check, scan
from customedit.images.structure import Limits


def limit_memory(extra: int) -> None:
    """Let this process take ``extra`` bytes of address space more than it has; where it can."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        with open("/proc/self/statm") as stream:
            held = int(stream.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (held + extra, hard))


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until there are no more."""

    def answer(**facts: Any) -> None:
        answers.write(json.dumps(facts).encode() + b"\n")
        answers.flush()

    while line := requests.readline():
        request = json.loads(line)
        field, data = request["field"], requests.read(request["bytes"])
        limits = Limits(**request["limits"])
        try:
            container = scan(data, field=field, limits=limits)
            if request["mask"]:
                answer(memory=masks.memory(container) + len(data))
                del container
                if requests.readline() == b"go\n":
                    masks.read_mask(data, field=field, limits=limits, marks=request["mask"])
                    answer(checked=None)
                continue
            del data
            answer(memory=container.memory + 2 * len(container.data))
            if requests.readline() == b"go\n":
                answer(checked=dataclasses.asdict(check(container, field=field)))
        except InputError as error:
            answer(refused=[error.field, error.problem, error.remedy])
        except MemoryError:
            answer(refused=[field, "needs more memory to decode than is allowed", "scale it down"])


def main() -> None:
    """Serve standard input, with the memory that the first argument allows, in bytes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is its parent's to handle
    limit_memory(int(sys.argv[1]))
    serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
