"""What is signed here is signed as botocore signs; small objects are written so, or by boto3."""

from __future__ import annotations

from datetime import UTC, datetime
from http.client import BadStatusLine
from typing import Any
from unittest import mock
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
from botocore import auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from customedit.storage.signing import LARGEST, BucketSigner, presigned_query, signed_headers
from customedit.storage.store import Storage, StorageError

AT = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)


@pytest.mark.parametrize("token", [None, "a-token/+="])
@pytest.mark.parametrize("key", ["a/b.json", "ü b+c%2F?d#e'f", "x~y-z_1"])
@pytest.mark.parametrize("body", [b"", b'{"a": 1}'])
def test_the_signature_is_botocores(key: str, body: bytes, token: str | None) -> None:
    credentials = Credentials("access", "secret", token)
    path = "/bucket/" + quote(key, safe="/-_.~")
    headers = {"content-type": "application/json", "x-amz-meta-epoch": "two  words"}
    given = headers | ({"x-amz-security-token": token} if token else {})
    ours = signed_headers(
        "PUT", "s3.test:8333", path, given, body,
        access="access", secret="secret", region="eu-central-1", at=AT,
    )  # fmt: skip
    request = AWSRequest("PUT", f"http://s3.test:8333{path}", dict(headers), body)
    with mock.patch.object(auth, "get_current_datetime", lambda **_: AT.replace(tzinfo=None)):
        auth.S3SigV4Auth(credentials, "s3", "eu-central-1").add_auth(request)
    assert ours["authorization"] == request.headers["Authorization"]


@pytest.mark.parametrize("token", [None, "a-token/+="])
@pytest.mark.parametrize("key", ["a/b.png", "ü b+c%2F?d#e'f"])
@pytest.mark.parametrize(
    "parameters",
    [{}, {"response-content-disposition": 'attachment; filename="a b~.png"',
          "response-content-type": "image/png"}],
)  # fmt: skip
def test_presigned_addresses_are_botocores(
    key: str, parameters: dict[str, str], token: str | None
) -> None:
    credentials = Credentials("access/+", "secret", token)
    path = "/bucket/" + quote(key, safe="/-_.~")
    ours = presigned_query(
        "GET", "s3.test:8333", path, parameters, 900,
        access="access/+", secret="secret", token=token, region="eu-central-1", at=AT,
    )  # fmt: skip
    given = "&".join(f"{k}={quote(v, safe='-_.~')}" for k, v in sorted(parameters.items()))
    request = AWSRequest("GET", f"http://s3.test:8333{path}?{given}", {})
    with mock.patch.object(auth, "get_current_datetime", lambda **_: AT.replace(tzinfo=None)):
        auth.S3SigV4QueryAuth(credentials, "s3", "eu-central-1", expires=900).add_auth(request)
    theirs = dict(parse_qsl(urlsplit(request.url).query))
    assert dict(parse_qsl(ours)) == theirs


class Answers:
    """Instead of S3: gives these statuses by turns, or raises them, and counts the requests."""

    def __init__(self, *given: int | Exception) -> None:
        self.given, self.count = list(given), 0

    def send(self, *_: Any) -> int:
        self.count += 1
        answer = self.given.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def puts(storage: Storage, answers: Answers) -> BucketSigner:
    small = storage._signer
    small.__dict__["_connections"] = answers
    return small


def test_what_fails_is_done_again_by_boto3(storage: Storage) -> None:
    answers = Answers(500, 403, ConnectionRefusedError(), BadStatusLine("?"), 200)
    puts(storage, answers)
    for number in range(4):
        storage.put(f"a/{number}", b"1", "text/plain", {"n": str(number)})
        stored = storage.head(f"a/{number}")
        assert (stored.media_type, stored.metadata) == ("text/plain", {"n": str(number)})
    storage.put("a/4", b"1")
    assert answers.count == 5 and not storage.exists("a/4")  # these answers stood for a store


def test_a_store_that_takes_no_such_request_is_asked_once(storage: Storage) -> None:
    answers = Answers(301)
    puts(storage, answers)
    for number in range(3):
        storage.put(f"a/{number}", b"1")
    assert answers.count == 1 and storage.get("a/2") == b"1"


def test_what_goes_through_a_proxy_is_boto3s(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = Storage(storage.settings)._signer
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert small.put("a", b"1", "text/plain", {}) is False
    monkeypatch.delenv("HTTP_PROXY")
    assert Storage(storage.settings)._signer.put("a", b"1", "text/plain", {}) is True


def test_large_objects_are_boto3s(storage: Storage) -> None:
    answers = Answers()
    puts(storage, answers)
    storage.put("a", bytes(LARGEST + 1))
    assert answers.count == 0 and storage.head("a").bytes == LARGEST + 1


def test_a_bucket_that_is_not_there_is_said_as_before(storage: Storage) -> None:
    changed = storage.settings.model_copy(update={"s3_bucket": "not-there-at-all"})
    with pytest.raises(StorageError):
        Storage(changed).put("a", b"1")
