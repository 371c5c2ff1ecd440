"""Files in S3: one bucket, plain calls, errors that say whether trying again helps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypedDict

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

from customedit.platform.settings import Settings

_MISSING: Final = frozenset({"404", "NoSuchKey", "NotFound"})
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


@dataclass(frozen=True)
class Stored:
    """An object. bytes: its size; modified: seconds since 1970, UTC; etag: without quotes.

    media_type and metadata are known from ``head`` alone; a listing leaves them empty.
    """

    key: str
    bytes: int
    modified: float
    etag: str
    media_type: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


class PresignedPost(TypedDict):
    """A form that uploads one file: POST ``fields``, then the file as ``file``, to ``url``."""

    url: str
    fields: dict[str, str]


class Storage:
    """The bucket of ``settings``; safe to use from many threads.

    Keys are relative to ``settings.s3_prefix``. Every method raises StorageError; those that read
    raise MissingObject when the object is not there.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.bucket_name, self._prefix = settings.s3_bucket, settings.s3_prefix
        self._client = _client(settings, settings.s3_endpoint)
        public = settings.s3_public_endpoint
        self._public = _client(settings, public) if public else self._client

    def bucket(self) -> None:
        """Make the bucket if it is not there."""
        with _saying(self.bucket_name):
            try:
                self._client.head_bucket(Bucket=self.bucket_name)
            except ClientError as error:
                if _code(error) not in _MISSING | {"NoSuchBucket"}:
                    raise
                self._create()

    def _create(self) -> None:
        region = self.settings.s3_region
        where = {} if region == "us-east-1" else {"LocationConstraint": region}
        asked = {"CreateBucketConfiguration": where} if where else {}
        try:
            self._client.create_bucket(Bucket=self.bucket_name, **asked)
        except ClientError as error:  # another process was faster
            if _code(error) != "BucketAlreadyOwnedByYou":
                raise

    def reachable(self) -> bool:
        """Whether the bucket answers now."""
        try:
            with _saying(self.bucket_name):
                self._client.head_bucket(Bucket=self.bucket_name)
        except StorageError:
            return False
        return True

    def put(
        self,
        key: str,
        body: bytes | Path,
        media_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Write an object, whole or not at all. body: the bytes, or the file that has them.

        metadata: ASCII only, 2 KiB in all.
        """
        extra = {"ContentType": media_type, "Metadata": dict(metadata or {})}
        with _saying(key):
            if isinstance(body, Path):  # in parts, if it is large
                self._client.upload_file(str(body), self.bucket_name, self._at(key), extra)
            else:
                self._client.put_object(
                    Bucket=self.bucket_name, Key=self._at(key), Body=body, **extra
                )

    def get(self, key: str, max_bytes: int | None = None) -> bytes:
        """The bytes of an object.

        max_bytes: a larger object is not read: StorageError, not transient.
        """
        with _saying(key):
            answer = self._client.get_object(Bucket=self.bucket_name, Key=self._at(key))
            with contextlib.closing(answer["Body"]) as body:
                if max_bytes is not None and answer["ContentLength"] > max_bytes:
                    size = answer["ContentLength"]
                    raise StorageError(f"{key}: {size} bytes; at most {max_bytes}", transient=False)
                data: bytes = body.read()
                return data

    def download(self, key: str, path: Path) -> Path:
        """Write an object to the file ``path``, whole or not at all; gives ``path``."""
        with _saying(key):
            self._client.download_file(self.bucket_name, self._at(key), str(path))
        return path

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        try:
            self.head(key)
        except MissingObject:
            return False
        return True

    def head(self, key: str) -> Stored:
        """What is known of an object."""
        with _saying(key):
            found = self._client.head_object(Bucket=self.bucket_name, Key=self._at(key))
        return Stored(
            key,
            found["ContentLength"],
            found["LastModified"].timestamp(),
            found["ETag"].strip('"'),
            found.get("ContentType", ""),
            found.get("Metadata", {}),
        )

    def copy(self, source: str, target: str) -> None:
        """Copy an object inside the bucket, with media type and metadata (up to 5 GiB)."""
        with _saying(source):
            self._client.copy_object(
                Bucket=self.bucket_name,
                Key=self._at(target),
                CopySource={"Bucket": self.bucket_name, "Key": self._at(source)},
            )

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens if it is not there."""
        with _saying(key):
            self._client.delete_object(Bucket=self.bucket_name, Key=self._at(key))

    def delete_prefix(self, prefix: str) -> int:
        """Remove every object whose key begins with ``prefix``; gives how many.

        Raises:
            ValueError: the prefix does not end with a slash (``jobs/1`` would take ``jobs/10``).
        """
        if not prefix.endswith("/"):
            raise ValueError(f"prefix: {prefix!r} does not end with a slash")
        keys = [stored.key for stored in self.list(prefix)]
        for first in range(0, len(keys), 1000):  # S3 takes 1000 at once
            some = [{"Key": self._at(key)} for key in keys[first : first + 1000]]
            with _saying(prefix):
                answer = self._client.delete_objects(
                    Bucket=self.bucket_name, Delete={"Objects": some, "Quiet": True}
                )
            if errors := answer.get("Errors"):
                raise StorageError(
                    f"{prefix}: {len(errors)} objects were not removed ({errors[0].get('Code')})",
                    transient=True,
                )
        return len(keys)

    def list(self, prefix: str) -> Iterator[Stored]:
        """Every object whose key begins with ``prefix``, by key."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket_name, Prefix=self._at(prefix)
        )
        with _saying(prefix):
            for page in pages:
                for entry in page.get("Contents", ()):
                    yield Stored(
                        entry["Key"].removeprefix(self._prefix),
                        entry["Size"],
                        entry["LastModified"].timestamp(),
                        entry["ETag"].strip('"'),
                    )

    def presign_get(
        self, key: str, filename: str | None = None, media_type: str | None = None
    ) -> str:
        """An address that reads one object for ``presign_seconds``, with no other credentials.

        filename: offers it as a download of that name; media_type: says so instead of what is
        stored. The object need not exist.
        """
        asked = {"Bucket": self.bucket_name, "Key": self._at(key)}
        if filename is not None:
            safe = "".join(
                c if c.isascii() and (c.isalnum() or c in "._- ") else "_" for c in filename
            )
            asked["ResponseContentDisposition"] = f'attachment; filename="{safe}"'
        if media_type is not None:
            asked["ResponseContentType"] = media_type
        with _saying(key):
            return self._public.generate_presigned_url(
                "get_object", Params=asked, ExpiresIn=self.settings.presign_seconds
            )

    def presign_post(self, key: str, media_type: str, max_bytes: int) -> PresignedPost:
        """A form that writes one object: this key, this media type, from 1 to ``max_bytes`` bytes.

        Holds for ``presign_seconds``. Some services, SeaweedFS among them, let pass fields that the
        policy does not name (``acl``, ``success_action_redirect``; no object becomes public by
        them). So write what was uploaded anew once it is checked, rather than copying it.
        """
        with _saying(key):
            form = self._public.generate_presigned_post(
                self.bucket_name,
                self._at(key),
                Fields={"Content-Type": media_type},
                Conditions=[
                    {"Content-Type": media_type},
                    ["content-length-range", 1, max_bytes],
                ],
                ExpiresIn=self.settings.presign_seconds,
            )
        return PresignedPost(url=form["url"], fields=form["fields"])

    def _at(self, key: str) -> str:
        return self._prefix + key


def _client(settings: Settings, endpoint: str | None) -> Any:
    secret = settings.s3_secret_key
    return boto3.session.Session().client(  # the default session is not safe across threads
        "s3",
        endpoint_url=endpoint,
        region_name=settings.s3_region,
        aws_access_key_id=settings.s3_access_key,
        aws_secret_access_key=secret.get_secret_value() if secret else None,
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


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


@contextlib.contextmanager
def _saying(key: str) -> Iterator[None]:
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
    code = _code(error)
    if code in _MISSING:
        return MissingObject(key)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    again = status >= 500 or status == 429 or code in _AGAIN or "Throttl" in code
    return StorageError(f"{key}: S3 answers {code or status}", transient=again)
