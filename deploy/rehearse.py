"""Rehearses both images where there is no engine for images: `make rehearse`, as root on Linux.

Each Dockerfile is followed on a copy-on-write view of this machine's own files, whose Python stands
in for the base image: COPY takes what the ignore file lets through, every RUN is run as it stands,
so packages come from the index. Then, with no network but loopback, the front end and a worker run
as the images' user, without capabilities, on a read-only root: setup.sh makes bucket and key, both
must become healthy, do an edit, find it again after Redis lost everything, and end by SIGTERM.
Nothing outlives the run. What it cannot tell: whether the base images hold what they say, and
anything about GPUs.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from urllib.request import urlopen

from customedit import mini
from customedit.client import CustomEdit
from customedit.devserver.local_servers import LocalServers
from customedit.schemas.answers import EditResult, Job

ROOT = Path(__file__).resolve().parents[1]
NEW_MOUNTS, NEW_NETWORK = 0x00020000, 0x40000000  # CLONE_NEWNS, CLONE_NEWNET
PYTHON = Path(sys._base_executable).resolve()  # type: ignore[attr-defined]
HEALTHY_S = 180
# Fails unless it is run by the images' user, who may write nowhere but in /tmp and has no power.
LOCKED = """
test "$(id -u):$(id -g)" = 10001:10001
for path in /probe /etc/probe /opt/customedit/probe; do
    if touch "$path" 2>/dev/null; then exit 1; fi
done
touch /tmp/probe && rm /tmp/probe
grep -q '^CapBnd:[[:space:]]*0*$' /proc/self/status
grep -q '^NoNewPrivs:[[:space:]]*1$' /proc/self/status
"""


@dataclass
class Image:
    """What a Dockerfile has come to. root: its files, as this process sees them."""

    name: str
    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = "0:0"
    health: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)

    def inside(self, command: list[str], **variables: str) -> tuple[list[str], dict[str, str]]:
        """The arguments and the environment that run ``command`` as the image's user."""
        user, _, group = self.user.partition(":")
        drop = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"]
        drop += ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
        there = ["sh", "-c", 'cd "$0" && exec "$@"', self.folder, *command]
        environment = {**self.environment, "HOME": "/home/customedit", **variables}
        return ["chroot", str(self.root), *drop, *there], environment

    def check(self, command: list[str], **variables: str) -> None:
        """Run ``command`` as the image's user; it must succeed."""
        arguments, environment = self.inside(command, **variables)
        subprocess.run(arguments, env=environment, check=True)


# The images


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Its instructions in order, each with the rest of its line."""
    text = re.sub(r"^#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE)
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def build(name: str, folder: Path) -> Image:
    """Follow a Dockerfile. folder: on a file system of its own."""
    image = Image(name, layered(folder / name))
    dockerfile = ROOT / "deploy" / f"{name}.Dockerfile"
    for word, rest in instructions(dockerfile):
        said = rest if word == "RUN" else ""
        print(f"{name}: {word} {said}".rstrip(), flush=True)
        STEPS.get(word, nothing)(image, rest)
    shutil.copy(ROOT / "deploy" / "compose" / "setup.sh", image.root)  # mounted by Compose, as are
    volume(image, "/keys")
    mount("-o", "remount,ro", image.root)
    return image


def layered(folder: Path) -> Path:
    """A view of this machine's files; what is changed in it stays in ``folder``."""
    upper, work, root = (folder / n for n in ("upper", "work", "root"))
    for each in (upper, work, root):
        each.mkdir(parents=True)
    mount("-t", "overlay", "-o", f"lowerdir=/,upperdir={upper},workdir={work}", "overlay", root)
    for name in ("proc", "sys", "dev"):
        mount("--rbind", f"/{name}", root / name)
    mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", root / "tmp")
    names = Path("/etc/resolv.conf").read_bytes()
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    (root / "etc/resolv.conf").write_bytes(names)
    for parent in PYTHON.parents:  # others than root may run the Python, as they may in the image
        below = root / parent.relative_to("/")
        below.chmod(below.stat().st_mode | 0o005)
    cache = Path.home() / ".cache/pip"
    cache.mkdir(parents=True, exist_ok=True)
    mount("--bind", cache, root / cache.relative_to("/"))
    return root


def nothing(image: Image, rest: str) -> None:
    """An instruction that says nothing about files or processes."""


def begin(image: Image, rest: str) -> None:
    """FROM: the base's environment. What the stage before left is gone, but for its result."""
    for left in ("src", "wheels", "opt/build"):
        shutil.rmtree(image.root / left, ignore_errors=True)
    image.environment = {"PATH": f"{PYTHON.parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}
    image.folder = "/"


def argument(image: Image, rest: str) -> None:
    """ARG: from this process' environment, or as it stands."""
    name, _, value = rest.partition("=")
    image.arguments[name] = os.environ.get(name, value)


def environment(image: Image, rest: str) -> None:
    """ENV."""
    for pair in shlex.split(rest):
        name, _, value = pair.partition("=")
        image.environment[name] = value.replace("$PATH", image.environment["PATH"])


def work_in(image: Image, rest: str) -> None:
    """WORKDIR."""
    image.folder = rest
    (image.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)


def run(image: Image, rest: str) -> None:
    """RUN: as root, with the network; pip's own variables are this machine's."""
    command = re.sub(r"--mount=\S+", "", rest).strip()
    pip = {n: v for n, v in os.environ.items() if n.startswith("PIP_")}
    variables = {"HOME": str(Path.home()), **pip, **image.arguments, **image.environment}
    there = f"cd {image.folder} && {command}"
    subprocess.run(["chroot", image.root, "sh", "-ec", there], env=variables, check=True)


def copy(image: Image, rest: str) -> None:
    """COPY: from this repository; another stage's result is there already."""
    if rest.startswith("--from="):
        return
    *sources, target = rest.split()
    into = image.root / image.folder.lstrip("/") / target
    for source in sources:
        found = ROOT / source
        files = [found] if found.is_file() else sorted(p for p in found.rglob("*") if p.is_file())
        for path in files:
            name = path.relative_to(ROOT)
            if let_through(image.name, name):
                to = into / path.name if found.is_file() else into / path.relative_to(found)
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, to)


def let_through(image: str, path: Path) -> bool:
    """Whether the ignore file of ``image`` leaves ``path``, relative to the repository, in."""
    own = ROOT / "deploy" / f"{image}.Dockerfile.dockerignore"
    rules = (own if own.exists() else ROOT / ".dockerignore").read_text().splitlines()
    keep = True
    for rule in rules:
        if rule and not rule.startswith("#") and matches(rule.removeprefix("!"), path):
            keep = rule.startswith("!")
    return keep


def matches(pattern: str, path: Path) -> bool:
    """Whether ``pattern`` is of ``path`` or of a folder that it is in."""
    if pattern.startswith("**/"):
        return any(fnmatch(part, pattern[3:]) for part in path.parts)
    wanted = pattern.split("/")
    parts = zip(path.parts, wanted, strict=False)
    return len(wanted) <= len(path.parts) and all(fnmatch(p, w) for p, w in parts)


def volume(image: Image, rest: str) -> None:
    """VOLUME: may be written, and belongs to whom the image's folder belongs to, else to root."""
    for name in rest.split():
        at = image.root / name.lstrip("/")
        at.mkdir(mode=0o755, exist_ok=True)
        owner = at.stat()
        mount("-t", "tmpfs", "-o", f"mode=755,uid={owner.st_uid},gid={owner.st_gid}", "tmpfs", at)


def user(image: Image, rest: str) -> None:
    """USER."""
    image.user = rest


def command(image: Image, rest: str) -> None:
    """CMD."""
    image.command = json.loads(rest)


def health(image: Image, rest: str) -> None:
    """HEALTHCHECK."""
    image.health = json.loads(rest.partition("CMD ")[2])


STEPS = {
    "ARG": argument,
    "CMD": command,
    "COPY": copy,
    "ENV": environment,
    "FROM": begin,
    "HEALTHCHECK": health,
    "RUN": run,
    "USER": user,
    "VOLUME": volume,
    "WORKDIR": work_in,
}


# The run


def play(api: Image, worker: Image, folder: Path) -> None:
    """Start all parts, have a picture edited, and stop."""
    for image in (api, worker):
        image.check(["sh", "-ec", LOCKED])
    with LocalServers(folder / "servers") as servers:
        settings = {**servers.environment(), "CUSTOMEDIT_S3_BUCKET": "rehearsal"}
        api.check(["sh", "/setup.sh"], **settings)
        arguments, environment = api.inside(["cat", "/keys/default"])
        key = subprocess.check_output(arguments, env=environment, text=True).strip()
        with running(api, settings), running(worker, settings):
            service = CustomEdit("http://127.0.0.1:8000", key)
            job = edit(service)
            lose_redis(servers)
            api.check(["customedit", "recover"], **settings)
            assert service.job(job.id).state == "succeeded"
            print("recovered from S3 alone", flush=True)
            edit(service)
            with urlopen("http://127.0.0.1:8000/metrics") as answer:
                assert b"customedit_notifications_failed_total 0.0" in answer.read()
            with urlopen("http://127.0.0.1:8000/") as answer:
                assert answer.headers["Content-Type"].startswith("text/html")


def edit(service: CustomEdit) -> Job:
    """Upload a picture and have it drawn anew."""
    cup = service.upload(mini.path().parent / "samples/sources/03-cup.png")
    job = service.edit(image=cup.id, target_prompt="a blue cup", method="sdedit", steps=5)
    done = service.wait(job)
    assert done.state == "succeeded" and isinstance(done.result, EditResult)
    print(f"edit: {done.state}, {len(done.result.outputs)} picture", flush=True)
    return done


def lose_redis(servers: LocalServers) -> None:
    """Kill it, remove its data, and start an empty one."""
    os.kill(servers.pid("valkey"), signal.SIGKILL)
    while servers.alive()["valkey"]:
        time.sleep(0.1)
    shutil.rmtree(servers.folder / "valkey")
    (servers.folder / "valkey").mkdir()
    servers.restart("valkey")


@contextmanager
def running(image: Image, settings: dict[str, str]) -> Iterator[None]:
    """The image's own command, from healthy to gone."""
    arguments, environment = image.inside(image.command, **settings)
    process = subprocess.Popen(arguments, env=environment)
    try:
        began = time.monotonic()
        while not healthy(image):
            assert process.poll() is None, f"{image.name} ended with {process.returncode}"
            assert time.monotonic() - began < HEALTHY_S, f"{image.name} is not healthy"
            time.sleep(0.5)
        print(f"{image.name}: healthy after {time.monotonic() - began:.0f} s", flush=True)
        yield
        process.terminate()
        assert process.wait(100) == 0, f"{image.name} ended with {process.returncode}"
        print(f"{image.name}: gone by SIGTERM", flush=True)
    finally:
        process.kill()
        process.wait()


def healthy(image: Image) -> bool:
    """Whether the image's own check of its health succeeds."""
    arguments, environment = image.inside(image.health)
    done = subprocess.run(arguments, env=environment, stderr=subprocess.DEVNULL)
    return done.returncode == 0


# Linux


def unshare(what: int) -> None:
    """Give this process mounts or a network of its own."""
    if ctypes.CDLL(None, use_errno=True).unshare(what):
        raise OSError(ctypes.get_errno(), "unshare: this takes root on Linux")


def mount(*arguments: object) -> None:
    """The command ``mount``."""
    subprocess.run(["mount", *map(str, arguments)], check=True)


def loopback() -> None:
    """Bring up the one interface that a new network has."""
    up = struct.pack("16sh22x", b"lo", 0x1)
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, 0x8914, up)  # SIOCSIFFLAGS


def main() -> int:
    """Build, then run; the exit status."""
    unshare(NEW_MOUNTS)
    mount("--make-rprivate", "/")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", folder)
        try:
            api, worker = build("api", folder), build("worker", folder)
            unshare(NEW_NETWORK)
            loopback()
            play(api, worker, folder)
        finally:
            subprocess.run(["umount", "--recursive", "--lazy", folder], check=True)
    print("both images do their work")
    return 0


if __name__ == "__main__":
    sys.exit(main())
