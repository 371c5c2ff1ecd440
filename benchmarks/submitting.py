"""The clients of ``service.py submit``: many connections in one process of their own.

Reads from standard input, as JSON, ``urls`` (of the front ends, which take turns), ``head`` (lines
of a request's head), ``bodies``, ``clients``; sends each body once and writes, as JSON: ``seconds``
of each request that was answered with 202, ``errors``, ``took`` and ``processor`` seconds.

Imports the standard library alone and writes each request at once, so that the clients, which share
the machine with the service, take little of it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit


async def client(
    url: str, head: str, bodies: Iterator[str], seconds: list[float], errors: list[str]
) -> None:
    """Send bodies on one connection until there are no more."""
    at = urlsplit(url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port)
    for body in bodies:
        data = body.encode()
        request = f"POST /v1/edits HTTP/1.1\r\nHost: {at.netloc}\r\n{head}"
        request += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        began = time.perf_counter()
        writer.write(request.encode() + data)
        answered = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = answered.partition("content-length:")[2].partition("\r\n")[0]
        await reader.readexactly(int(length))
        took = time.perf_counter() - began
        status = answered.split()[1]
        if status == "202":
            seconds.append(took)
        else:
            errors.append(status)
    writer.close()


async def drive(given: dict[str, Any]) -> dict[str, Any]:
    """Send all that is ``given``."""
    seconds: list[float] = []
    errors: list[str] = []
    bodies, urls = iter(given["bodies"]), given["urls"]
    began, processor = time.perf_counter(), time.process_time()
    await asyncio.gather(
        *(
            client(urls[k % len(urls)], given["head"], bodies, seconds, errors)
            for k in range(given["clients"])
        )
    )
    return {
        "seconds": seconds,
        "errors": errors,
        "took": time.perf_counter() - began,
        "processor": time.process_time() - processor,
    }


if __name__ == "__main__":
    json.dump(asyncio.run(drive(json.load(sys.stdin))), sys.stdout)
