"""Every setting of the service: one class, read from ``CUSTOMEDIT_*`` variables."""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import tempfile
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from customedit.errors import InputError

PREFIX: Final = "CUSTOMEDIT_"
MIB: Final = 2**20
_NOT_OURS: Final = {"CUSTOMEDIT_CACHE", "CUSTOMEDIT_MAX_PIXELS"}  # the command line's

_log = logging.getLogger(__name__)


def _address(*schemes: str) -> AfterValidator:
    def check(value: str | None) -> str | None:
        if value is not None:
            parts = urlsplit(value)
            if parts.scheme not in schemes or not (parts.hostname or parts.path):
                raise ValueError(f"is no address; it starts with {' or '.join(schemes)}")
        return value

    return AfterValidator(check)


WebAddress = Annotated[str | None, _address("http", "https")]
RedisAddress = Annotated[str, _address("redis", "rediss", "unix")]

_HOST: Final = r"([a-z0-9.-]+|\[[0-9a-f:]+\])"
_ORIGIN: Final = re.compile(rf"(http://{_HOST}(?!:80$)|https://{_HOST}(?!:443$))(:[0-9]{{1,5}})?")


def _origins(value: str) -> str:
    """Origins as browsers send them in ``Origin``: they are compared letter by letter."""
    for number, origin in enumerate(value.split(",") if value else [], 1):
        if origin.strip() == "*":
            raise ValueError("* is refused, it would let every page in; name each origin")
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(
                f"entry {number} is no origin as browsers send it: https://host or "
                "https://host:port in small letters, no path, no usual port, no spaces"
            )
    return value


Origins = Annotated[str, AfterValidator(_origins)]


def _networks(value: str) -> str:
    """Addresses and networks without bits beyond their prefix."""
    for number, network in enumerate(value.split(",") if value else [], 1):
        try:
            ipaddress.ip_network(network)
        except ValueError:
            raise ValueError(f"entry {number} is not an address or a network") from None
    return value


Networks = Annotated[str, AfterValidator(_networks)]


class Settings(BaseSettings):
    """The service's settings; frozen. Names in the environment are ``CUSTOMEDIT_`` and the field.

    Secrets are kept out of ``repr``: pass the object around freely, but never its URLs.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True, allow_inf_nan=False
    )

    # Redis
    redis_url: RedisAddress = Field(
        default="redis://127.0.0.1:6379/0",
        repr=False,
        description="Where Redis or Valkey is; may hold a user and a password.",
    )
    namespace: str = Field(
        default="ce",
        pattern=r"^[a-z0-9][a-z0-9-]{0,31}$",
        description="What all keys in Redis begin with, so that several services can share one.",
    )

    # S3
    s3_endpoint: WebAddress = Field(default=None, description="Where S3 is; unset: Amazon's.")
    s3_region: str = Field(
        default="us-east-1", min_length=1, max_length=64, description="Region of S3."
    )
    s3_bucket: str = Field(
        default="customedit",
        pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$",
        description="The bucket that holds all files.",
    )
    s3_prefix: str = Field(
        default="",
        pattern=r"^([A-Za-z0-9_-]+/)*$",
        description="What all keys in the bucket begin with; empty, or ends with a slash.",
    )
    s3_access_key: str | None = Field(
        default=None,
        description="Access key of S3; unset: what the machine offers (role, profile).",
    )
    s3_secret_key: SecretStr | None = Field(default=None, description="Secret key of S3.")
    s3_public_endpoint: WebAddress = Field(
        default=None,
        description="S3 as clients reach it, for presigned addresses; unset: the endpoint.",
    )
    presign_seconds: int = Field(
        default=900, ge=1, le=604_800, description="How long presigned addresses hold, in seconds."
    )

    # Uploads
    max_upload_bytes: int = Field(
        default=20 * MIB, ge=1024, le=500 * MIB, description="Largest picture file, in bytes."
    )
    max_upload_pixels: int = Field(
        default=40_000_000, ge=4096, le=500_000_000, description="Largest picture, in pixels."
    )
    decoders: int = Field(
        default=0,
        ge=0,
        le=64,
        description="Processes of an API that check uploads; 0: one per processor, 2 or 3.",
    )
    decode_memory_bytes: int = Field(
        default=384 * MIB,
        ge=64 * MIB,
        le=64 * 1024 * MIB,
        description="Memory for the checks of uploads at the same time; a picture that takes more "
        "is refused.",
    )
    decode_seconds: float = Field(
        default=10, gt=0, le=600, description="Longest check of an upload, in seconds."
    )
    max_import_bytes: int = Field(
        default=512 * MIB, ge=1024, le=4096 * MIB, description="Largest concept file, in bytes."
    )

    # API
    api_host: str = Field(default="127.0.0.1", min_length=1, description="Where the API listens.")
    api_port: int = Field(
        default=8000, ge=0, le=65_535, description="The API's port; 0: any free one."
    )
    api_metrics: bool = Field(default=True, description="Whether the API shows `/metrics`.")
    api_threads: int = Field(
        default=40, ge=1, le=1000, description="Threads of the API that wait for Redis and S3."
    )
    rate_per_minute: int = Field(
        default=600, ge=1, le=1_000_000, description="Requests a tenant may make in a minute."
    )
    queue_limit_per_tenant: int = Field(
        default=100, ge=1, le=100_000, description="Jobs of a tenant that may be queued or running."
    )
    failed_keys_per_minute: int = Field(
        default=60,
        ge=1,
        le=1_000_000,
        description="Wrong API keys one address may send to one API process in a minute.",
    )
    new_keys_per_minute: int = Field(
        default=10, ge=1, le=1_000_000, description="API keys a tenant may make in a minute."
    )
    trusted_proxies: Networks = Field(
        default="",
        pattern=r"^([0-9a-fA-F.:/]+(,[0-9a-fA-F.:/]+)*)?$",
        description="Addresses or networks of reverse proxies, with commas between, whose "
        "`X-Forwarded-For` names the client.",
    )
    streams_per_tenant: int = Field(
        default=100,
        ge=1,
        le=100_000,
        description="Event streams of a tenant that one API process serves at once.",
    )
    imports_at_once: int = Field(
        default=4,
        ge=1,
        le=1000,
        description="Concept files that one API process takes in at once; each lies on the disk.",
    )
    imports_per_tenant: int = Field(
        default=2,
        ge=1,
        le=1000,
        description="Concept files that one API process takes in at once from a tenant.",
    )
    api_connections: int = Field(
        default=2000, ge=1, le=1_000_000, description="Connections that one API process holds."
    )
    api_connections_per_address: int = Field(
        default=500,
        ge=1,
        le=1_000_000,
        description="Connections that one API process holds of one client address, of IPv6 one "
        "network of 64 bits; trusted proxies have no such share.",
    )
    head_timeout_seconds: float = Field(
        default=10,
        gt=0,
        le=600,
        description="How long the head of a request may take to arrive, in seconds.",
    )
    body_timeout_seconds: float = Field(
        default=30,
        gt=0,
        le=3600,
        description="How long a body may take to arrive, in seconds, beyond a second for each "
        "16 KiB; and how long a client may take no bytes of an answer.",
    )
    cors_origins: Origins = Field(
        default="",
        description="Origins whose pages may use the API, exact, with commas between; never `*`.",
    )
    idempotency_hours: int = Field(
        default=24,
        ge=1,
        le=720,
        description="How long an `Idempotency-Key` is remembered, in hours.",
    )

    # Jobs
    lease_seconds: float = Field(
        default=30, gt=0, le=3600, description="How long a claim holds unless renewed, in seconds."
    )
    heartbeat_seconds: float = Field(
        default=5, gt=0, le=600, description="How often a worker renews its claims, in seconds."
    )
    max_attempts: int = Field(
        default=5,
        ge=1,
        le=100,
        description="Claims of a job before it fails as `attempts-exhausted`.",
    )
    job_timeout_seconds: float = Field(
        default=7200,
        gt=0,
        le=604_800,
        description="Longest run of a job in one attempt, in seconds.",
    )
    reconcile_seconds: float = Field(
        default=5,
        gt=0,
        le=3600,
        description="How often waiting jobs, lost leases and leftovers are looked for.",
    )
    queued_notify_after_seconds: float = Field(
        default=15,
        gt=0,
        le=3600,
        description="Workers are notified again of a job that is queued for so long.",
    )
    keep_jobs_days: float = Field(
        default=30,
        gt=0,
        le=3650,
        description="How long finished jobs and their files are kept, in days.",
    )
    events_max: int = Field(
        default=1000,
        ge=10,
        le=100_000,
        description="Events kept for each job, about; the newest stay.",
    )

    # Worker
    base: str = Field(
        default="mini",
        min_length=1,
        description="The diffusion base: `mini`, a folder or a hub name.",
    )
    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$",
        description="Where the base runs; `auto`: the first GPU, or else the processor.",
    )
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        default="auto", description="Numbers the base computes with; `auto`: half on a GPU."
    )
    clip: str | None = Field(
        default=None,
        description="CLIP that measures similarities, a folder or hub name; unset: none.",
    )
    worker_queues: str = Field(
        default="edit,customize,import",
        pattern=r"^(edit|customize|import)(,(edit|customize|import))*$",
        description="Kinds of jobs a worker takes, with commas between.",
    )
    worker_concurrency: int = Field(
        default=8, ge=1, le=256, description="Jobs that a worker runs at once on its one base."
    )
    engine_rows: int = Field(
        default=24, ge=1, le=1024, description="Most rows in one call of the UNet."
    )
    cache_bytes: int = Field(
        default=512 * MIB,
        ge=0,
        le=1024 * 1024 * MIB,
        description="Concepts and inversions kept on the device, in bytes.",
    )
    features_bytes: int = Field(
        default=0,
        ge=0,
        le=1024 * 1024 * MIB,
        description="Features of sources kept on the device for the next edit, in bytes; 0: none.",
    )
    drain_seconds: float = Field(
        default=30, ge=0, le=3600, description="How long jobs may go on after SIGTERM, in seconds."
    )
    watchdog_seconds: float = Field(
        default=120,
        gt=0,
        le=3600,
        description="A worker whose engine stands still so long ends itself.",
    )
    metrics_port: int = Field(
        default=9100,
        ge=0,
        le=65_535,
        description="Port of a worker's health and metrics; 0: any free one.",
    )
    metrics_host: str = Field(
        default="127.0.0.1", min_length=1, description="Where a worker's health and metrics listen."
    )
    scratch_dir: Path = Field(
        default_factory=lambda: Path(tempfile.gettempdir()),
        description="Folder for files that may vanish; unset: the system's.",
    )

    # Webhooks
    webhook_attempts: int = Field(
        default=8, ge=1, le=50, description="Tries to deliver a webhook before it is given up."
    )
    webhook_timeout_seconds: float = Field(
        default=10, gt=0, le=60, description="Longest delivery of a webhook, in seconds."
    )
    webhook_first_retry_seconds: float = Field(
        default=5,
        gt=0,
        le=3600,
        description="Wait before the second try; each next one doubles it.",
    )
    webhook_allow_private: bool = Field(
        default=False, description="Whether webhooks may go to private addresses: only for tests."
    )

    # Observability
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Least severe messages that are logged."
    )
    log_format: Literal["json", "text"] = Field(
        default="json", description="`json`: one object a line; `text`: for people."
    )
    otel_endpoint: WebAddress = Field(
        default=None,
        description="OpenTelemetry collector (OTLP over HTTP) for traces; unset: none.",
    )

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        if self.heartbeat_seconds * 2 > self.lease_seconds:
            raise ValueError(
                f"heartbeat_seconds: {self.heartbeat_seconds:g} is more than half of "
                f"lease_seconds, {self.lease_seconds:g}"
            )
        if (self.s3_access_key is None) != (self.s3_secret_key is None):
            given, missing = "s3_access_key", "s3_secret_key"
            if self.s3_access_key is None:
                given, missing = missing, given
            raise ValueError(f"{missing}: is missing; {given} is of no use without")
        kinds = set(self.worker_queues.split(","))
        if self.worker_concurrency < 2 and "edit" in kinds and len(kinds) > 1:
            raise ValueError(
                "worker_concurrency: 1 lets a training keep all edits waiting; set 2 or more, or "
                f"give edits a worker of their own by {PREFIX}WORKER_QUEUES"
            )
        return self

    @classmethod
    def of_environment(cls, **given: Any) -> Self:
        """The settings that the environment gives; ``given`` ones go before it.

        Raises:
            InputError: a value is not usable; one line that names the variable, never its value.
        """
        for name in unknown_variables():
            _log.warning("%s is no setting; see docs/settings.md", name)
        try:
            return cls(**given)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            problem = first["msg"].removeprefix("Value error, ")
            field = str(first["loc"][0]) if first["loc"] else ""
            if not field:  # a rule over several fields names its first itself
                field, problem = problem.split(": ", 1)
            raise InputError(PREFIX + field.upper(), problem, "see docs/settings.md") from None


def unknown_variables() -> list[str]:
    """``CUSTOMEDIT_*`` variables of the environment that are no setting: most often misspelled."""
    known = {PREFIX + name.upper() for name in Settings.model_fields} | _NOT_OURS
    return sorted(n for n in os.environ if n.startswith(PREFIX) and n not in known)
