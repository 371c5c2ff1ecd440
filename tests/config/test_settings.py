"""Settings come from the environment, bad ones are refused by name, the docs list them all."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pydantic
import pytest
from pydantic import SecretStr

from customedit.config.reference import document
from customedit.config.settings import PREFIX, Settings
from customedit.errors import InputError

DOCS = Path(__file__).parents[2] / "docs" / "settings.md"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)


def test_the_docs_are_what_the_command_writes() -> None:
    command = [sys.executable, "-m", "customedit.config.reference"]
    made = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert made == document()
    assert DOCS.read_text() == made, f"stale: {' '.join(command[1:])} > docs/settings.md"


def test_every_setting_is_described() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description and field.description.endswith("."), name


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUSTOMEDIT_LEASE_SECONDS", "60.5")
    monkeypatch.setenv("CUSTOMEDIT_S3_ENDPOINT", "")  # as a compose file leaves it: unset
    monkeypatch.setenv("CUSTOMEDIT_WEBHOOK_ALLOW_PRIVATE", "true")
    settings = Settings.of_environment()
    assert settings.lease_seconds == 60.5
    assert settings.s3_endpoint is None and settings.webhook_allow_private


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REDIS_URL", "http://redis"),
        ("REDIS_URL", "redis"),
        ("S3_ENDPOINT", "s3.example"),
        ("S3_ENDPOINT", "file:///etc/passwd"),
        ("S3_BUCKET", "Has Capitals"),
        ("S3_PREFIX", "no-slash"),
        ("S3_PREFIX", "../up/"),
        ("API_PORT", "65536"),
        ("API_PORT", "tcp://10.0.0.1:80"),
        ("LEASE_SECONDS", "0"),
        ("LEASE_SECONDS", "nan"),
        ("LEASE_SECONDS", "inf"),
        ("MAX_UPLOAD_BYTES", "20MB"),
        ("HEARTBEAT_SECONDS", "16"),
        ("DEVICE", "tpu"),
        ("DTYPE", "int8"),
        ("WORKER_QUEUES", "edit,,customize"),
        ("WORKER_QUEUES", "celery"),
        ("NAMESPACE", "a:b"),
        ("LOG_LEVEL", "LOUD"),
        ("OTEL_ENDPOINT", "collector:4318"),
    ],
)
def test_a_bad_value_is_refused_in_one_line_that_names_it(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(InputError) as caught:
        Settings.of_environment()
    assert caught.value.field == PREFIX + name
    assert str(caught.value).count("\n") == 0
    assert "settings.md" in str(caught.value)


@pytest.mark.parametrize(
    ("given", "missing"),
    [("S3_ACCESS_KEY", "S3_SECRET_KEY"), ("S3_SECRET_KEY", "S3_ACCESS_KEY")],
)
def test_the_keys_of_s3_come_together(
    monkeypatch: pytest.MonkeyPatch, given: str, missing: str
) -> None:
    monkeypatch.setenv(PREFIX + given, "verysecret")
    with pytest.raises(InputError) as caught:
        Settings.of_environment()
    assert caught.value.field == PREFIX + missing
    assert "verysecret" not in str(caught.value)


@pytest.mark.parametrize("queues", ["edit,customize", "import,edit", "edit,customize,import"])
def test_one_place_is_too_few_for_trainings_and_edits(
    monkeypatch: pytest.MonkeyPatch, queues: str
) -> None:
    monkeypatch.setenv("CUSTOMEDIT_WORKER_QUEUES", queues)
    monkeypatch.setenv("CUSTOMEDIT_WORKER_CONCURRENCY", "1")
    with pytest.raises(InputError, match="2 or more") as caught:
        Settings.of_environment()
    assert caught.value.field == "CUSTOMEDIT_WORKER_CONCURRENCY"
    assert "CUSTOMEDIT_WORKER_QUEUES" in str(caught.value)
    monkeypatch.setenv("CUSTOMEDIT_WORKER_CONCURRENCY", "2")
    Settings.of_environment()
    monkeypatch.setenv("CUSTOMEDIT_WORKER_CONCURRENCY", "1")
    for alone in ("edit", "customize,import", "edit,edit"):
        monkeypatch.setenv("CUSTOMEDIT_WORKER_QUEUES", alone)
        Settings.of_environment()


def test_a_bad_secret_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUSTOMEDIT_REDIS_URL", "htp://:verysecret@redis")
    with pytest.raises(InputError) as caught:
        Settings.of_environment()
    assert "verysecret" not in str(caught.value)


def test_secrets_do_not_show() -> None:
    settings = Settings(
        redis_url="redis://:verysecret@redis/0",
        s3_access_key="AK",
        s3_secret_key=SecretStr("verysecret"),
    )
    assert "verysecret" not in repr(settings) + str(settings)


def test_settings_do_not_change() -> None:
    with pytest.raises(pydantic.ValidationError):
        Settings().namespace = "other"


def test_a_misspelled_variable_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CUSTOMEDIT_S3_BUKET", "mine")
    with caplog.at_level(logging.WARNING):
        Settings.of_environment()
    assert "CUSTOMEDIT_S3_BUKET" in caplog.text and "mine" not in caplog.text
