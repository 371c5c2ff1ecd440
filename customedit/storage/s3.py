"""boto3 as the storage uses it: how it connects, and its errors in our words."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any, Final

import boto3
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    IncompleteReadError,
)

from customedit.config.settings import Settings

MISSING: Final = frozenset({"404", "NoSuchKey", "NotFound"})
_AGAIN: Final = frozenset(
    {"InternalError", "RequestTimeout", "RequestTimeTooSkewed", "ServiceUnavailable", "SlowDown"}
)
# The connection, not the request.
_BROKEN: Final = (ConnectionError, HTTPClientError, IncompleteReadError, Boto3Error)


class StorageError(RuntimeError):
    """A call of S3 failed. transient: whether the same call may work later. Holds no secret."""

    def __init__(self, message: str, *, transient: bool) -> None:
        super().__init__(message)
        self.transient = transient


class MissingObject(StorageError):
    """There is no such object."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key}: there is no such object", transient=False)
        self.key = key


def session(settings: Settings) -> boto3.session.Session:
    """A session of boto3's: the credentials of ``settings``, or what the machine offers."""
    secret = settings.s3_secret_key
    return boto3.session.Session(  # the default session is not safe across threads
        region_name=settings.s3_region,
        aws_access_key_id=settings.s3_access_key,
        aws_secret_access_key=secret.get_secret_value() if secret else None,
    )


def client(session: boto3.session.Session, endpoint: str | None) -> Any:
    """A client of boto3's for S3 at ``endpoint`` (None: Amazon's), safe across threads."""
    made = session.client(
        "s3",
        endpoint_url=endpoint,
        config=Config(
            signature_version="s3v4",
            connect_timeout=3,
            read_timeout=30,
            max_pool_connections=64,
            retries={"mode": "standard", "total_max_attempts": 4},
            s3={"addressing_style": "path" if endpoint else "auto"},
            # Many S3 services know no checksums in trailers; TCP and the ETag have theirs.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
    made.meta.events.register_last("before-call.s3", _send_memory_at_once)
    return made


def _send_memory_at_once(params: dict[str, Any], **_: Any) -> None:
    """No ``Expect: 100-continue`` for a body in memory, such as a record of the journal.

    boto3 sends it before each body. It costs a round trip and saves the body of a refused request,
    which is small here; botocore reads the interim answer byte by byte besides.
    """
    if isinstance(params.get("body"), io.BytesIO):
        params["headers"].pop("Expect", None)


def code(error: ClientError) -> str:
    """What S3 calls the error."""
    return str(error.response.get("Error", {}).get("Code", ""))


@contextlib.contextmanager
def saying(key: str) -> Iterator[None]:
    """Turn what boto3 raises into StorageError that names ``key``."""
    try:
        yield
    except ClientError as error:
        raise _storage_error(key, error) from error
    except (BotoCoreError, Boto3Error) as error:
        cause = error.__context__
        if isinstance(cause, ClientError):  # the transfer manager wraps what it met
            raise _storage_error(key, cause) from error
        transient = isinstance(error, _BROKEN)
        raise StorageError(f"{key}: {type(error).__name__}", transient=transient) from error


def _storage_error(key: str, error: ClientError) -> StorageError:
    error_code = code(error)
    if error_code in MISSING:
        return MissingObject(key)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    again = status >= 500 or status == 429 or error_code in _AGAIN or "Throttl" in error_code
    return StorageError(f"{key}: S3 answers {error_code or status}", transient=again)
