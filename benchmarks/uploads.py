"""Hostile uploads: ``python benchmarks/uploads.py bombs | memory``.

``bombs``: three progressive JPEGs of 5,000 empty scans at once, beside them a usual upload of
another tenant; how long each takes. ``memory``: eight uploads at once whose decoding takes the
most, beside them usual ones; the most memory of the front end and its decoders together.

One front end (``python -m api``) on local servers; clients and service share the machine, which is
named. The files are made here and are small, but for two of nearly 20 MiB.
"""

from __future__ import annotations

import io
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import typer
from PIL import Image

from customedit.config.settings import Settings
from customedit.devserver.local_servers import LocalServers
from customedit.jobs.redis import connect
from customedit.mini.evaluate import machine
from customedit.storage.store import Storage
from customedit.tenants.access import ApiKeys

MIB = 2**20
SIZE = (8000, 5000)  # 40 million pixels: the limit

app = typer.Typer(add_completion=False)


def saved(image: Image.Image, name: str, **options: Any) -> bytes:
    """``image`` as a file."""
    stream = io.BytesIO()
    image.save(stream, name, **options)
    return stream.getvalue()


def scan_bomb(scans: int = 5000, size: tuple[int, int] = (6000, 6000)) -> bytes:
    """A progressive JPEG that declares ``size`` and repeats its last scan."""
    whole = saved(Image.new("RGB", (16, 16), "red"), "JPEG", progressive=True)
    starts = [m.start() for m in re.finditer(rb"\xff\xda", whole)]
    frame = whole.index(b"\xff\xc2")
    sized = whole[: frame + 5] + struct.pack(">HH", *size[::-1]) + whole[frame + 9 : -2]
    return sized + whole[starts[-1] : -2] * scans + b"\xff\xd9"


def deep_png(kind: int) -> bytes:
    """16 bits a sample; kind: of the PNG, 0 for grey and 6 for colours with alpha."""
    channels = {0: 1, 6: 4}[kind]
    row = b"\0" + b"\x12\x34" * channels * SIZE[0]

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    head = struct.pack(">IIBBBBB", *SIZE, 16, kind, 0, 0, 0)
    body = zlib.compress(row * SIZE[1], 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def ramp(size: tuple[int, int]) -> Image.Image:
    """Smooth colours."""
    down = np.linspace(0, 255, size[1], dtype=np.uint8)[:, None].repeat(size[0], 1)
    return Image.fromarray(np.stack([down, down[::-1], down // 2], -1))


def noise(size: tuple[int, int]) -> Image.Image:
    """Levels by chance, which no format makes small."""
    levels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(levels)


def hostile() -> dict[str, bytes]:
    """Eight files whose decoding takes the most, each within the limits of size."""
    return {
        "16-bit RGBA PNG, 40 MP": deep_png(6),
        "16-bit grey PNG, 40 MP": deep_png(0),
        "8-bit RGB PNG, 40 MP": saved(ramp(SIZE), "PNG", compress_level=1),
        "progressive 4:4:4 JPEG, 40 MP": saved(
            ramp(SIZE), "JPEG", progressive=True, subsampling=0, quality=95
        ),
        "WebP, 24 MP": saved(ramp((6000, 4000)), "WEBP", method=0),
        "WebP, 40 MP": saved(ramp(SIZE), "WEBP", method=0),
        "noise PNG, 19 MiB": saved(noise((3200, 2050)), "PNG", compress_level=0),
        "noise JPEG, 18 MiB": saved(noise((2800, 2700)), "JPEG", quality=95, subsampling=0),
    }


class Tree:
    """Memory of a process and its children, sampled until the block ends."""

    def __init__(self, pid: int) -> None:
        self.pid, self.rss, self.pss, self._stop = pid, 0, 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self.sample()

    def sample(self) -> None:
        """Look once; keeps the largest sums, in bytes."""
        rss = pss = 0
        for pid in (self.pid, *children(self.pid)):
            try:
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:
                continue
            rss += 1024 * int(re.search(r"^Rss:\s+(\d+)", text, re.M)[1])  # type: ignore[index]
            pss += 1024 * int(re.search(r"^Pss:\s+(\d+)", text, re.M)[1])  # type: ignore[index]
        self.rss, self.pss = max(self.rss, rss), max(self.pss, pss)

    def __enter__(self) -> Tree:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def children(pid: int) -> list[int]:
    """Processes that ``pid`` started."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(p) for p in task.read_text().split()]
    return found


@contextmanager
def front_end() -> Iterator[tuple[str, int, Callable[[str], str]]]:
    """One front end; gives its address, its process and a way to make keys."""
    with tempfile.TemporaryDirectory() as folder, LocalServers(Path(folder)) as servers:
        os.environ |= servers.environment() | {"CUSTOMEDIT_API_PORT": "0"}
        settings = Settings.of_environment()
        Storage(settings).bucket()
        keys = ApiKeys(connect(settings), settings)
        process = subprocess.Popen(
            [sys.executable, "-m", "api"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert process.stdout is not None
        try:
            line = next(line for line in process.stdout if b"listening on" in line)
            port = json.loads(line)["port"]
            threading.Thread(target=process.stdout.read, daemon=True).start()
            wait_until_up(f"http://127.0.0.1:{port}/healthz")
            yield f"http://127.0.0.1:{port}", process.pid, lambda tenant: keys.create(tenant)[1]
        finally:
            process.terminate()
            process.wait(60)


def wait_until_up(url: str) -> None:
    """Ask until there is an answer; two minutes at most."""
    for _ in range(600):
        try:
            httpx.get(url, trust_env=False).raise_for_status()
            return
        except httpx.HTTPError:
            time.sleep(0.2)
    raise TimeoutError(url)


def upload(url: str, key: str, data: bytes) -> tuple[int, float, str]:
    """(status, seconds, the problem's detail) of an upload."""
    began = time.perf_counter()
    answer = httpx.post(
        f"{url}/v1/images",
        files={"file": ("a", data)},
        headers={"Authorization": f"Bearer {key}"},
        timeout=300,
        trust_env=False,
    )
    detail = answer.json().get("detail", "")
    return answer.status_code, round(time.perf_counter() - began, 2), detail


@app.command()
def bombs() -> None:
    """Three scan bombs at once and a usual upload of another tenant beside them."""
    bomb, usual = scan_bomb(), saved(ramp((2000, 1500)), "PNG")
    with front_end() as (url, _, key), ThreadPoolExecutor(8) as threads:
        anna, bert = key("anna"), key("bert")
        rounds = []
        for n in range(3):  # the first one starts the decoders
            data = [bomb + b"\0" * n] * 3
            given = [threads.submit(upload, url, anna, d) for d in data]
            beside = threads.submit(upload, url, bert, usual + b"\0" * n)
            rounds.append({"bombs": [g.result() for g in given], "usual": beside.result()})
    print(json.dumps({"machine": machine(), "bytes": len(bomb), "rounds": rounds}, indent=1))


@app.command()
def memory(
    worst: Annotated[bool, typer.Option(help="Half WebP, half large files.")] = False,
) -> None:
    """Eight hostile uploads at once of two tenants, usual ones of a third beside them."""
    files, usual = hostile(), ramp((2000, 1500))
    if worst:
        names = ("WebP, 24 MP", "noise PNG, 19 MiB")
        files = {f"{name}, {n}": files[name] + b"\0" * n for n in range(4) for name in names}
    with front_end() as (url, pid, key), ThreadPoolExecutor(16) as threads:
        keys = [key("anna"), key("bert")]
        third = key("carl")
        upload(url, third, saved(usual, "PNG"))
        idle = Tree(pid)
        idle.sample()
        with Tree(pid) as seen:
            given = {
                name: threads.submit(upload, url, keys[n % 2], data)
                for n, (name, data) in enumerate(files.items())
            }
            beside: list[tuple[int, float, str]] = []
            while not all(g.done() for g in given.values()):
                data = saved(usual.rotate(len(beside)), "JPEG")
                beside.append(upload(url, third, data))
        told = {name: g.result() for name, g in given.items()}
    print(
        json.dumps(
            {
                "machine": machine(),
                "idle_rss_mib": idle.rss // MIB,
                "peak_rss_mib": seen.rss // MIB,
                "peak_pss_mib": seen.pss // MIB,
                "hostile": {n: {"bytes": len(files[n]), "answer": t} for n, t in told.items()},
                "usual": {"count": len(beside), "slowest_s": max(t for _, t, _ in beside)},
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    app()
