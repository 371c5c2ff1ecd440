"""The whole service on one machine: up, restarted when parts die, found again at a second start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from customedit.cli.serve import local_key
from customedit.client import CustomEdit
from customedit.devserver.local_servers import LocalError
from customedit.devserver.stack import SERVICE, Stack
from customedit.devserver.supervisor import Process, Supervisor
from customedit.errors import InputError
from customedit.mini import samples


def until(holds: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.05)


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the environment, so that the stack brings servers of its own."""
    for name in list(os.environ):
        if name.startswith("CUSTOMEDIT_"):
            monkeypatch.delenv(name)


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def stack(own: None, lines: list[str], tmp_path: Path) -> Iterator[Stack]:
    """Without workers: what they do is tested with theirs."""
    with Stack(tmp_path / "data", port=0, workers=0, say=lines.append) as found:
        yield found


def test_a_second_start_finds_it_all(stack: Stack, lines: list[str]) -> None:
    key = local_key(stack, "local")
    assert key.stat().st_mode & 0o077 == 0
    text = key.read_text().strip()
    with CustomEdit(stack.url, text) as client:
        image = client.upload(samples.sources()[0].image)
    stack.stop()
    with Stack(stack.folder, port=0, workers=0, say=lines.append) as again:
        assert local_key(again, "local").read_text().strip() == text
        with CustomEdit(again.url, text) as client:
            found = client.image(image.id)
            assert client.download(found.url) == samples.sources()[0].image.read_bytes()
    assert not any(text in line for line in lines)


def test_each_process_of_the_front_end_takes_any_request(own: None, tmp_path: Path) -> None:
    with Stack(tmp_path, port=0, workers=0, apis=2, say=lambda line: None) as stack:
        first, second = stack.urls
        assert first == stack.url != second
        assert [p.name for p in stack.supervisor.processes if p.stage == SERVICE] == [
            "api-1", "api-2",
        ]  # fmt: skip
        key = local_key(stack, "local").read_text().strip()
        with CustomEdit(first, key) as one, CustomEdit(second, key) as other:
            image = one.upload(samples.sources()[0].image)
            job = other.edit(image=image.id, source_prompt="a cup", target_prompt="a red cup")
            assert one.job(job.id).state == "queued"


def test_what_dies_is_told_of_and_started_again(stack: Stack, lines: list[str]) -> None:
    watching = threading.Thread(target=stack.run)
    watching.start()
    try:
        key = local_key(stack, "local").read_text().strip()
        api = stack.supervisor.process("api")
        assert stack.local is not None
        before = api.pid
        os.kill(before, signal.SIGKILL)
        until(lambda: api.alive() and api.pid_file.exists() and api.pid != before)
        until(api.healthy)
        os.kill(stack.local.pid("valkey"), signal.SIGKILL)
        until(lambda: "valkey is back" in lines)
        until(api.healthy)
        with CustomEdit(stack.url, key) as client:
            assert client.limits().tenant == "local"
    finally:
        stack.end()
        watching.join()
    assert any(line.startswith("api ended with status 137") for line in lines)
    assert any(line.startswith("valkey ended") for line in lines)


def test_half_a_set_of_servers_is_refused(
    own: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CUSTOMEDIT_REDIS_URL", "redis://127.0.0.1:1/0")
    with pytest.raises(LocalError, match="CUSTOMEDIT_S3_ENDPOINT"):
        Stack(tmp_path, say=lambda line: None).start()


def test_a_part_that_cannot_start_says_why(
    own: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CUSTOMEDIT_API_THREADS", "none")
    stack = Stack(tmp_path, port=0, workers=0, say=lambda line: None)
    with pytest.raises(InputError, match="CUSTOMEDIT_API_THREADS"):
        stack.start()
    assert stack.supervisor.processes == [] and stack.local is None


def test_nothing_outlives_a_serve_that_is_killed(own: None, tmp_path: Path) -> None:
    data = tmp_path / "data"
    command = [sys.executable, "-m", "customedit.cli", "serve", "--data", str(data)]
    with (tmp_path / "said").open("wb") as out:
        serving = subprocess.Popen([*command, "--workers", "0", "--port", "0"], stderr=out)
    until(lambda: b"ready at" in (tmp_path / "said").read_bytes())
    assert mine(data)
    serving.kill()
    serving.wait()
    until(lambda: not mine(data))


def test_a_second_interrupt_ends_all_at_once(own: None, lines: list[str], tmp_path: Path) -> None:
    """What would take an hour, since its worker hears no SIGTERM."""
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True)"
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Stack(tmp_path, port=0, workers=0, say=lines.append) as stack:
        log = tmp_path / "logs" / "worker.log"
        command = [sys.executable, "-c", f"{deaf}; time.sleep(3600)", str(tmp_path)]
        worker = Process("worker", command, log, lambda: True, grace_s=3600, stage=SERVICE)
        stack.supervisor.start(worker)
        until(lambda: log.exists() and "deaf" in log.read_text())

        def impatient() -> None:
            until(lambda: any("Ctrl-C once more: at once" in line for line in lines))
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=impatient).start()
    until(lambda: not mine(tmp_path), 10)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_logs_of_processes_are_rotated_while_they_run(own: None, tmp_path: Path) -> None:
    small = Supervisor(log_bytes=1000)
    with Stack(tmp_path, port=0, workers=0, say=lambda line: None, supervisor=small) as stack:
        log = stack.supervisor.process("api").log
        with log.open("ab") as out:
            out.write(b"x" * 5000)
        until(lambda: log.stat().st_size <= 1000)
        assert log.with_name(f"{log.name}.1").stat().st_size == 1000


def mine(folder: Path) -> list[str]:
    """Processes that were started for ``folder``, by what they were given."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            given = (place / "environ").read_bytes() + (place / "cmdline").read_bytes()
        except OSError:  # it has ended meanwhile
            continue
        if str(folder).encode() in given:
            found.append(place.name)
    return found
