"""Pictures of strangers, decoded in processes that can be killed."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from PIL import Image

from customedit import images
from customedit.errors import InputError
from customedit.images import decoder_pool, masks
from customedit.images.decoder_pool import DecoderPool
from customedit.images.masks import read_mask
from customedit.images.turns import Busy

from .conftest import FORMATS, noise, picture, png, saved

MIB = 2**20


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def within_two_minutes() -> None:
        await asyncio.wait_for(test(), 120)

    asyncio.run(within_two_minutes())


@asynccontextmanager
async def pool(
    decoders: int = 2, memory: int = 128 * MIB, seconds: float = 60
) -> AsyncIterator[DecoderPool]:
    made = DecoderPool(decoders=decoders, memory=memory, seconds=seconds)
    try:
        yield made
    finally:
        await made.close()


def processes(made: DecoderPool) -> list[int]:
    return [decoder._process.pid for decoder in made._idle]


def test_it_finds_what_is_found_here() -> None:
    async def test() -> None:
        async with pool() as made:
            for name in FORMATS:
                data = saved(noise((70, 50)), name)
                assert await made.check(data, "anna") == images.check(images.scan(data))
            cut = saved(noise((70, 50)), "JPEG")[:-2]
            assert (await made.check(cut, "anna")).warnings == ("ends without its end mark",)
            assert len(processes(made)) == 1, "one after the other take one process"

    run(test)


def test_refusals_are_those_of_the_library_and_end_no_process() -> None:
    async def test() -> None:
        async with pool() as made:
            limits = images.Limits(max_pixels=1000)
            files = [b"", b"text", saved(picture())[:60], saved(picture((50, 50)))]
            for data in files:
                with pytest.raises(InputError) as there:
                    await made.check(data, "anna", field="photo", limits=limits)
                with pytest.raises(InputError) as here:
                    images.check(images.scan(data, field="photo", limits=limits), field="photo")
                assert str(there.value) == str(here.value)
            assert len(processes(made)) == 1
            assert (await made.check(saved(picture()), "anna")).size == (40, 24)

    run(test)


def test_a_decoder_over_its_deadline_is_killed_and_replaced() -> None:
    async def test() -> None:
        async with pool() as made:
            await made.check(saved(picture()), "anna")
            (before,) = processes(made)
            os.kill(before, signal.SIGSTOP)  # it hangs
            made.seconds = 0.2
            with pytest.raises(InputError, match=r"file: takes more than 0.2 s to decode, the li"):
                await made.check(saved(picture()), "anna")
            made.seconds = 60
            assert processes(made) == []
            with pytest.raises(ProcessLookupError):
                for _ in range(200):
                    os.kill(before, 0)
                    await asyncio.sleep(0.05)
            assert (await made.check(saved(picture()), "anna")).size == (40, 24)

    run(test)


def test_a_decoder_that_died_harms_no_other_file() -> None:
    async def test() -> None:
        async with pool() as made:
            await made.check(saved(picture()), "anna")
            (before,) = processes(made)
            os.kill(before, signal.SIGKILL)
            await made._idle[0].wait()
            assert (await made.check(saved(picture()), "anna")).size == (40, 24)
            assert processes(made) != [before]

    run(test)


def test_a_caller_that_goes_takes_its_decoder_along() -> None:
    async def test() -> None:
        async with pool(decoders=1) as made:
            await made.check(saved(picture()), "anna")
            (before,) = processes(made)
            os.kill(before, signal.SIGSTOP)
            going = asyncio.create_task(made.check(saved(picture()), "anna"))
            await asyncio.sleep(0.1)
            going.cancel()
            with pytest.raises(asyncio.CancelledError):
                await going
            assert (await made.check(saved(picture()), "anna")).size == (40, 24)

    run(test)


def large(width: int, height: int) -> bytes:
    """A small file of many pixels, 16 bits of four channels each."""
    return png((width, height), (b"\0" + b"\x12\x34" * 4 * width) * height, depth=16, kind=6)


def test_what_takes_too_much_memory_is_refused_with_the_limit() -> None:
    async def test() -> None:
        async with pool(memory=64 * MIB) as made:
            webp = saved(Image.new("RGB", (2300, 2300)), "WEBP", method=0)
            with pytest.raises(InputError, match="takes 81 MiB to decode, the limit is 64 MiB"):
                await made.check(webp, "anna")
            assert (await made.check(saved(picture()), "anna")).size == (40, 24)
            assert len(processes(made)) == 1

    run(test)


def test_the_system_stops_a_decoder_that_was_misjudged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_pool, "_SLACK_BYTES", 0)

    async def test() -> None:
        decoder = await decoder_pool._Decoder.start(16 * MIB)
        data = large(3000, 3000)  # 34 MiB
        request = {"field": "file", "limits": {}, "bytes": len(data), "mask": False}
        await decoder.ask(json.dumps(request).encode() + b"\n", data, field="file", seconds=60)
        with pytest.raises(InputError, match="file: needs more memory to decode than is allowed"):
            await decoder.ask(b"go\n", field="file", seconds=60)
        assert decoder.alive
        decoder.kill()
        await decoder.wait()

    run(test)


def test_masks_are_read_by_the_one_rule() -> None:
    half, empty = Image.new("L", (70, 50)), Image.new("L", (70, 50))
    half.paste(255, (0, 0, 35, 50))

    async def test() -> None:
        async with pool() as made, made.turn("anna") as turn:
            assert await turn.check_mask(saved(half))
            for data in (saved(empty), saved(noise((70, 50))), saved(half)[:60]):
                with pytest.raises(InputError) as there:
                    await turn.check_mask(data)
                with pytest.raises(InputError) as here:
                    read_mask(data)
                assert str(there.value) == str(here.value)
            assert await turn.check_mask(saved(half))
            assert len(processes(made)) == 1, "a refusal costs no process"

    run(test)


def test_a_mask_that_takes_too_much_memory_is_not_read() -> None:
    async def test() -> None:
        async with pool(memory=32 * MIB) as made, made.turn("anna") as turn:
            assert not await turn.check_mask(saved(Image.new("RGBA", (1200, 1200))))  # 41 MiB
            with pytest.raises(InputError, match="mask: is black everywhere"):
                await turn.check_mask(saved(Image.new("L", (1200, 1200))))  # 18 MiB
            assert len(processes(made)) == 1

    run(test)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("format", ["PNG", "WEBP", "JPEG"])
def test_the_memory_of_masks_is_not_misjudged(
    mode: str, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if format != "PNG" and mode not in ("L", "RGB", "RGBA")[: 2 if format == "JPEG" else 3]:
        return
    monkeypatch.setattr(decoder_pool, "_SLACK_BYTES", 24 * MIB)
    picture = Image.new("L", (2000, 1600))
    picture.paste(Image.linear_gradient("L").resize((1000, 1600)), (0, 0))
    if mode == "I;16":
        picture = picture.convert("I").point(lambda level: level * 257).convert("I;16")
    elif mode == "P":
        picture = picture.convert("RGB").quantize(200)
    else:
        picture = picture.convert(mode)
    if mode in ("LA", "RGBA"):
        picture.putalpha(Image.linear_gradient("L").resize((2000, 1600)))
    stream = io.BytesIO()
    picture.save(stream, format)
    data = stream.getvalue()

    async def test() -> None:
        needed = masks.memory(images.scan(data)) + len(data)
        async with pool(memory=needed) as made, made.turn("anna") as turn:
            assert await turn.check_mask(data)

    run(test)


def test_large_pictures_share_the_memory_and_small_ones_pass() -> None:
    async def test() -> None:
        async with pool(decoders=4, memory=50 * MIB) as made:
            data = large(3000, 3000)  # 34 MiB each
            held = 0

            async def watch() -> None:
                nonlocal held
                while True:
                    held = max(held, made._memory.used)
                    await asyncio.sleep(0.005)

            watching = asyncio.create_task(watch())
            found = await asyncio.gather(
                *(made.check(data, "anna") for _ in range(3)),
                *(made.check(saved(picture()), "bert") for _ in range(3)),
            )
            watching.cancel()
            assert [one.size for one in found] == [(3000, 3000)] * 3 + [(40, 24)] * 3
            assert 34 * MIB <= held <= 50 * MIB

    run(test)


def test_a_tenant_with_too_many_files_is_told_and_others_are_served() -> None:
    async def test() -> None:
        async with pool(decoders=2) as made:
            await asyncio.gather(*(made.check(saved(picture()), t) for t in ("anna", "bert")))
            os.kill(processes(made)[-1], signal.SIGSTOP)  # the one that is taken next
            calls = [
                asyncio.create_task(made.check(saved(picture()), "anna"))
                for _ in range(decoder_pool.MOST_WAITING + 2)
            ]
            done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            (refused,) = done
            with pytest.raises(Busy):
                refused.result()
            assert (await made.check(saved(picture()), "bert")).size == (40, 24)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)

    run(test)


def test_decoders_know_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUSTOMEDIT_S3_SECRET_KEY", "very secret")

    async def test() -> None:
        async with pool() as made:
            await made.check(saved(picture()), "anna")
            (pid,) = processes(made)
            seen = Path(f"/proc/{pid}/environ").read_bytes()
            assert b"secret" not in seen and b"CUSTOMEDIT" not in seen

    run(test)


def test_processors_are_those_of_the_control_group(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert decoder_pool._quotas(tmp_path) == [(150000.0, 100000.0)]
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert decoder_pool._quotas(tmp_path) == []
    (tmp_path / "cpu.max").unlink()
    (tmp_path / "cpu").mkdir()
    for name, value in (("quota", "-1"), ("period", "100000")):
        (tmp_path / "cpu" / f"cpu.cfs_{name}_us").write_text(value)
    assert decoder_pool._quotas(tmp_path) == [(-1.0, 100000.0)]
    assert 0 < decoder_pool.available_processors() <= (os.cpu_count() or 1)
    assert 2 <= decoder_pool.default_decoders() <= 3
