"""Files in a real S3: what is written is read, and what is not allowed is refused by the server."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import pytest

from customedit.config.settings import Settings
from customedit.storage import object_keys
from customedit.storage.store import BROKEN_UPLOAD_DAYS, MissingObject, Storage, StorageError

from .. import web

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4


def changed(settings: Settings, **fields: object) -> Settings:
    return settings.model_copy(update=fields)


def test_bytes_come_back_with_type_and_metadata(storage: Storage) -> None:
    before = time.time()
    storage.put("a/pic", PNG, "image/png", {"width": "16"})
    assert storage.get("a/pic") == PNG
    stored = storage.head("a/pic")
    assert (stored.key, stored.bytes, stored.media_type) == ("a/pic", len(PNG), "image/png")
    assert stored.metadata == {"width": "16"} and len(stored.etag) == 32
    assert abs(stored.modified - before) < 600


@pytest.mark.parametrize("key", ["a b", "ü/ö", "a+b", "a%2Fb", "a?b#c", "a/b'c"])
def test_any_key_is_one_key(storage: Storage, key: str) -> None:
    storage.put(key, b"1")
    assert storage.get(key) == b"1"
    assert [stored.key for stored in storage.list("")] == [key]
    assert web.get(storage.presign_get(key)).content == b"1"


def test_files_go_up_in_parts_and_come_down_whole(storage: Storage, tmp_path: Path) -> None:
    up, down = tmp_path / "up", tmp_path / "down"
    up.write_bytes(PNG * 9000)  # 9 MiB: more than one part
    storage.put("a/big", up, "application/x-safetensors", {"n": "1"})
    assert storage.download("a/big", down) == down
    assert down.read_bytes() == up.read_bytes()
    assert storage.head("a/big").media_type == "application/x-safetensors"
    assert storage.head("a/big").metadata == {"n": "1"}


def test_empty_objects_and_overwriting(storage: Storage) -> None:
    storage.put("a", b"")
    assert storage.get("a") == b""
    storage.put("a", b"second")
    assert storage.get("a") == b"second"


def test_what_is_missing_is_said(storage: Storage, tmp_path: Path) -> None:
    asks: list[Callable[[], object]] = [
        lambda: storage.get("no"),
        lambda: storage.head("no"),
        lambda: storage.download("no", tmp_path / "no"),
        lambda: storage.copy("no", "other"),
    ]
    for ask in asks:
        with pytest.raises(MissingObject) as caught:
            ask()
        assert caught.value.key == "no" and not caught.value.transient
    assert not storage.exists("no") and list(tmp_path.iterdir()) == []
    storage.delete("no")


def test_a_larger_object_than_asked_for_is_not_read(storage: Storage) -> None:
    storage.put("a", b"12345")
    assert storage.get("a", max_bytes=5) == b"12345"
    with pytest.raises(StorageError, match="5 bytes; at most 4"):
        storage.get("a", max_bytes=4)


def test_copies_keep_type_and_metadata(storage: Storage) -> None:
    storage.put("tenants/a/uploads/x", PNG, "image/png", {"w": "1"})
    storage.copy("tenants/a/uploads/x", "tenants/a/images/y")
    stored = storage.head("tenants/a/images/y")
    assert (stored.bytes, stored.media_type, stored.metadata) == (len(PNG), "image/png", {"w": "1"})


def test_a_prefix_goes_whole_and_nothing_beside_it(storage: Storage) -> None:
    def put_some(n: int) -> None:
        for i in range(135):
            storage.put(f"jobs/1/{n}/{i:03}", b"")

    threads = [threading.Thread(target=put_some, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    storage.put("jobs/10/x", b"stays")
    keys = [stored.key for stored in storage.list("jobs/1/")]
    assert len(keys) == 8 * 135 and keys == sorted(keys)  # more than S3 lists or deletes at once
    assert storage.delete_prefix("jobs/1/") == 8 * 135
    assert [stored.key for stored in storage.list("jobs/")] == ["jobs/10/x"]
    assert storage.delete_prefix("jobs/1/") == 0
    with pytest.raises(ValueError, match="slash"):
        storage.delete_prefix("jobs/1")


def test_prefixes_keep_services_apart(storage: Storage, settings: Settings) -> None:
    storage.put("a", b"mine")
    other = Storage(changed(settings, s3_prefix=f"other-{settings.s3_prefix}"))
    assert list(other.list("")) == [] and not other.exists("a")


def test_a_bucket_is_made_once_by_many(settings: Settings) -> None:
    name = f"new-{settings.namespace}"
    errors: list[Exception] = []

    def make() -> None:
        try:
            Storage(changed(settings, s3_bucket=name)).bucket()
        except StorageError as error:
            errors.append(error)

    assert not Storage(changed(settings, s3_bucket=name)).reachable()
    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [] and Storage(changed(settings, s3_bucket=name)).reachable()


# What goes wrong


def test_nobody_listens(settings: Settings) -> None:
    storage = Storage(changed(settings, s3_endpoint="http://127.0.0.1:1"))
    with pytest.raises(StorageError) as caught:
        storage.get("a")
    assert caught.value.transient and not storage.reachable()


def test_an_answer_that_breaks_off_may_be_asked_for_again(
    settings: Settings, tmp_path: Path
) -> None:
    def half_an_answer(server: socket.socket) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.recv(65_536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=half_an_answer, args=(server,), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        storage = Storage(changed(settings, s3_endpoint=url))
        with pytest.raises(StorageError) as caught:
            storage.get("a")
        assert caught.value.transient
        server.shutdown(socket.SHUT_RDWR)


def test_wrong_credentials_are_refused_and_not_told(
    storage: Storage, settings: Settings, tmp_path: Path
) -> None:
    storage.put("a", b"1")
    (file := tmp_path / "f").write_bytes(b"2")
    wrong = Settings(**(settings.model_dump() | {"s3_secret_key": "wrongsecret"}))
    stranger = Storage(wrong)
    asks: list[Callable[[], object]] = [
        lambda: stranger.get("a"),
        lambda: stranger.put("b", b""),
        lambda: stranger.put("b", file),
        lambda: stranger.download("a", tmp_path / "a"),
        lambda: list(stranger.list("")),
        lambda: stranger.delete("a"),
        stranger.bucket,
    ]
    for ask in asks:
        with pytest.raises(StorageError) as caught:
            ask()
        assert not caught.value.transient and "wrongsecret" not in str(caught.value)
    assert not storage.exists("b")


def test_without_credentials_nothing_is_answered(storage: Storage, settings: Settings) -> None:
    storage.put("a", b"1")
    bare = f"{settings.s3_endpoint}/{settings.s3_bucket}/{settings.s3_prefix}a"
    assert web.get(bare).status_code == 403
    assert web.get(f"{settings.s3_endpoint}/").status_code == 403
    assert web.put(bare, content=b"2").status_code == 403
    assert web.delete(bare).status_code == 403
    assert storage.get("a") == b"1"


# Presigned reads


def test_a_presigned_address_reads_one_object(storage: Storage) -> None:
    storage.put("a", PNG, "image/png")
    answer = web.get(storage.presign_get("a"))
    assert answer.status_code == 200 and answer.content == PNG
    assert answer.headers["content-type"] == "image/png"
    url = storage.presign_get("a", 'my "look"\r\nSet-Cookie: x=1.png', "application/octet-stream")
    answer = web.get(url)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith('attachment; filename="my _look_')
    assert "set-cookie" not in answer.headers


def tampered(url: str, **fields: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(query=urlencode(dict(parse_qsl(parts.query)) | fields)))


def test_changed_addresses_are_refused(storage: Storage) -> None:
    storage.put("a", PNG)
    storage.put("b", b"secret")
    url = storage.presign_get("a", "a.png")
    path = urlsplit(url).path
    signature = dict(parse_qsl(urlsplit(url).query))["X-Amz-Signature"]
    for wrong in (
        url.replace(path, path[:-1] + "b"),
        tampered(url, **{"X-Amz-Expires": "604800"}),
        tampered(url, **{"X-Amz-Date": "20990101T000000Z"}),
        tampered(
            url, **{"X-Amz-Signature": signature[:-1] + ("0" if signature[-1] != "0" else "1")}
        ),
        tampered(url, **{"X-Amz-Signature": ""}),
        tampered(url, **{"response-content-disposition": "inline"}),
        tampered(url, **{"response-content-type": "text/html"}),
        url.split("?")[0],
    ):
        answer = web.get(wrong)
        assert answer.status_code in (400, 403), wrong
        assert PNG not in answer.content and b"secret" not in answer.content
    assert web.put(url, content=b"x").status_code == 403
    assert web.delete(url).status_code == 403
    assert storage.get("a") == PNG


def test_expired_addresses_are_refused(storage: Storage, settings: Settings) -> None:
    storage.put("a", PNG)
    url = Storage(changed(settings, presign_seconds=1)).presign_get("a")
    until = time.monotonic() + 60
    while (status := web.get(url).status_code) == 200 and time.monotonic() < until:
        time.sleep(0.2)
    assert status == 403


def test_clients_are_given_the_public_endpoint(settings: Settings) -> None:
    public = Storage(changed(settings, s3_public_endpoint="https://files.example:8443"))
    assert public.presign_get("a").startswith("https://files.example:8443/")
    assert public.presign_post("a", "image/png", 9)["url"].startswith("https://files.example:8443/")


# Presigned uploads

KEY = object_keys.upload("acme", "upl_1")


def send(storage: Storage, data: bytes = PNG, **fields: str) -> int:
    form = storage.presign_post(KEY, "image/png", 2000)
    file = {"file": ("pic.png", data, "image/png")}
    return web.post(form["url"], data=form["fields"] | fields, files=file).status_code


def test_a_presigned_form_writes_one_object(storage: Storage) -> None:
    assert send(storage) == 204
    assert storage.get(KEY) == PNG and storage.head(KEY).media_type == "image/png"
    assert send(storage, b"x" * 2000) == 204
    assert storage.head(KEY).bytes == 2000


@pytest.mark.parametrize("size", [0, 2001, 5_000_000])
def test_uploads_of_a_wrong_size_are_refused(storage: Storage, size: int) -> None:
    assert send(storage, b"x" * size) in (400, 403, 413)
    assert list(storage.list("")) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"key": "tenants/other/uploads/upl_1"},
        {"key": KEY},  # without the prefix
        {"Content-Type": "text/html"},
        {"Content-Type": ""},
        {"x-amz-signature": "0" * 64},
        {"x-amz-credential": "AKIA/20260101/us-east-1/s3/aws4_request"},
        {"x-amz-meta-owner": "me"},
        {"policy": "e30="},
    ],
    ids=lambda fields: "-".join(fields),
)
def test_changed_forms_are_refused(storage: Storage, fields: dict[str, str]) -> None:
    assert send(storage, PNG, **fields) in (400, 403)
    assert list(storage.list("")) == []


def test_an_upload_cannot_make_itself_public(storage: Storage, settings: Settings) -> None:
    # SeaweedFS takes an acl that the policy does not name, where Amazon refuses it.
    send(storage, acl="public-read")
    bare = f"{settings.s3_endpoint}/{settings.s3_bucket}/{settings.s3_prefix}{KEY}"
    assert web.get(bare).status_code in (403, 404)


def test_forms_without_a_signature_are_refused(storage: Storage) -> None:
    form = storage.presign_post(KEY, "image/png", 2000)
    for left_out in ("policy", "x-amz-signature", "x-amz-credential", "Content-Type"):
        fields = {name: value for name, value in form["fields"].items() if name != left_out}
        answer = web.post(form["url"], data=fields, files={"file": ("a", PNG, "image/png")})
        assert answer.status_code in (400, 403), left_out
    assert list(storage.list("")) == []


def test_a_widened_policy_is_refused(storage: Storage) -> None:
    import base64

    form = storage.presign_post(KEY, "image/png", 2000)
    policy = json.loads(base64.b64decode(form["fields"]["policy"]))
    policy["conditions"] = [
        c if c[:1] != ["content-length-range"] else ["content-length-range", 0, 10**9]
        for c in policy["conditions"]
        if isinstance(c, list)
    ] + [c for c in policy["conditions"] if isinstance(c, dict)]
    wide = base64.b64encode(json.dumps(policy).encode()).decode()
    assert send(storage, b"x" * 3000, policy=wide) == 403
    assert list(storage.list("")) == []


def test_expired_forms_are_refused(storage: Storage, settings: Settings) -> None:
    form = Storage(changed(settings, presign_seconds=1)).presign_post(KEY, "image/png", 2000)
    until = time.monotonic() + 60
    status = 204
    while status == 204 and time.monotonic() < until:
        time.sleep(0.2)
        file = {"file": ("a", PNG, "image/png")}
        status = web.post(form["url"], data=form["fields"], files=file).status_code
    assert status == 403


# Where things lie


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../b", "a/b", "a\\b", "a\n", ".hidden", "x" * 201]
)
def test_no_name_climbs_out_of_its_tenant(name: str) -> None:
    keys: list[Callable[[], str]] = [
        lambda: object_keys.tenant(name),
        lambda: object_keys.image("a", name, "1"),
        lambda: object_keys.image("a", "img_1", name),
        lambda: object_keys.job("a", name),
        lambda: object_keys.concept("a", name, "weights.safetensors"),
        lambda: object_keys.attempt(name, "job_1", 1, "result.json"),
        lambda: object_keys.upload("a", name),
        lambda: object_keys.inversion("a", name, "1"),
        lambda: object_keys.api_key(name),
    ]
    for key in keys:
        with pytest.raises(ValueError, match="cannot be part of a key"):
            key()


def test_all_that_a_tenant_has_is_in_one_folder() -> None:
    folder = "tenants/acme/"
    assert object_keys.tenant("acme") == folder
    assert object_keys.image("acme", "img_1", "9", "picture") == f"{folder}images/img_1/9/picture"
    assert object_keys.inversion("acme", "img_1") == f"{folder}inversions/img_1/"
    assert object_keys.given("acme", "job_1") == f"{folder}jobs/job_1/given"
    assert object_keys.job("acme", "job_1", "request.json") == f"{folder}jobs/job_1/request.json"
    assert (
        object_keys.attempt("acme", "job_1", 2, "0.png") == f"{folder}jobs/job_1/attempts/2/0.png"
    )
    assert object_keys.attempts("acme", "job_1") == f"{folder}jobs/job_1/attempts/"
    assert object_keys.checkpoint("acme", "job_1", "9.pt") == f"{folder}jobs/job_1/checkpoints/9.pt"
    assert object_keys.concept("acme", "con_1") == f"{folder}concepts/con_1/"


@pytest.mark.parametrize(
    ("key", "owner"),
    [
        ("jobs/job_1/attempts/1/0.png", ("jobs/job_1/", "job", "job_1")),
        ("concepts/con_1/concept.json", ("concepts/con_1/", "concept", "con_1")),
        (
            f"images/img_{'0' * 64}/9/picture",
            (f"images/img_{'0' * 64}/9/", "image", f"img_{'0' * 64}"),
        ),
        ("uploads/upl_1", None),
        ("inversions/img_1/2.safetensors", None),
        ("webhook-secret.json", None),
    ],
)
def test_folders_tell_who_owns_them(key: str, owner: tuple[str, str, str] | None) -> None:
    found = object_keys.folder_of(f"tenants/acme/{key}")
    if owner is None:
        assert found is None
    else:
        assert found == object_keys.Folder(f"tenants/acme/{owner[0]}", "acme", *owner[1:])


def test_broken_uploads_are_removed_by_a_rule_and_by_us(storage: Storage) -> None:
    """The rule stands beside those of others, and asking for it again changes nothing."""
    client, bucket = storage._client, {"Bucket": storage.bucket_name}
    storage.bucket()
    storage.bucket()
    rules = client.get_bucket_lifecycle_configuration(**bucket)["Rules"]
    (ours,) = [r for r in rules if r["Filter"].get("Prefix") == storage.settings.s3_prefix]
    assert ours["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": BROKEN_UPLOAD_DAYS}
    assert ours["Status"] == "Enabled"

    key = storage.settings.s3_prefix + "tenants/a/big"
    upload = client.create_multipart_upload(**bucket, Key=key)["UploadId"]
    client.upload_part(**bucket, Key=key, UploadId=upload, PartNumber=1, Body=b"x" * 5_242_880)
    assert storage.abort_broken_uploads(time.time() - 3600) == 0
    assert storage.abort_broken_uploads(time.time() + 3600) == 1
    assert storage.abort_broken_uploads(time.time() + 3600) == 0


def test_failed_calls_are_counted_and_missing_objects_are_none(
    storage: Storage, settings: Settings
) -> None:
    failed: list[int] = []
    storage.on_error = lambda: failed.append(1)
    assert storage.writable() and not storage.exists("nothing") and failed == []
    nobody = Storage(settings.model_copy(update={"s3_endpoint": "http://127.0.0.1:9"}))
    nobody.on_error = lambda: failed.append(1)
    assert not nobody.writable() and failed == [1]
