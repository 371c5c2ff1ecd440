"""Files in S3: one bucket, plain calls, errors that say whether trying again helps."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, TypedDict

from botocore.exceptions import ClientError

from customedit.config.settings import Settings
from customedit.storage.s3 import (
    MISSING,
    MissingObject,
    StorageError,
    client,
    code,
    saying,
    session,
)
from customedit.storage.signing import BucketSigner

BROKEN_UPLOAD_DAYS: Final = 1
"""After so many days S3 removes the parts of an upload that broke off."""

_log = logging.getLogger(__name__)

__all__ = ["MissingObject", "PresignedPost", "Storage", "StorageError", "Stored"]


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
    raise MissingObject when the object is not there. on_error: called at each other failure, to
    count it.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.on_error: Callable[[], None] = lambda: None
        self.bucket_name, self._prefix = settings.s3_bucket, settings.s3_prefix
        boto = session(settings)
        self._client = client(boto, settings.s3_endpoint)
        public = settings.s3_public_endpoint
        self._public = client(boto, public) if public else self._client
        given = boto.get_credentials(), self.bucket_name, settings.s3_region
        self._signer = BucketSigner(self._client, *given)
        self._public_signer = BucketSigner(self._public, *given) if public else self._signer

    def bucket(self) -> None:
        """Make the bucket if it is not there, and have S3 remove uploads that broke off."""
        with self._call(self.bucket_name):
            try:
                self._client.head_bucket(Bucket=self.bucket_name)
            except ClientError as error:
                if code(error) not in MISSING | {"NoSuchBucket"}:
                    raise
                self._create()
            self._remove_broken_uploads()

    def _remove_broken_uploads(self) -> None:
        """A lifecycle rule, beside those of others; a service without such rules is let be."""
        rule = {
            "ID": f"customedit-broken-uploads-{self._prefix.strip('/').replace('/', '-') or 'all'}",
            "Status": "Enabled",
            "Filter": {"Prefix": self._prefix},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": BROKEN_UPLOAD_DAYS},
        }
        try:
            rules = self._lifecycle_rules()
            if rule not in rules:
                others = [r for r in rules if r.get("ID") != rule["ID"]]
                self._client.put_bucket_lifecycle_configuration(
                    Bucket=self.bucket_name, LifecycleConfiguration={"Rules": [*others, rule]}
                )
        except ClientError as error:
            _log.warning("no lifecycle rule for broken uploads: S3 answers %s", code(error))

    def _lifecycle_rules(self) -> list[dict[str, Any]]:
        try:
            answer = self._client.get_bucket_lifecycle_configuration(Bucket=self.bucket_name)
        except ClientError as error:
            if code(error) in {"NoSuchLifecycleConfiguration", "404"}:
                return []
            raise
        return list(answer.get("Rules", ()))

    def _create(self) -> None:
        region = self.settings.s3_region
        where = {} if region == "us-east-1" else {"LocationConstraint": region}
        arguments = {"CreateBucketConfiguration": where} if where else {}
        try:
            self._client.create_bucket(Bucket=self.bucket_name, **arguments)
        except ClientError as error:  # another process was faster
            if code(error) != "BucketAlreadyOwnedByYou":
                raise

    @contextlib.contextmanager
    def _call(self, key: str) -> Iterator[None]:
        """A call of S3: its failures as StorageError that names ``key``, counted."""
        try:
            with saying(key):
                yield
        except MissingObject:
            raise
        except StorageError:
            self.on_error()
            raise

    def writable(self) -> bool:
        """Whether the bucket takes a write now: not if its disk is full."""
        key = "health/probe"
        try:
            self.put(key, b"0")
            self.delete(key)
        except StorageError:
            return False
        return True

    def reachable(self) -> bool:
        """Whether the bucket answers now."""
        try:
            with self._call(self.bucket_name):
                self._client.head_bucket(Bucket=self.bucket_name)
        except StorageError:
            return False
        return True

    def abort_broken_uploads(self, before: float) -> int:
        """Remove the parts of uploads that began before ``before`` and never ended; gives how many.

        As the lifecycle rule of ``bucket`` does, for services that keep such rules and do not act
        on them. before: seconds since 1970, UTC.
        """
        place = {"Bucket": self.bucket_name}
        pages = self._client.get_paginator("list_multipart_uploads").paginate(
            **place, Prefix=self._prefix
        )
        done = 0
        with self._call(self.bucket_name):
            for page in pages:
                for upload in page.get("Uploads", ()):
                    if upload["Initiated"].timestamp() < before:
                        self._client.abort_multipart_upload(
                            **place, Key=upload["Key"], UploadId=upload["UploadId"]
                        )
                        done += 1
        return done

    def put(
        self,
        key: str,
        body: bytes | Path | IO[bytes],
        media_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Write an object, whole or not at all. body: the bytes, or the file that has them.

        An open file is read from where it stands, and may be closed after that. metadata: ASCII
        only, 2 KiB in all.
        """
        extra = {"ContentType": media_type, "Metadata": dict(metadata or {})}
        with self._call(key):
            if isinstance(body, Path):  # in parts, if it is large
                self._client.upload_file(str(body), self.bucket_name, self._at(key), extra)
            elif not isinstance(body, bytes):
                self._client.upload_fileobj(body, self.bucket_name, self._at(key), extra)
            elif not self._signer.put(self._at(key), body, media_type, metadata or {}):
                self._client.put_object(
                    Bucket=self.bucket_name, Key=self._at(key), Body=body, **extra
                )

    def get(self, key: str, max_bytes: int | None = None) -> bytes:
        """The bytes of an object.

        max_bytes: a larger object is not read: StorageError, not transient.
        """
        with self._call(key):
            answer = self._client.get_object(Bucket=self.bucket_name, Key=self._at(key))
            with contextlib.closing(answer["Body"]) as body:
                if max_bytes is not None and answer["ContentLength"] > max_bytes:
                    size = answer["ContentLength"]
                    raise StorageError(f"{key}: {size} bytes; at most {max_bytes}", transient=False)
                data: bytes = body.read()
                return data

    def download(self, key: str, path: Path) -> Path:
        """Write an object to the file ``path``, whole or not at all; gives ``path``."""
        with self._call(key):
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
        with self._call(key):
            answer = self._client.head_object(Bucket=self.bucket_name, Key=self._at(key))
        return Stored(
            key,
            answer["ContentLength"],
            answer["LastModified"].timestamp(),
            answer["ETag"].strip('"'),
            answer.get("ContentType", ""),
            answer.get("Metadata", {}),
        )

    def copy(self, source: str, target: str) -> None:
        """Copy an object inside the bucket, with media type and metadata (up to 5 GiB)."""
        with self._call(source):
            self._client.copy_object(
                Bucket=self.bucket_name,
                Key=self._at(target),
                CopySource={"Bucket": self.bucket_name, "Key": self._at(source)},
            )

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens if it is not there."""
        with self._call(key):
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
            with self._call(prefix):
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
        with self._call(prefix):
            for page in pages:
                for entry in page.get("Contents", ()):
                    yield self._stored(entry)

    def _stored(self, entry: Mapping[str, Any]) -> Stored:
        """An entry of a listing."""
        return Stored(
            entry["Key"].removeprefix(self._prefix),
            entry["Size"],
            entry["LastModified"].timestamp(),
            entry["ETag"].strip('"'),
        )

    def page(self, prefix: str, after: str, limit: int) -> Sequence[Stored]:
        """The first objects whose key begins with ``prefix`` and comes after ``after``, by key.

        after: a key, or empty; limit: how many, at most 1000. As many as that if there are.
        """
        with self._call(prefix):
            answer = self._client.list_objects_v2(
                Bucket=self.bucket_name,
                Prefix=self._at(prefix),
                StartAfter=self._at(after) if after else "",
                MaxKeys=limit,
            )
        return [self._stored(entry) for entry in answer.get("Contents", ())]

    def presign_get(
        self, key: str, filename: str | None = None, media_type: str | None = None
    ) -> str:
        """An address that reads one object for ``presign_seconds``, with no other credentials.

        filename: offers it as a download of that name; media_type: says so instead of what is
        stored. The object need not exist.
        """
        parameters = {}
        if filename is not None:
            safe = "".join(
                c if c.isascii() and (c.isalnum() or c in "._- ") else "_" for c in filename
            )
            parameters["response-content-disposition"] = f'attachment; filename="{safe}"'
        if media_type is not None:
            parameters["response-content-type"] = media_type
        with self._call(key):
            return self._public_signer.presigned_get(
                self._at(key), parameters, self.settings.presign_seconds
            )

    def presign_post(self, key: str, media_type: str, max_bytes: int) -> PresignedPost:
        """A form that writes one object: this key, this media type, from 1 to ``max_bytes`` bytes.

        Holds for ``presign_seconds``. Some services, SeaweedFS among them, let pass fields that the
        policy does not name (``acl``, ``success_action_redirect``; no object becomes public by
        them). So write what was uploaded anew once it is checked, rather than copying it.
        """
        with self._call(key):
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
