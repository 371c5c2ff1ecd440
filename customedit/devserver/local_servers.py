"""A Redis (Valkey) and an S3 (SeaweedFS) of one's own, from wheels, for one machine.

Both listen on loopback alone and keep everything in one folder: ``valkey/`` and ``seaweedfs/``
hold the data, ``logs/`` what they print, ``local.json`` ports and passwords (read by the owner
alone). They end when the process that started them ends, however it ends; a later start finds the
data.

The password of Valkey, the keys of S3 and a signing key for SeaweedFS's inner HTTP ports keep other
users of the machine out. Its inner gRPC ports know no password: on a machine shared with people one
does not trust, use servers of one's own by ``CUSTOMEDIT_REDIS_URL`` and ``CUSTOMEDIT_S3_ENDPOINT``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from customedit.devserver import programs
from customedit.devserver.data_folder import LocalFolder
from customedit.devserver.programs import LOOPBACK
from customedit.devserver.supervisor import (
    LOG_BYTES,
    EarlyEnd,
    Ended,
    LocalError,
    Process,
    Supervisor,
)

__all__ = ["LOOPBACK", "LocalError", "LocalServers"]

# Seconds from SIGTERM to SIGKILL. SeaweedFS always waits 15 s for its filer's own subscriptions and
# does nothing meanwhile; what it has acknowledged is with the system already, and survives.
GRACE_S: Final = {"valkey": 20.0, "seaweedfs": 1.0}


class LocalServers:
    """Valkey and SeaweedFS with their data in ``folder``; a context manager.

    usual_ports: try 6379 and 8333 first; taken or not asked for, free ones are found and kept for
    the next start. start_s, stop_s: how long starting and stopping may take, in seconds;
    log_bytes: after how much a log is rotated; supervisor: one that runs other processes, too.
    """

    def __init__(
        self,
        folder: Path,
        *,
        usual_ports: bool = True,
        start_s: float = 60.0,
        stop_s: float = max(GRACE_S.values()) + 5,
        log_bytes: int = LOG_BYTES,
        supervisor: Supervisor | None = None,
    ) -> None:
        self.folder = Path(folder).resolve()
        self.usual_ports, self.start_s, self.stop_s = usual_ports, start_s, stop_s
        self.supervisor = supervisor or Supervisor(log_bytes=log_bytes)
        self._data = LocalFolder(self.folder)
        self._programs = Path(), Path()

    def start(self) -> Self:
        """Start both and wait until they answer.

        Raises:
            LocalError: a program is missing, the folder is in use, or a server does not come up.
        """
        self._programs = programs.valkey_program(), programs.weed_program()
        for name in ("valkey", "seaweedfs", "logs"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        self._data.hold(self.stop_s)
        try:
            for last in (False, False, True):
                try:
                    self._start_once()
                    return self
                except EarlyEnd as error:
                    # A port may be taken between our look and the server's bind.
                    if last or not programs.says_port_taken(error.process.log):
                        raise
                    self._stop_servers()
        except BaseException:
            self.stop()
            raise
        raise AssertionError("not reached")

    def stop(self) -> None:
        """Stop both, data written; does nothing if they do not run."""
        self._stop_servers()
        self._data.release()

    def restart(self, name: str) -> None:
        """Start ``valkey`` or ``seaweedfs`` again where it was, if it has ended, and wait for it.

        Raises:
            LocalError: it does not come up.
        """
        self.supervisor.restart(name, self.start_s)

    def pid(self, name: str) -> int:
        """The process id of ``valkey`` or ``seaweedfs``."""
        return self.supervisor.process(name).pid

    def alive(self) -> dict[str, bool]:
        """For each server that was started whether it still runs."""
        return self.supervisor.alive()

    def watch(self, callback: Ended) -> None:
        """Call ``callback(name, last lines of its log)``, from a thread, if a server crashes.

        Also one that is restarted later.
        """
        self.supervisor.on_end(callback)

    @property
    def ports(self) -> dict[str, int]:
        """The ports: ``valkey`` and ``s3``, and SeaweedFS's inner ones."""
        return dict(self._data.ports)

    def read_environment(self) -> dict[str, str]:
        """``environment()`` of servers that another process has started in this folder.

        Raises:
            LocalError: none was ever started there.
        """
        if not (self.folder / "local.json").exists():
            raise LocalError(f"{self.folder} holds no local servers; start them first")
        self._data.read()
        return self.environment()

    def environment(self) -> dict[str, str]:
        """The ``CUSTOMEDIT_*`` variables by which settings find these servers; has secrets."""
        return self._data.environment()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # Starting and stopping

    def _start_once(self) -> None:
        self._data.read()
        self._data.choose_ports(self.usual_ports)
        self._data.write()
        self._start_valkey()
        self._start_weed()
        self.supervisor.wait_healthy(self.start_s)

    def _start_valkey(self) -> None:
        port, password = self._data.ports["valkey"], self._data.secrets["valkey"]
        config = self.folder / "valkey" / "valkey.conf"
        programs.write_private(config, programs.valkey_config(port, password, config.parent))
        command = [str(self._programs[0]), str(config)]
        self._start("valkey", command, lambda: programs.valkey_answers(port, password))

    def _start_weed(self) -> None:
        data, keys, ports = self.folder / "seaweedfs", self._data.secrets, self._data.ports
        identities = data / "s3.json"
        programs.write_private(
            identities, programs.s3_identities(keys["s3_access"], keys["s3_secret"])
        )
        # Its inner HTTP ports take nothing that its own parts did not sign, and show no listings.
        environment = {
            "WEED_JWT_SIGNING_KEY": keys["inner"],
            "WEED_JWT_FILER_SIGNING_KEY": keys["inner"],
            "WEED_JWT_FILER_SIGNING_READ_KEY": keys["inner"],
            "WEED_FILER_EXPOSE_DIRECTORY_METADATA_ENABLED": "false",
            "WEED_MASTER_VOLUME_GROWTH_COPY_1": "2",  # volumes made at once, instead of 7
        }
        command = [str(self._programs[1]), *programs.weed_options(ports, data, identities)]
        self._start("seaweedfs", command, lambda: programs.weed_answers(ports), environment)

    def _start(
        self,
        name: str,
        command: list[str],
        healthy: Callable[[], bool],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.supervisor.start(
            Process(
                name,
                command,
                self.folder / "logs" / f"{name}.log",
                healthy,
                environment=dict(environment or {}),
                folder=self.folder / name,
                grace_s=GRACE_S[name],
                required=True,
                keep_open=(self._data.lock,),
            )
        )

    def _stop_servers(self) -> None:
        self.supervisor.stop()
        programs.remove_sockets(self._data.ports)
