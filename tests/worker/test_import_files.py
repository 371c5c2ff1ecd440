"""Files that nobody checked: a concept, or an error that names the file; never a fault of ours."""

from __future__ import annotations

import errno
import io
import json
import random
import struct
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save

from customedit.concepts.concept import Concept
from customedit.config.settings import Settings
from customedit.diffusion.base import Base
from customedit.errors import InputError
from customedit.schemas.concepts import ImportRequest
from worker import import_job
from worker.attempt import Stopped


@pytest.fixture(scope="module")
def runtime() -> Any:
    base = Base.load()
    return SimpleNamespace(settings=Settings(), base=base)


def imported(runtime: Any, folder: Path, data: bytes) -> Concept:
    path = folder / "given"
    path.write_bytes(data)
    with import_job.unreadable():
        request = ImportRequest(file="x", bytes=len(data))
        return import_job.read_concept(path, request, runtime)


def torch_file(value: Any) -> bytes:
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


def archive(*files: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as written:
        for name, data in files:
            written.writestr(name, data)
    return out.getvalue()


def own(runtime: Any, folder: Path) -> bytes:
    base = runtime.base
    keys = {n: base.weights[f"{n}.to_k.weight"] for n in base.layers}
    values = {n: base.weights[f"{n}.to_v.weight"] for n in base.layers}
    concept = Concept({"<a>": torch.ones(base.width)}, keys=keys, values=values, noun="cup")
    concept.save(folder / "own.safetensors")
    return (folder / "own.safetensors").read_bytes()


def broken(data: bytes, seed: int, at: range) -> bytes:
    chance, changed = random.Random(seed), bytearray(data)
    for _ in range(chance.randint(1, 20)):
        changed[chance.choice(at)] = chance.randrange(256)
    return bytes(changed)


TENSOR = save({"<a>": torch.ones(4)})
ODD: dict[str, Callable[[], bytes]] = {
    "nested tensor": lambda: torch_file({"<a>": torch.nested.nested_tensor([torch.ones(2)])}),
    "sparse tensor": lambda: torch_file({"<a>": torch.ones(4).to_sparse()}),
    "huge view": lambda: torch_file({"<a>": torch.zeros(1).expand(2**40)}),
    "no tensor": lambda: torch_file({"<a>": "b"}),
    "name too long": lambda: archive(("a" * 300 + ".safetensors", TENSOR)),
    "name of a dot": lambda: archive(("..safetensors", TENSOR)),
    "climbing name": lambda: archive(("../../x.safetensors", TENSOR)),
    "deep header": lambda: struct.pack("<Q", 100_000) + b"{" * 100_000,
    "long header": lambda: struct.pack("<Q", 2**63) + b"{}",
    "deep record": lambda: save(
        {"token.<a>": torch.ones(4)},
        {"format": "customedit.concept", "version": "1", "concept": "[" * 100_000},
    ),
    "number too long": lambda: save(
        {"token.<a>": torch.ones(4)},
        {"format": "customedit.concept", "version": "1", "concept": json.dumps({"noun": 1})
         .replace("1", "9" * 5000)},
    ),
    "encrypted": lambda: flagged(6, 8, 1),
    "unknown method": lambda: flagged(8, 10, 99),
    "nothing": lambda: b"",
    "json": lambda: b'{"a": 1}',
}  # fmt: skip


def flagged(local: int, central: int, value: int) -> bytes:
    """An archive with a field of both headers of its file changed."""
    data = bytearray(archive(("a.safetensors", TENSOR)))
    data[local] = value
    data[data.find(b"PK\x01\x02") + central] = value
    return bytes(data)


@pytest.mark.parametrize("name", ODD)
def test_odd_files_are_refused_by_name(name: str, runtime: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        imported(runtime, tmp_path, ODD[name]())
    assert error.value.field and error.value.problem
    assert not list(tmp_path.parent.glob("*.safetensors"))  # none climbed out


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damaged_archives_are_refused(method: int, runtime: Any, tmp_path: Path) -> None:
    good = archive(("a.safetensors", random.Random(1).randbytes(3000)), method=method)
    for seed in range(40):
        folder = tmp_path / str(seed)
        folder.mkdir()
        with pytest.raises(InputError):
            imported(runtime, folder, broken(good, seed, range(len(good))))


def test_damaged_files_of_ours_are_read_or_refused(runtime: Any, tmp_path: Path) -> None:
    good = own(runtime, tmp_path)
    assert imported(runtime, tmp_path, good).noun == "cup"
    for seed in range(40):
        folder = tmp_path / str(seed)
        folder.mkdir()
        try:
            imported(runtime, folder, broken(good, seed, range(3000)))
        except InputError as error:
            assert error.problem


def test_a_lora_that_does_not_fit_whole_is_taken_where_that_is_allowed(
    runtime: Any, tmp_path: Path
) -> None:
    def lora(name: str, width: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        return {
            f"{name}.lora_down.weight": torch.randn(4, width, 3, 3, generator=generator),
            f"{name}.lora_up.weight": torch.randn(width, 4, 1, 1, generator=generator),
        }

    fits = lora("lora_unet_mid_block_resnets_0_conv1", 192)
    data = save(fits | lora("lora_unet_down_blocks_9_resnets_0_conv1", 8))
    path = tmp_path / "given"
    path.write_bytes(data)
    request = ImportRequest(file="x", bytes=len(data), token="<soft>")
    with pytest.raises(InputError) as error, import_job._named_for_callers(tmp_path):
        import_job.read_concept(path, request, runtime)
    assert error.value.field == "file" and "can use 1 of 2 layers" in error.value.problem
    assert error.value.remedy.endswith("; `allow_unused` takes what fits")
    allowed = request.model_copy(update={"allow_unused": True})
    concept = import_job.read_concept(path, allowed, runtime)
    assert concept.recipe["imported"]["layers_used"] == 1


def test_what_is_not_the_files_fault_stays_what_it_is() -> None:
    for fault in (
        OSError(errno.ENOSPC, "no space"),
        torch.OutOfMemoryError("CUDA out of memory"),
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    ):
        with pytest.raises(type(fault)), import_job.unreadable():
            raise fault


def test_imports_of_a_worker_take_turns_and_can_be_stopped_while_they_wait() -> None:
    """So that many large files at once do not fill its disk and memory."""
    runtime, stop = SimpleNamespace(importing=threading.Lock()), threading.Event()

    def check() -> None:
        if stop.is_set():
            raise Stopped("cancel")

    attempt: Any = SimpleNamespace(runtime=runtime, check=check)
    ended: list[str] = []

    def second() -> None:
        try:
            with import_job.turn(attempt):
                ended.append("read")
        except Stopped:
            ended.append("stopped")

    with import_job.turn(attempt):
        waiting = threading.Thread(target=second)
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive() and ended == []
        stop.set()
        waiting.join(30)
    assert ended == ["stopped"]
    stop.clear()
    second()
    assert ended == ["stopped", "read"]
