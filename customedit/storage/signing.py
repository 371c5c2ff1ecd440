"""Two frequent calls of S3 signed here: PUT of small objects, and presigned addresses.

boto3 builds, checks and dispatches each call by its model of the API. That takes more processor
time than all the rest of a submission, which waits for its journal record, and most of the time of
a list of jobs, which has three addresses a job. Here both are signed as Signature Version 4 has it
("Authenticating Requests (AWS Signature Version 4)", Amazon S3 API Reference: in the header with
the payload in a single chunk, and in query parameters). A PUT that is not answered with 200 is
boto3's to do again and to name: it bears being repeated.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Any, Final
from urllib.parse import quote, urlsplit

from botocore.exceptions import BotoCoreError
from botocore.utils import get_environ_proxies

from customedit.storage.connections import Connections

LARGEST: Final = 2**20
"""Bytes of the largest object that is sent so: of larger ones the sending itself is the cost."""

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_SAFE: Final = "/-_.~"


class BucketSigner:
    """Signs requests for ``bucket`` at the endpoint of ``client``; safe to use from many threads.

    client, credentials: of boto3; region: of the bucket.
    """

    def __init__(self, client: Any, credentials: Any, bucket: str, region: str) -> None:
        self._client, self._credentials = client, credentials
        self._bucket, self._region = bucket, region
        self._refused = False

    @functools.cached_property
    def _place(self) -> tuple[str, str]:
        """The bucket's address as boto3 makes it (host or path style), and its path.

        Raises:
            NoCredentialsError: there is nothing to sign with.
        """
        signed = self._client.generate_presigned_url(
            "put_object", Params={"Bucket": self._bucket, "Key": "x"}
        )
        parts = urlsplit(signed)
        return f"{parts.scheme}://{parts.netloc}", parts.path.removesuffix("x")

    def presigned_get(self, key: str, parameters: Mapping[str, str], seconds: int) -> str:
        """An address that reads the object for ``seconds`` s. parameters: of its query.

        Raises:
            NoCredentialsError: there is nothing to sign with.
        """
        address, path = self._place
        frozen = self._credentials.get_frozen_credentials()
        path += quote(key, safe=_SAFE)
        query = presigned_query(
            "GET", urlsplit(address).netloc, path, parameters, seconds,
            access=frozen.access_key, secret=frozen.secret_key, token=frozen.token,
            region=self._region, at=datetime.now(UTC),
        )  # fmt: skip
        return f"{address}{path}?{query}"

    @functools.cached_property
    def _connections(self) -> Connections | None:
        """None: the way to the bucket goes through a proxy, which boto3 knows how to take."""
        address, config = self._place[0], self._client.meta.config
        if get_environ_proxies(address):
            return None
        return Connections(
            address,
            connect_s=config.connect_timeout,
            read_s=config.read_timeout,
            most=config.max_pool_connections,
        )

    def put(self, key: str, body: bytes, media_type: str, metadata: Mapping[str, str]) -> bool:
        """Whether S3 has the object; False: ask boto3. metadata: ASCII only.

        After a redirect, as to another region, none is sent any more: boto3 knows where to go.
        """
        if self._refused or self._credentials is None or len(body) > LARGEST:
            return False
        try:
            if (connections := self._connections) is None:
                return False
            path, headers = self._signed(key, body, media_type, metadata)
            status = connections.send("PUT", path, headers, body)
        except (OSError, HTTPException, BotoCoreError):
            return False
        self._refused = 300 <= status < 400
        return status == 200

    def _signed(
        self, key: str, body: bytes, media_type: str, metadata: Mapping[str, str]
    ) -> tuple[str, dict[str, str]]:
        """The path of a PUT, and its headers."""
        address, path = self._place
        host, frozen = urlsplit(address).netloc, self._credentials.get_frozen_credentials()
        headers = {"content-type": media_type}
        headers |= {f"x-amz-meta-{name.lower()}": value for name, value in metadata.items()}
        if frozen.token:
            headers["x-amz-security-token"] = frozen.token
        path += quote(key, safe=_SAFE)
        signed = signed_headers(
            "PUT", host, path, headers, body,
            access=frozen.access_key, secret=frozen.secret_key, region=self._region,
            at=datetime.now(UTC),
        )  # fmt: skip
        return path, {"host": host, **signed}


def signed_headers(
    method: str,
    host: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    access: str,
    secret: str,
    region: str,
    at: datetime,
) -> dict[str, str]:
    """``headers`` (names in small letters) and those that sign them and the body.

    path: as it is sent, quoted; at: now, in UTC. The request has no query.
    """
    stamp = at.strftime("%Y%m%dT%H%M%SZ")
    payload = hashlib.sha256(body).hexdigest()
    sent = {**headers, "x-amz-content-sha256": payload, "x-amz-date": stamp}
    covered = sorted({**sent, "host": host}.items())
    names = ";".join(name for name, _ in covered)
    lines = "".join(f"{name}:{' '.join(value.split())}\n" for name, value in covered)
    canonical = f"{method}\n{path}\n\n{lines}\n{names}\n{payload}"
    scope, signature = _signature(canonical, stamp, secret, region)
    authorization = (
        f"{_ALGORITHM} Credential={access}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return {**sent, "authorization": authorization, "content-length": str(len(body))}


def presigned_query(
    method: str,
    host: str,
    path: str,
    parameters: Mapping[str, str],
    seconds: int,
    *,
    access: str,
    secret: str,
    token: str | None,
    region: str,
    at: datetime,
) -> str:
    """``parameters`` and their signature: the query of an address that holds for ``seconds`` s.

    at: from when on, UTC; path: as it is sent, quoted.
    """
    stamp = at.strftime("%Y%m%dT%H%M%SZ")
    fields = {
        **parameters,
        "X-Amz-Algorithm": _ALGORITHM,
        "X-Amz-Credential": f"{access}/{_scope(stamp, region)}",
        "X-Amz-Date": stamp,
        "X-Amz-Expires": str(seconds),
        "X-Amz-SignedHeaders": "host",
    }
    if token:
        fields["X-Amz-Security-Token"] = token
    query = "&".join(
        f"{quote(name, safe='-_.~')}={quote(fields[name], safe='-_.~')}" for name in sorted(fields)
    )
    canonical = f"{method}\n{path}\n{query}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD"
    _, signature = _signature(canonical, stamp, secret, region)
    return f"{query}&X-Amz-Signature={signature}"


def _scope(stamp: str, region: str) -> str:
    return f"{stamp[:8]}/{region}/s3/aws4_request"


def _signature(canonical: str, stamp: str, secret: str, region: str) -> tuple[str, str]:
    """The scope of the signature, and the signature of a canonical request."""
    scope = _scope(stamp, region)
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = f"{_ALGORITHM}\n{stamp}\n{scope}\n{digest}"
    return scope, _hmac(_signing_key(secret, stamp[:8], region), text).hex()


@functools.lru_cache(maxsize=4)
def _signing_key(secret: str, day: str, region: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (day, region, "s3", "aws4_request"):
        key = _hmac(key, part)
    return key


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")
