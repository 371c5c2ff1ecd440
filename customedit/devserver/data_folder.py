"""The folder of local servers: who holds it, and what the next start finds of ports and secrets."""

from __future__ import annotations

import fcntl
import json
import secrets
import time
from pathlib import Path
from typing import IO, Final

from customedit.devserver import programs
from customedit.devserver.programs import LOOPBACK
from customedit.devserver.supervisor import LocalError

USUAL: Final = {"valkey": 6379, "s3": 8333}
INNER: Final = (
    "master", "master.grpc", "volume", "volume.grpc", "filer", "filer.grpc", "s3.grpc",
)  # fmt: skip
# A process that was killed just now may hold its lock a little longer.
_OWNER_S: Final = 2.0


class LocalFolder:
    """``local.json`` and two locks in the folder ``path``.

    ports: by server; secrets: passwords and keys, by what they open. Both as of ``read``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ports: dict[str, int] = {}
        self.secrets: dict[str, str] = {}
        self._last: dict[str, int] = {}
        self._locks: list[IO[str]] = []

    @property
    def lock(self) -> int:
        """The file descriptor of the lock that the servers hold as well."""
        return self._locks[1].fileno()

    def hold(self, patience_s: float) -> None:
        """Take the folder, waiting so long for servers whose owner has died.

        ``owner`` is locked by this process alone, ``lock`` by the servers, too.

        Raises:
            LocalError: another process has it.
        """
        owner, lock = ((self.path / name).open("a") for name in ("owner", "lock"))
        self._locks = [owner, lock]
        began = time.monotonic()
        while not (_locked(owner) and _locked(lock)):
            patience = patience_s if _locked(owner) else _OWNER_S
            if time.monotonic() > began + patience:
                self.release()
                raise LocalError(
                    f"{self.path} is in use by another start; stop it or take another folder"
                )
            time.sleep(0.05)

    def release(self) -> None:
        """Let go of the folder."""
        for lock in self._locks:
            lock.close()
        self._locks = []

    def read(self) -> None:
        """Ports and secrets as the last start left them; new secrets at the first."""
        path = self.path / "local.json"
        state = json.loads(path.read_text()) if path.exists() else {}
        self._last = {name: int(port) for name, port in state.get("ports", {}).items()}
        self.ports = dict(self._last)
        self.secrets = state.get("secrets") or {
            "valkey": secrets.token_urlsafe(32),
            "s3_access": secrets.token_hex(10).upper(),
            "s3_secret": secrets.token_urlsafe(32),
            "inner": secrets.token_urlsafe(32),
        }

    def choose_ports(self, usual: bool) -> None:
        """Those of the last start where they are free, so that addresses stay the same.

        usual: the ports that such servers have everywhere come next, before any other.
        """
        self.ports = {}
        for name in ("valkey", "s3", *INNER):
            wanted = [self._last.get(name), USUAL.get(name) if usual else None]
            taken = set(self.ports.values())
            self.ports[name] = next(
                port
                for port in programs.candidates([p for p in wanted if p is not None])
                if port not in taken and programs.free_port(port)
            )

    def write(self) -> None:
        """Keep ports and secrets for the next start."""
        ports = {name: str(port) for name, port in self.ports.items()}
        state = {"secrets": self.secrets, "ports": ports}
        programs.write_private(self.path / "local.json", json.dumps(state, indent=1))

    def environment(self) -> dict[str, str]:
        """The ``CUSTOMEDIT_*`` variables by which settings find the servers; has secrets."""
        keys = self.secrets
        return {
            "CUSTOMEDIT_REDIS_URL": f"redis://:{keys['valkey']}@{LOOPBACK}:{self.ports['valkey']}/0",
            "CUSTOMEDIT_S3_ENDPOINT": f"http://{LOOPBACK}:{self.ports['s3']}",
            "CUSTOMEDIT_S3_ACCESS_KEY": keys["s3_access"],
            "CUSTOMEDIT_S3_SECRET_KEY": keys["s3_secret"],
        }


def _locked(file: IO[str]) -> bool:
    """Lock the file for this process unless another has; says whether it is ours."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
