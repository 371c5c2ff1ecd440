"""A process of the service on one machine: the front end or a worker."""

from __future__ import annotations

import http.client
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from customedit.devserver import child_process


@dataclass
class Part:
    """A process of the service, how to start it and where it tells its health."""

    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    health: tuple[str, int, str]  # host, port, path
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    ended: int = 0  # times in a row, soon after its start
    again: float | None = None  # when it is started again

    def start(self) -> None:
        """Start it, its words appended to its log."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                self.command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us alone, who end the rest in order
                preexec_fn=child_process.follow_parent,  # and a kill of us leaves nothing running
            )
        self.started, self.again = time.monotonic(), None

    def alive(self) -> bool:
        """Whether it runs."""
        return self.process is not None and self.process.poll() is None

    def ready(self) -> bool:
        """Whether it says that it is ready."""
        host, port, path = self.health
        connection = http.client.HTTPConnection(host, port, timeout=2)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def said(self) -> str:
        """The last lines of its log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-8:])
