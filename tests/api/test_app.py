"""The app as a whole: headers, errors, pages of problems, what it imports, how it is served."""

from __future__ import annotations

import ast
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError
from redis import Redis
from redis.exceptions import ConnectionError

from api import problem_types
from customedit.config.settings import Settings
from customedit.jobs import notifications
from customedit.jobs.store import Jobs
from customedit.storage.store import Storage

from .. import web
from .conftest import Running, edit, png, upload, wait_for

ROOT = Path(__file__).parents[2]
OPERATIONS = """
uploadImage createUpload completeUpload listImages getImage deleteImage
createConcept importConcept listConcepts getConcept getConceptWeights deleteConcept
createEdit listEdits getEdit listJobs getJob cancelJob deleteJob watchJob editImage
createBatch listBatches getBatch cancelBatch deleteBatch
readPrompts savePreset listPresets getPreset deletePreset getImageFile getMaskFile
getLimits listKeys makeKey revokeKey getWebhookSecret makeWebhookSecret listDeliveries getDelivery
getHealth getReadiness getMetrics getProblemType
"""


def test_importing_the_front_end_imports_no_torch() -> None:
    code = (
        "import sys, api, api.app, api.main, customedit.client\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'scipy', 'worker'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    alone = code.replace("api, api.app, api.main, ", "").replace("'worker'", "'fastapi', 'redis'")
    subprocess.run([sys.executable, "-c", alone], check=True, cwd=ROOT)


def test_every_answer_has_the_headers_of_a_careful_server(api: Running, anna: httpx.Client) -> None:
    answers = [
        anna.get("/v1/jobs"),
        anna.get("/v1/nowhere"),
        anna.put("/v1/jobs"),
        web.get(f"{api.url}/v1/jobs"),
        web.get(f"{api.url}/healthz"),
        web.get(f"{api.url}/openapi.json"),
        web.get(f"{api.url}/nowhere"),
    ]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-request-id"]
        assert "server" not in answer.headers
        if answer.is_error:
            assert answer.headers["content-type"] == "application/problem+json"
    assert answers[2].status_code == 405 and "GET" in answers[2].headers["allow"]
    assert answers[2].json()["type"] == "/problems/method-not-allowed"
    assert answers[1].json()["type"] == answers[6].json()["type"] == "/problems/not-found"


def test_pages_of_other_origins_are_kept_out(api: Running, anna: httpx.Client) -> None:
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    for answer in (anna.options("/v1/edits", headers=asked), anna.get("/v1/jobs", headers=asked)):
        assert not [h for h in answer.headers if h.startswith("access-control-")]


def test_request_ids_are_the_callers_if_they_are_plain(anna: httpx.Client) -> None:
    own = anna.get("/v1/nowhere", headers={"X-Request-Id": "my-id.1"})
    assert own.headers["x-request-id"] == own.json()["request_id"] == "my-id.1"
    odd = anna.get("/v1/nowhere", headers={"X-Request-Id": "x" * 65})
    assert re.fullmatch("[0-9a-f]{16}", odd.headers["x-request-id"])


def test_what_nobody_foresaw_is_logged_and_not_told(
    api: Running,
    anna: httpx.Client,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("the secret of /srv/code.py")

    monkeypatch.setattr(api.container.jobs, "list", broken)
    with caplog.at_level(logging.INFO):
        answer = anna.get("/v1/jobs")
        # the log is written after the answer
        logged = wait_for(lambda: [r for r in caplog.records if r.exc_info])
    assert answer.status_code == 500
    assert answer.json()["type"] == "/problems/internal"
    assert "secret" not in answer.text and "Traceback" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert {r.exc_info[0] for r in logged if r.exc_info} == {ZeroDivisionError}
    assert {getattr(r, "request_id", None) for r in logged} == {answer.json()["request_id"]}


def test_a_redis_that_is_away_is_told(
    api: Running, anna: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise ConnectionError("redis://user:password@host")

    for target, name in [(api.container.jobs, "list"), (api.container.limits, "admit")]:
        with monkeypatch.context() as patch:
            patch.setattr(target, name, away)
            answer = anna.get("/v1/jobs")
        assert answer.status_code == 503 and answer.headers["retry-after"]
        assert answer.json()["type"] == "/problems/unavailable"
        assert "password" not in answer.text
    text = web.get(f"{api.url}/metrics").text
    assert 'customedit_store_errors_total{store="redis"} 2.0' in text


def test_a_notification_that_cannot_be_sent_fails_no_request(
    api: Running, anna: httpx.Client, jobs: Jobs, redis_client: Redis
) -> None:
    queue = notifications.queue(api.settings, "edit")
    redis_client.set(queue, "no list")
    first = edit(anna)
    assert first["state"] == "queued"
    words = {"source_prompt": "a cup", "target_prompt": "a red cup"}
    body = {"images": [first["request"]["image"]], **words}
    assert anna.post("/v1/batches", json=body).status_code == 202
    assert "customedit_notifications_failed_total 2.0" in web.get(f"{api.url}/metrics").text
    assert jobs.claim(first["id"], "a worker that looks by itself") is not None


def test_health(api: Running, start: Callable[..., Running], settings: Settings) -> None:
    assert web.get(f"{api.url}/healthz").json()["status"] == "ok"
    ready = web.get(f"{api.url}/readyz")
    assert ready.status_code == 200
    assert ready.json()["checks"] == {"redis": "ok", "storage": "ok"}
    assert ready.json()["warnings"] == {}
    broken = start(settings, s3_bucket="not-there-at-all")
    unready = web.get(f"{broken.url}/readyz")
    assert unready.status_code == 503 and unready.json()["checks"]["storage"] != "ok"
    assert unready.json()["checks"]["redis"] == "ok"
    assert web.get(f"{broken.url}/healthz").status_code == 200


def test_a_bucket_that_takes_no_writes_is_told_and_takes_no_process_out(
    api: Running, anna: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk serves reads still, and no other process would serve the writes."""
    refused = ClientError({"Error": {"Code": "InternalError"}}, "PutObject")

    def full(**_: object) -> None:
        raise refused

    image = upload(anna)
    with monkeypatch.context() as patch:
        patch.setattr(api.container.storage._signer, "put", lambda *_: False)
        patch.setattr(api.container.storage._client, "put_object", full)
        api.container.watch.measure()
        ready = web.get(f"{api.url}/readyz")
        assert ready.status_code == 200 and ready.json()["checks"]["storage"] == "ok"
        assert "takes no writes" in ready.json()["warnings"]["storage"]
        text = web.get(f"{api.url}/metrics").text
        assert "customedit_storage_writable 0.0" in text
        assert re.search(r'customedit_store_errors_total{store="s3"} [1-9]', text)
        assert anna.get(f"/v1/images/{image}").status_code == 200
    api.container.watch.measure()
    assert web.get(f"{api.url}/readyz").json()["warnings"] == {}
    assert "customedit_storage_writable 1.0" in web.get(f"{api.url}/metrics").text


def test_figures_count_by_route_and_not_by_id(
    api: Running, anna: httpx.Client, start: Callable[..., Running], settings: Settings
) -> None:
    image = upload(anna)
    anna.get(f"/v1/images/{image}")
    text = web.get(f"{api.url}/metrics").text
    assert 'route="/v1/images/{id}",status="200"} 1.0' in text
    assert image not in text
    quiet = start(settings, api_metrics=False)
    assert web.get(f"{quiet.url}/metrics").status_code == 404


def test_callers_invent_no_metric(api: Running, anna: httpx.Client) -> None:
    """Without a key or with one: methods, paths, versions and headers make no new labels."""
    upload(anna)

    def labels() -> set[str]:
        text = web.get(f"{api.url}/metrics").text
        return {line.rpartition(" ")[0] for line in text.splitlines() if "_created" not in line}

    def invent(word: str) -> None:
        for client in (anna, web.Client(base_url=api.url)):
            for path in ("/healthz", "/v1/images", f"/v1/{word}", f"/{word}", f"/page/{word}"):
                client.request(word, path, headers={word: word})
                client.get(f"{path}?{word}={word}", headers={"X-Request-Id": word})
            client.get(f"/problems/{word}")
            client.get(f"/v1/jobs/{word}", params={"kind": word})

    for word in ("FIRST", "y" * 2000):
        invent(word)
    assert labels() and (known := labels())
    assert 'method="other"' in str(known)
    for word in ("SECOND", "THIRD", "x" * 2000):
        invent(word)
    assert labels() == known


def test_the_access_log_names_tenant_and_request_and_no_secret(
    api: Running, caplog: pytest.LogCaptureFixture
) -> None:
    key = api.key("anna")
    with caplog.at_level(logging.INFO):
        web.get(f"{api.url}/v1/limits", headers={"X-API-Key": key, "X-Request-Id": "r1"})
        (line,) = wait_for(lambda: [r for r in caplog.records if r.name == "api.access"])
    assert (line.tenant, line.request_id, line.status) == ("anna", "r1", 200)
    assert key.split("_")[2] not in str([r.__dict__ for r in caplog.records])


def test_limits(anna: httpx.Client, settings: Settings) -> None:
    edit(anna)
    limits = anna.get("/v1/limits").json()
    assert limits["tenant"] == "anna" and limits["jobs_now"] == 1
    assert limits["jobs_at_once"] == settings.queue_limit_per_tenant
    assert limits["max_upload_bytes"] == settings.max_upload_bytes


def test_the_secret_of_webhooks(api: Running, anna: httpx.Client, storage: Storage) -> None:
    assert anna.get("/v1/webhooks/secret").status_code == 404
    made = anna.post("/v1/webhooks/secret")
    assert made.status_code == 201 and made.json()["secret"].startswith("whsec_")
    seen = anna.get("/v1/webhooks/secret")
    assert "secret" not in {k for k, v in seen.json().items() if v} and seen.json()["created_at"]
    assert anna.post("/v1/webhooks/secret").json()["secret"] != made.json()["secret"]
    assert edit(anna, webhook="https://example.com/hook")["request"]["webhook"]


def test_an_import_waits_with_its_file(anna: httpx.Client, storage: Storage) -> None:
    file = b"\x10\0\0\0\0\0\0\0{" + b" " * 100
    asked: dict[str, Any] = {
        "files": {"file": ("c.safetensors", file)},
        "data": {"token": "<x>", "noun": ""},
    }
    key = {"Idempotency-Key": "once"}
    answer = anna.post("/v1/concepts/import", **asked, headers=key)
    assert answer.status_code == 202
    job = answer.json()
    assert job["kind"] == "import" and "file" not in job["request"]
    assert anna.get(job["links"]["concept"]).json()["token"] == "<x>"
    again = anna.post("/v1/concepts/import", **asked, headers=key)
    assert again.json()["id"] == job["id"]
    asked["files"] = {"file": ("c.safetensors", file + b" ")}
    assert anna.post("/v1/concepts/import", **asked, headers=key).status_code == 422
    files = [s.key for s in storage.list("tenants/") if s.key.endswith("/given")]
    assert files == [f"tenants/anna/jobs/{job['id']}/given"]
    assert storage.get(files[0]) == file
    anna.post(f"/v1/jobs/{job['id']}/cancel")
    anna.delete(f"/v1/jobs/{job['id']}")
    assert not storage.exists(files[0])


def test_problem_types_are_pages_and_documented(api: Running) -> None:
    page = (ROOT / "docs" / "problems.md").read_text("utf-8")
    assert page == problem_types.document(), "run python -m api.problem_types > docs/problems.md"
    for kind in problem_types.TYPES.values():
        answer = web.get(api.url + kind.uri)
        assert answer.status_code == 200 and kind.title in answer.text
    assert web.get(f"{api.url}/problems/none").status_code == 404


def test_every_problem_that_the_code_tells_of_is_in_the_list() -> None:
    told = set()
    for room in (
        "api",
        "worker",
        "customedit/jobs",
        "customedit/schemas",
        "customedit/storage",
        "customedit/tenants",
    ):
        for file in (ROOT / room).rglob("*.py"):
            tree = ast.parse(file.read_text("utf-8"))
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    told |= {(file.name, slug) for slug in _slugs(node)}
    assert {slug for _, slug in told} >= {"validation", "attempts-exhausted", "input-error"}
    unknown = {(name, slug) for name, slug in told if slug not in problem_types.TYPES}
    assert not unknown


def _slugs(call: ast.Call) -> set[str]:
    """Types in ``Refused("...")``, ``refusals("...")`` and ``JobError(type="...")``."""
    name = call.func.id if isinstance(call.func, ast.Name) else ""
    first = call.args if name == "refusals" else call.args[:1] if name == "Refused" else []
    typed = [k.value for k in call.keywords if k.arg == "type"] if name == "JobError" else []
    values = [a.value for a in [*first, *typed] if isinstance(a, ast.Constant)]
    return {v for v in values if isinstance(v, str) and re.fullmatch("[a-z-]+", v)}


def test_operation_ids_are_unique_and_stay() -> None:
    from api.app import create_app

    document = create_app(Settings()).openapi()
    found = [o["operationId"] for path in document["paths"].values() for o in path.values()]
    assert len(found) == len(set(found))
    assert sorted(found) == sorted(OPERATIONS.split())


def test_the_process(settings: Settings, storage: Storage, tmp_path: Path) -> None:
    """``python -m api``: starts, says where, serves, stops on SIGTERM; refuses bad settings."""
    environment = {**os.environ, "CUSTOMEDIT_API_PORT": "0"}
    command = [sys.executable, "-m", "api"]
    log = tmp_path / "log"
    with log.open("w") as out:
        process = subprocess.Popen(command, env=environment, stderr=out, cwd=ROOT)
    try:
        found = wait_for(lambda: re.search(r"listening on (http://[0-9.:]+)", log.read_text()))
        wait_for(lambda: _is_ready(found[1]))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert "uvicorn.access" not in log.read_text()
    finally:
        process.kill()
        process.wait()
    environment["CUSTOMEDIT_API_PORT"] = "no"
    refused = subprocess.run(command, env=environment, capture_output=True, cwd=ROOT, text=True)
    assert refused.returncode == 2 and "CUSTOMEDIT_API_PORT" in refused.stderr
    assert "Traceback" not in refused.stderr


def _is_ready(url: str) -> bool:
    try:
        return web.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def test_many_uploads_at_once(anna: httpx.Client) -> None:
    from concurrent.futures import ThreadPoolExecutor

    data = png("teal", (200, 200))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: anna.post("/v1/images", files={"file": data}), range(16)))
    assert {a.status_code for a in answers} <= {200, 201}
    assert len({a.json()["id"] for a in answers}) == 1
    assert len(anna.get("/v1/images").json()["items"]) == 1
