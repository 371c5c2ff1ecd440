"""Through how many of our modules one edit and one customization run.

    python benchmarks/modules.py --training-steps 3 --steps 3

The front end and a worker run in this process, on servers of their own; a profiler follows the
threads that a job passes through (the front end's, the one that performs the job, the engine's),
not those of the background (heartbeat, poll, watchdog, reconciler). Counted are modules of ours in
which a function was called, and hops: pairs of a module and another that it called.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Final

import typer

OURS: Final = ("api", "worker", "customedit")
BACKGROUND: Final = (
    "heartbeat",
    "poll",
    "watchdog",
    "reconciler",
    "health",
    "webhook",
    "metrics",
    "drain",
)
"""Beginnings of the names of threads that no job passes through."""


class Trace:
    """Modules and hops seen while ``on``."""

    def __init__(self) -> None:
        self.on = False
        self.modules: set[str] = set()
        self.hops: set[tuple[str, str]] = set()
        threading.setprofile(self.see)
        sys.setprofile(self.see)

    def see(self, frame: FrameType, event: str, _: Any) -> None:
        """The profile function of every thread that starts from now on."""
        if not self.on or event != "call":
            return
        thread = threading.current_thread()
        if thread is threading.main_thread() or thread.name.lower().startswith(BACKGROUND):
            return  # the client, and what runs beside
        module = own_module(frame)
        if module is None or frame.f_code.co_name == "<module>":
            return
        self.modules.add(module)
        caller = frame.f_back
        while caller is not None and own_module(caller) is None:
            caller = caller.f_back
        if caller is not None and (before := own_module(caller)) not in (None, module):
            self.hops.add((str(before), module))

    @contextlib.contextmanager
    def during(self) -> Iterator[None]:
        """Count what runs inside."""
        self.modules, self.hops, self.on = set(), set(), True
        yield
        self.on = False

    def report(self) -> dict[str, Any]:
        """What was counted."""
        rooms: dict[str, int] = {}
        for module in self.modules:
            parts = module.split(".")
            room = ".".join(parts[:2]) if parts[0] == "customedit" else parts[0]
            rooms[room] = rooms.get(room, 0) + 1
        return {
            "modules": len(self.modules),
            "hops": len(self.hops),
            "rooms": dict(sorted(rooms.items())),
            "names": sorted(self.modules),
        }


def own_module(frame: FrameType) -> str | None:
    """The module of ``frame``, if it is ours and no benchmark."""
    name = str(frame.f_globals.get("__name__", ""))
    return name if name.split(".")[0] in OURS else None


@contextlib.contextmanager
def service(folder: Path) -> Iterator[tuple[str, Any, str]]:
    """A front end and a worker in this process: URL, what performs a job, an API key."""
    from api.app import create_app
    from api.main import server
    from customedit.config.settings import Settings
    from customedit.devserver.local_servers import LocalServers
    from customedit.jobs.redis import connect
    from customedit.jobs.store import Jobs
    from customedit.storage.store import Storage
    from customedit.tenants.access import ApiKeys
    from worker import executor
    from worker.runtime import Runtime

    with LocalServers(folder / "servers", usual_ports=False) as servers:
        os.environ |= servers.environment() | {"CUSTOMEDIT_SCRATCH_DIR": str(folder / "scratch")}
        settings = Settings.of_environment()
        redis, storage = connect(settings), Storage(settings)
        storage.bucket()
        runtime = Runtime.load(settings, redis, Jobs(redis, settings), storage)
        kind: Any = executor.Executor
        taking = kind(runtime, "bench", lambda *_: None)
        listener = socket.create_server(("127.0.0.1", 0))
        serving = server(settings, create_app(settings))
        thread = threading.Thread(target=serving.run, kwargs={"sockets": [listener]}, name="front")
        thread.start()
        keys = ApiKeys(redis, settings)
        try:
            made: Any = keys.create("bench")
            secret = made[1] if isinstance(made, tuple) else made.secret
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", taking, secret
        finally:
            serving.should_exit = True
            thread.join(30)
            taking.close()
            runtime.close()


def perform(trace: Trace, call: Callable[[], Any], client: Any, taking: Any, kind: str) -> Any:
    """What is seen while ``call`` submits a job and a thread of its own performs it."""
    with trace.during():
        job = call()
        thread = threading.Thread(target=taking.wake, name="job")
        thread.start()
        thread.join()
    done = client.job(job.id, wait=30)
    if done.state != "succeeded":
        raise SystemExit(f"the {kind} came to {done.state}: {done.error}")
    return trace.report()


def main(
    steps: Annotated[int, typer.Option(min=1, help="DDIM steps of the edit.")] = 3,
    training_steps: Annotated[int, typer.Option(min=1, help="Of the customization.")] = 3,
    names: Annotated[bool, typer.Option("--names", help="Name the modules, too.")] = False,
) -> None:
    """Count modules and hops and print them as JSON."""
    trace = Trace()
    from customedit.client import CustomEdit
    from customedit.mini import samples
    from customedit.schemas.concepts import TrainingOptions
    from customedit.schemas.requests import ConceptUse

    look, source = samples.looks()[0], samples.sources()[3]
    with (
        tempfile.TemporaryDirectory() as folder,
        service(Path(folder)) as (url, taking, key),
        CustomEdit(url, key) as client,
    ):
        references = [client.upload(path).id for path in look.images[:3]]
        picture = client.upload(source.image).id
        training = TrainingOptions(steps=training_steps, class_images=1, class_steps=1, crops=2)

        def customize() -> Any:
            return client.customize(
                references=references, noun=look.noun, attribute=look.attribute,
                token=look.token, training=training,
            )  # fmt: skip

        report = {"customize": perform(trace, customize, client, taking, "customize")}
        concept = client.concepts().items[0].id

        def edit() -> Any:
            return client.edit(
                image=picture, source_prompt=source.prompt,
                target_prompt=source.target_prompt(look), concepts=[ConceptUse(id=concept)],
                steps=steps,
            )  # fmt: skip

        report["edit"] = perform(trace, edit, client, taking, "edit")
    if not names:
        for part in report.values():
            del part["names"]
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    typer.run(main)
