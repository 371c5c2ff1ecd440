"""For all tests: how hypothesis looks for examples, torch's threads, and the real servers."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings as hypothesis_settings

if TYPE_CHECKING:
    from redis import Redis

    from customedit.platform.local import LocalServers
    from customedit.platform.settings import Settings
    from customedit.platform.storage import Storage

# No deadline: the first call of a model is slow and says nothing about the code under test.
hypothesis_settings.register_profile("dev", deadline=None)
hypothesis_settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis_settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE", "ci" if "CI" in os.environ else "dev")
)

# Share the cores among pytest's workers. Torch reads this when it is first imported, which is
# after this file, so that tests which need no torch do not wait for it.
_workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // _workers)))


# Real servers, started once when the first test asks for them.


@pytest.fixture(scope="session")
def local_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServers]:
    from customedit.platform.local import LocalServers

    with LocalServers(tmp_path_factory.mktemp("servers"), usual_ports=False) as servers:
        yield servers


@pytest.fixture
def settings(local_servers: LocalServers, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings with keys of its own in both servers, given to child processes as well."""
    from customedit.platform.settings import Settings

    own = secrets.token_hex(6)
    for name, value in local_servers.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CUSTOMEDIT_NAMESPACE", f"test-{own}")
    monkeypatch.setenv("CUSTOMEDIT_S3_PREFIX", f"test-{own}/")
    return Settings.of_environment()


@pytest.fixture
def redis_client(settings: Settings) -> Iterator[Redis]:
    from redis import Redis

    with Redis.from_url(settings.redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def storage(settings: Settings) -> Storage:
    from customedit.platform.storage import Storage

    storage = Storage(settings)
    storage.bucket()
    return storage
