"""Pictures of strangers are decoded in processes that can be killed, a few at a time.

A decoder that hangs is killed at a deadline; one that takes too much memory is stopped by the
system; neither harms the process that asked. Tenants take turns, so that one with many hostile
files does not keep the others from uploading.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import math
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import customedit
from customedit.errors import InputError
from customedit.images.masks import Marks
from customedit.images.reading import Checked
from customedit.images.structure import Limits
from customedit.images.turns import Budget, Turns

MIB: Final = 2**20
SMALL_BYTES: Final = 16 * MIB
"""Pictures that take no more wait for no memory: beside a large one, a usual one is checked."""
MOST_WAITING: Final = 16
"""Files of one tenant that may wait for a decoder."""
_SLACK_BYTES: Final = 96 * MIB
_SLICE: Final = 256 * 2**10


class DecoderPool:
    """Processes that check pictures. For one event loop; they start when they are needed.

    decoders: processes at most; with two or more a tenant has all but one. memory: bytes that all
    decoding takes together, but for files of ``SMALL_BYTES``; one that takes more by itself is
    refused. seconds: after which a decoder is killed.
    """

    def __init__(self, *, decoders: int, memory: int, seconds: float) -> None:
        self.decoders, self.memory, self.seconds = decoders, memory, seconds
        self._turns = Turns(decoders, max(1, decoders - 1), MOST_WAITING)
        self._memory = Budget(memory)
        self._idle: list[_Decoder] = []
        self._killed: list[_Decoder] = []

    @asynccontextmanager
    async def turn(self, tenant: str) -> AsyncIterator[Turn]:
        """Wait for a decoder and have it for the block; read the file only inside.

        Raises:
            Busy: as many files of the tenant wait already as may.
        """
        async with self._turns.take(tenant):
            yield Turn(self)

    async def check(
        self, data: bytes, tenant: str, *, field: str = "file", limits: Limits | None = None
    ) -> Checked:
        """A turn for one file. Raises as ``turn`` and ``Turn.check``."""
        async with self.turn(tenant) as turn:
            return await turn.check(data, field=field, limits=limits)

    async def close(self) -> None:
        """End all processes; the pool must not be used afterwards."""
        idle, self._idle = self._idle, []
        for decoder in idle:
            decoder.kill()
        for decoder in (*idle, *self._killed):
            await decoder.wait()

    async def _decoder(self) -> _Decoder:
        """A process that is not at work."""
        self._killed = [decoder for decoder in self._killed if not decoder.ended]
        while self._idle:
            if (decoder := self._idle.pop()).alive:
                return decoder
        return await _Decoder.start(self.memory)


class Turn:
    """The right to have one file decoded at a time."""

    def __init__(self, pool: DecoderPool) -> None:
        self._pool = pool

    async def check(
        self, data: bytes, *, field: str = "file", limits: Limits | None = None
    ) -> Checked:
        """What ``reading.check`` gives for ``data``, decoded in another process.

        Raises:
            InputError: as ``reading.check``, and for a file that takes too long or too much memory.
        """
        async with self._one() as decoder:
            request = self._request(data, field, limits, mask=None)
            memory = await self._memory_for(decoder, request, data, field)
            if memory > self._pool.memory:
                await decoder.send(b"no\n")
                raise InputError(
                    field,
                    f"takes {math.ceil(memory / MIB)} MiB to decode, the limit is "
                    f"{self._pool.memory // MIB} MiB",
                    "scale it down, or save it as PNG or as JPEG that is not progressive",
                )
            checked = await self._go(decoder, memory, field)
        return Checked(checked["media_type"], tuple(checked["size"]), tuple(checked["warnings"]))

    async def check_mask(
        self,
        data: bytes,
        *,
        field: str = "mask",
        limits: Limits | None = None,
        marks: Marks = "white",
    ) -> bool:
        """Read ``data`` in another process as ``masks.read_mask`` does without a size.

        False: it takes more memory than may be used here, and was not read.

        Raises:
            InputError: as ``masks.read_mask``, and for a file that takes too long.
        """
        async with self._one() as decoder:
            request = self._request(data, field, limits, mask=marks)
            memory = await self._memory_for(decoder, request, data, field)
            if memory > self._pool.memory:
                await decoder.send(b"no\n")
                return False
            await self._go(decoder, memory, field)
            return True

    @asynccontextmanager
    async def _one(self) -> AsyncIterator[_Decoder]:
        """A process for one request; it is used again unless something went wrong in between."""
        decoder = await self._pool._decoder()
        try:
            yield decoder
        except InputError:
            raise
        except BaseException:  # cancelled: what the process is at is not known
            decoder.kill()
            raise
        finally:
            (self._pool._idle if decoder.alive else self._pool._killed).append(decoder)

    def _request(
        self, data: bytes, field: str, limits: Limits | None, *, mask: Marks | None
    ) -> bytes:
        facts = {"field": field, "limits": dataclasses.asdict(limits or Limits()), "mask": mask}
        return json.dumps({**facts, "bytes": len(data)}).encode() + b"\n"

    async def _memory_for(self, decoder: _Decoder, request: bytes, data: bytes, field: str) -> int:
        """The bytes that the file takes to decode."""
        answer = await decoder.ask(request, data, field=field, seconds=self._pool.seconds)
        return int(answer["memory"])

    async def _go(self, decoder: _Decoder, memory: int, field: str) -> Any:
        """What the process says of the file, once there is memory for it."""
        budget = self._pool._memory
        held = budget.hold(memory) if memory > SMALL_BYTES else contextlib.nullcontext()
        async with held:
            answer = await decoder.ask(b"go\n", field=field, seconds=self._pool.seconds)
        return answer["checked"]


class _Decoder:
    """One process of ``decoder_process``."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._process, self._input, self._output = process, process.stdin, process.stdout
        self._killed = False

    @classmethod
    async def start(cls, memory: int) -> _Decoder:
        """A fresh process that may take ``memory`` bytes for a picture, and little else.

        It gets none of this process's environment but where Python and its packages are: what a
        picture might do to it, it knows no secret.
        """
        root = str(Path(customedit.__file__).resolve().parents[1])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {k: os.environ[k] for k in ("PATH", "LD_LIBRARY_PATH") if k in os.environ}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "customedit.images.decoder_process",
            str(memory + _SLACK_BYTES),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True,
            env=environment | {"PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"},
        )  # fmt: skip
        return cls(process)

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return not self._killed and not self.ended

    @property
    def ended(self) -> bool:
        """Whether the process has ended and was waited for."""
        return self._process.returncode is not None

    async def send(self, *parts: bytes) -> None:
        """Write ``parts``, in slices, so that no second copy of a file waits to be written."""
        for part in parts:
            view = memoryview(part)
            for at in range(0, len(part), _SLICE):
                self._input.write(view[at : at + _SLICE])
                await self._input.drain()

    async def ask(self, *parts: bytes, field: str, seconds: float) -> dict[str, Any]:
        """Send ``parts`` and give the answer.

        Raises:
            InputError: the decoder refuses the file, had to be killed at the deadline, or died.
        """
        try:
            async with asyncio.timeout(seconds):
                await self.send(*parts)
                line = await self._output.readline()
        except TimeoutError:
            self.kill()
            raise InputError(
                field,
                f"takes more than {seconds:g} s to decode, the limit",
                "scale it down or save it again as PNG or JPEG",
            ) from None
        except ConnectionError:
            line = b""
        if not line:
            self.kill()
            raise InputError(field, "makes the decoder fail", "save it again as PNG or JPEG")
        answer: dict[str, Any] = json.loads(line)
        if refused := answer.get("refused"):
            raise InputError(*refused)
        return answer

    def kill(self) -> None:
        """End the process."""
        self._killed = True
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._input.close()

    async def wait(self) -> None:
        """Wait until the process has ended."""
        await self._process.wait()


def default_decoders() -> int:
    """Decoders for this machine's share of processors: 2 or 3, which fit the manifests' memory."""
    return min(3, max(2, math.ceil(available_processors())))


def available_processors() -> float:
    """Processors that this process may use: its affinity, or less by its control group's quota."""
    try:
        held = float(len(os.sched_getaffinity(0)))
    except AttributeError:  # not on macOS
        held = float(os.cpu_count() or 1)
    for quota, period in _quotas():
        if quota > 0 and period > 0:
            held = min(held, quota / period)
    return held


def _quotas(root: Path = Path("/sys/fs/cgroup")) -> list[tuple[float, float]]:
    """(quota, period) of the control group, version 2 or 1; none where there is no limit."""
    with contextlib.suppress(OSError, ValueError):
        quota, period = (root / "cpu.max").read_text().split()
        return [] if quota == "max" else [(float(quota), float(period))]
    with contextlib.suppress(OSError, ValueError):
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        quota, period = ((root / "cpu" / name).read_text() for name in names)
        return [(float(quota), float(period))]
    return []
