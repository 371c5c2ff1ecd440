"""Jobs over HTTP: made, replayed, waited for, cancelled, deleted; a worker's part is played."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from pydantic import Field
from redis import Redis
from redis.exceptions import TimeoutError

from api.submission import fingerprint_fields
from customedit.config.settings import Settings
from customedit.jobs import notifications
from customedit.jobs.records import JobError, JobProgress, JobRecord
from customedit.jobs.store import Gone, Idempotency, Jobs
from customedit.schemas import ids
from customedit.schemas.methods import P2POptions
from customedit.schemas.requests import EditRequest
from customedit.storage.store import Storage
from customedit.tenants.catalogue import Concepts

from .. import web
from .conftest import Running, claimed, customize, edit, finish_concept, finish_edit, png, upload


def test_a_job_is_journaled_recorded_and_rung(
    api: Running, anna: httpx.Client, storage: Storage, redis_client: Redis, jobs: Jobs
) -> None:
    image = upload(anna)
    asked = {"image": image, "source_prompt": "a cup", "target_prompt": "a red cup", "seeds": [1]}
    answer = anna.post("/v1/edits", json=asked)
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert int(answer.headers["retry-after"]) >= 1
    assert job["state"] == "queued" and job["kind"] == "edit"
    assert {k: job["request"][k] for k in asked} == asked
    record = jobs.get("anna", job["id"])
    assert record is not None and "steps" in record.left_out and record.request["steps"] == 50
    assert not set(asked) & set(record.left_out)
    assert storage.exists(f"tenants/anna/jobs/{job['id']}/request.json")
    (message,) = redis_client.lrange(notifications.queue(api.settings, "edit"), 0, -1)
    assert job["id"] in _body(str(message))
    assert anna.get(answer.headers["location"]).json()["id"] == job["id"]
    assert anna.get(f"/v1/edits/{job['id']}").json()["id"] == job["id"]


def test_a_submit_asks_redis_for_the_key_and_the_job_alone(
    anna: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The picture's sides are known from the submit before, and the message goes with the job."""
    asked = {"image": upload(anna), "source_prompt": "a cup", "target_prompt": "a red cup"}
    assert anna.post("/v1/edits", json=asked).status_code == 202
    names: list[str] = []
    run: Any = Redis.execute_command

    def noted(self: Redis, *given: Any, **named: Any) -> Any:
        names.append(given[0])
        return run(self, *given, **named)

    monkeypatch.setattr(Redis, "execute_command", noted)
    assert anna.post("/v1/edits", json=asked).status_code == 202
    assert names.count("EVALSHA") >= 2 and not {"HGET", "LPUSH", "HGETALL"} & set(names)


def _body(message: str) -> str:
    import base64
    import json

    return base64.b64decode(json.loads(message)["body"]).decode()


def test_an_edit_to_its_end(anna: httpx.Client, jobs: Jobs, storage: Storage) -> None:
    job = edit(anna)
    finish_edit(jobs, storage, job["id"])
    answer = anna.get(f"/v1/edits/{job['id']}")
    assert "retry-after" not in answer.headers
    done = answer.json()
    assert done["state"] == "succeeded" and done["attempt"] == 1 and done["finished_at"]
    (output,) = done["result"]["outputs"]
    assert output["best"] and output["similarities"]["text"] == 0.3
    assert web.get(output["url"]).content == png("blue")
    assert web.get(done["result"]["sheet_url"]).content == png("blue")
    assert "tenants/" not in str({**done, "result": None})


def test_a_concept_to_its_end_and_an_edit_with_it(
    anna: httpx.Client, jobs: Jobs, concepts: Concepts, storage: Storage
) -> None:
    job = customize(anna, token="<plaid>", name="House")
    assert job["warnings"] and "references" in job["warnings"][0]
    concept = anna.get(job["links"]["concept"]).json()
    assert concept["state"] == "training" and concept["token"] == "<plaid>"
    early = anna.get(f"/v1/concepts/{concept['id']}/weights")
    assert early.status_code == 409 and early.json()["type"] == "/problems/not-ready"
    use = {"concepts": [{"id": concept["id"]}], "target_prompt": "a <plaid> patterned cup"}
    body = {"image": upload(anna), "source_prompt": "a cup", **use}
    assert anna.post("/v1/edits", json=body).json()["type"] == "/problems/not-ready"

    finish_concept(jobs, concepts, storage, job["id"])
    ready = anna.get(f"/v1/concepts/{concept['id']}").json()
    assert ready["state"] == "ready" and ready["ready_at"] and ready["base"] == "mini"
    assert anna.get(f"/v1/jobs/{job['id']}").json()["result"]["concept"] == concept["id"]
    for format, suffix, content in (
        ("customedit", "safetensors", b"weights of a test"),
        ("diffusers", "zip", b"weights for diffusers"),
    ):
        weights = anna.get(f"/v1/concepts/{concept['id']}/weights", params={"format": format})
        assert weights.json()["filename"] == f"plaid-{format}.{suffix}"
        file = web.get(weights.json()["url"])
        assert file.content == content
        assert f'"plaid-{format}.{suffix}"' in file.headers["content-disposition"]
    away = anna.get(f"/v1/concepts/{concept['id']}/weights", params={"redirect": True})
    assert away.status_code == 302 and web.get(away.headers["location"]).is_success

    used = anna.post("/v1/edits", json=body).json()
    kept = anna.delete(f"/v1/concepts/{concept['id']}")
    assert kept.status_code == 409 and used["id"] in kept.json()["detail"]
    for params, found in [
        ({"concept": concept["id"]}, 2),
        ({"kind": "edit"}, 1),
        ({"state": "succeeded"}, 1),
    ]:
        assert len(anna.get("/v1/jobs", params=params).json()["items"]) == found
    anna.post(f"/v1/jobs/{used['id']}/cancel")
    assert anna.delete(f"/v1/concepts/{concept['id']}").status_code == 204
    assert anna.get(f"/v1/concepts/{concept['id']}").status_code == 404
    assert not list(storage.list(f"tenants/anna/concepts/{concept['id']}/"))


@pytest.mark.parametrize(
    ("prompt", "uses", "field", "limit"),
    [
        ("a <other> cup", 1, "target_prompt", "correct the token"),
        ("a <look> cup", 2, "concepts[1].id", "one concept of each token"),
        ("a <look> cup", 0, "target_prompt", "correct the token"),
        ("a <Look> cup", 1, "target_prompt", "<look>"),
        ("a <look> (cup:1.3)", 1, "target_prompt", ""),
        ("a <lora:x:1> cup", 0, "target_prompt", "token"),
        ("a red cup", 1, "concepts[0].id", 'write "<look> patterned cup" in target_prompt'),
    ],
)
def test_tokens_that_do_not_fit(
    anna: httpx.Client, jobs: Jobs, concepts: Concepts, storage: Storage,
    prompt: str, uses: int, field: str, limit: str,
) -> None:  # fmt: skip
    made = []
    for _ in range(uses):
        job = customize(anna)
        finish_concept(jobs, concepts, storage, job["id"])
        made.append({"id": job["concept"]})
    body = {"image": upload(anna), "source_prompt": "a cup", "target_prompt": prompt}
    answer = anna.post("/v1/edits", json={**body, "concepts": made})
    assert answer.status_code == 422 and answer.json()["field"] == field
    assert limit in answer.json()["limit"]


def test_idempotent_requests(anna: httpx.Client, bert: httpx.Client, storage: Storage) -> None:
    body = {"image": upload(anna), "source_prompt": "a cup", "target_prompt": "a red cup"}
    key = {"Idempotency-Key": "k-1"}
    first = anna.post("/v1/edits", json=body, headers=key)
    again = anna.post("/v1/edits", json=body, headers=key)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json() == again.json()
    assert first.headers["location"] == again.headers["location"]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    other = anna.post("/v1/edits", json={**body, "steps": 7}, headers=key)
    assert other.status_code == 422
    assert other.json()["type"] == "/problems/idempotency-conflict"
    assert other.json()["field"] == "Idempotency-Key"
    upload(bert)
    theirs = bert.post("/v1/edits", json=body, headers=key)  # their keys are their own
    assert theirs.status_code == 202 and theirs.json()["id"] != first.json()["id"]
    assert len(anna.get("/v1/jobs").json()["items"]) == 1
    assert len(list(storage.list("tenants/anna/jobs/"))) == 1


class LaterP2P(P2POptions):
    """As a later version may have it."""

    added: float = 0.5


class LaterEdit(EditRequest):
    """Likewise."""

    p2p: LaterP2P | None = None
    added: int = 3
    names: list[str] = Field(default_factory=list)


def test_a_request_repeated_after_an_upgrade_is_the_same_request() -> None:
    def later(body: dict[str, Any]) -> dict[str, Any]:
        return fingerprint_fields(LaterEdit.model_validate(body))

    image = ids.of_image(b"any")
    plain = {"image": image, "source_prompt": "a cup", "target_prompt": "a red cup"}
    for body in (plain, {**plain, "p2p": {"cross_steps": 0.3}, "seeds": [4]}):
        now = fingerprint_fields(EditRequest.model_validate(body))
        assert later(body) == later({**body, "added": 3, "names": [], "method": "p2p"}) == now
        assert later({**body, "added": 4}) != now != later({**body, "steps": 9})


def test_a_key_that_is_in_flight(api: Running, anna: httpx.Client, jobs: Jobs) -> None:
    body = {"image": upload(anna), "source_prompt": "a cup", "target_prompt": "a red cup"}
    request = fingerprint_fields(EditRequest.model_validate(body))
    held = Idempotency.of("key", ["edit", request, ""])
    assert jobs.reserve("anna", held) is None
    answer = anna.post("/v1/edits", json=body, headers={"Idempotency-Key": "key"})
    assert answer.status_code == 409 and answer.headers["retry-after"]
    assert answer.json()["type"] == "/problems/idempotency-in-flight"
    jobs.release("anna", held)
    again = anna.post("/v1/edits", json=body, headers={"Idempotency-Key": "key"})
    assert again.status_code == 202


def test_a_refused_request_does_not_use_up_its_key(anna: httpx.Client) -> None:
    image = upload(anna)
    unknown = "img_" + "0" * 64
    key = {"Idempotency-Key": "once"}
    body = {"image": unknown, "source_prompt": "a cup", "target_prompt": "a red cup"}
    assert anna.post("/v1/edits", json=body, headers=key).status_code == 409
    body["image"] = image
    assert anna.post("/v1/edits", json=body, headers=key).status_code == 202


def test_many_at_once_with_one_key_make_one_job(anna: httpx.Client, storage: Storage) -> None:
    body = {"image": upload(anna), "source_prompt": "a cup", "target_prompt": "a red cup"}

    def ask(_: int) -> httpx.Response:
        return anna.post("/v1/edits", json=body, headers={"Idempotency-Key": "same"})

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(24)))
    assert {a.status_code for a in answers} <= {202, 409}
    assert len({a.json()["id"] for a in answers if a.status_code == 202}) == 1
    assert len(anna.get("/v1/jobs").json()["items"]) == 1
    assert len({k.key.split("/")[3] for k in storage.list("tenants/anna/jobs/")}) == 1


def test_a_full_queue_leaves_nothing(
    start: Callable[..., Running], settings: Settings, storage: Storage
) -> None:
    anna = start(settings, queue_limit_per_tenant=2).client()
    jobs = [edit(anna), customize(anna)]
    before = sorted(k.key for k in storage.list("tenants/"))
    body = {"references": jobs[1]["request"]["references"], "noun": "cup"}
    answer = anna.post("/v1/concepts", json=body)
    assert answer.status_code == 429 and answer.headers["retry-after"]
    assert answer.json()["type"] == "/problems/queue-full" and answer.json()["limit"][0] == "2"
    assert sorted(k.key for k in storage.list("tenants/")) == before
    assert len(anna.get("/v1/concepts").json()["items"]) == 1
    anna.post(f"/v1/jobs/{jobs[0]['id']}/cancel")
    assert anna.post("/v1/concepts", json=body).status_code == 202


def test_preferring_to_wait(anna: httpx.Client, jobs: Jobs, storage: Storage) -> None:
    body = {"image": upload(anna), "source_prompt": "a cup", "target_prompt": "a red cup"}
    short = anna.post("/v1/edits", json=body, headers={"Prefer": "respond-async, wait=1"})
    assert short.status_code == 202 and short.headers["preference-applied"] == "wait=1"
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(anna.post, "/v1/edits", json=body, headers={"Prefer": "wait=30"})
        while len(found := anna.get("/v1/jobs").json()["items"]) < 2:
            time.sleep(0.02)
        finish_edit(jobs, storage, found[0]["id"])
        done = waiting.result(20)
    assert done.status_code == 200 and done.json()["state"] == "succeeded"
    assert done.headers["location"] == f"/v1/jobs/{done.json()['id']}"
    with ThreadPoolExecutor(1) as pool:
        path = f"/v1/jobs/{short.json()['id']}"
        waiting = pool.submit(anna.get, path, headers={"Prefer": "wait=30"})
        jobs.cancel("anna", short.json()["id"])
        assert waiting.result(20).json()["state"] == "cancelled"


def test_cancelling(anna: httpx.Client, jobs: Jobs) -> None:
    queued, running = edit(anna), edit(anna, seeds=[1])
    claim = claimed(jobs, running["id"])
    assert anna.post(f"/v1/jobs/{queued['id']}/cancel").json()["state"] == "cancelled"
    asked = anna.post(f"/v1/jobs/{running['id']}/cancel").json()
    assert asked["state"] == "running" and asked["cancel_requested"]
    assert jobs.renew(claim) == "cancel"
    assert jobs.cancelled(claim)
    assert anna.post(f"/v1/jobs/{running['id']}/cancel").json()["state"] == "cancelled"


def test_deleting_a_job(anna: httpx.Client, jobs: Jobs, storage: Storage) -> None:
    job = edit(anna)
    early = anna.delete(f"/v1/jobs/{job['id']}")
    assert early.status_code == 409 and early.json()["type"] == "/problems/not-finished"
    finish_edit(jobs, storage, job["id"])
    url = anna.get(f"/v1/jobs/{job['id']}").json()["result"]["outputs"][0]["url"]
    assert anna.delete(f"/v1/jobs/{job['id']}").status_code == 204
    assert anna.get(f"/v1/jobs/{job['id']}").status_code == 404
    assert web.get(url).status_code == 404
    assert not list(storage.list(f"tenants/anna/jobs/{job['id']}/"))


def test_what_a_worker_finds_out_is_told_while_the_job_runs(
    anna: httpx.Client, jobs: Jobs, storage: Storage
) -> None:
    job = edit(anna)
    claim = claimed(jobs, job["id"])
    warning = "2 of 3 references said to show 'lamp' look like 'cup'"
    jobs.progress(claim, JobProgress(phase="train", step=1, steps=9, warnings=[warning]))
    told = anna.get(f"/v1/jobs/{job['id']}").json()
    assert told["warnings"] == [warning] and told["progress"]["warnings"] == [warning]
    (event,) = [e for e in jobs.events("anna", job["id"]) if e.kind == "progress"]
    assert event.data["warnings"] == [warning]
    jobs.hand_back(claim)
    finish_edit(jobs, storage, job["id"])
    assert anna.get(f"/v1/jobs/{job['id']}").json()["warnings"] == []  # the result tells its own


def test_a_failed_job_tells_why(anna: httpx.Client, jobs: Jobs) -> None:
    job = edit(anna)
    claim = claimed(jobs, job["id"])
    jobs.progress(claim, JobProgress(phase="invert", step=3, steps=50, eta_s=2.5))
    progress = anna.get(f"/v1/jobs/{job['id']}").json()["progress"]
    assert (progress["phase"], progress["step"], progress["eta_s"]) == ("invert", 3, 2.5)
    jobs.fail(claim, JobError(type="input-error", title="No", detail="why", field="p2p.words"))
    failed = anna.get(f"/v1/jobs/{job['id']}").json()
    assert failed["state"] == "failed" and failed["error"]["field"] == "p2p.words"
    assert failed["error"]["type"] == "/problems/input-error"


def test_pages_of_jobs_by_state(anna: httpx.Client, jobs: Jobs) -> None:
    made = [edit(anna, seeds=[n])["id"] for n in range(5)]
    jobs.cancel("anna", made[1])
    first = anna.get("/v1/edits", params={"state": "queued", "limit": 2}).json()
    edit(anna, seeds=[9])
    rest = anna.get(
        "/v1/edits", params={"state": "queued", "limit": 2, "cursor": first["next_cursor"]}
    ).json()
    found = [item["id"] for item in first["items"] + rest["items"]]
    assert found == [made[4], made[3], made[2], made[0]]
    assert rest["next_cursor"] is None


def test_requests_go_on_while_others_wait(anna: httpx.Client) -> None:
    """Waiting must not take the threads that serve: more wait than there are threads."""
    job = edit(anna)
    limits = httpx.Limits(max_connections=None)
    path, headers = f"{anna.base_url}/v1/jobs/{job['id']}", {**anna.headers, "Prefer": "wait=50"}
    with web.Client(limits=limits) as many, ThreadPoolExecutor(60) as pool:
        waiting = [pool.submit(many.get, path, headers=headers) for _ in range(60)]
        for _ in range(5):
            assert anna.get("/v1/images").status_code == 200
        assert not any(w.done() for w in waiting)
        anna.post(f"/v1/jobs/{job['id']}/cancel")
        assert {w.result(30).json()["state"] for w in waiting} == {"cancelled"}


def test_a_submit_that_was_given_up_makes_no_job_when_it_comes_late(
    api: Running, anna: httpx.Client, jobs: Jobs, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis stood still, the client was told 503, and then Redis goes on with what it was sent."""
    sent: list[tuple[JobRecord, dict[str, Any]]] = []
    image = upload(anna)

    def lost(self: Jobs, record: JobRecord, **more: object) -> None:
        sent.append((record, more))
        raise TimeoutError

    with monkeypatch.context() as patch:
        patch.setattr(Jobs, "submit", lost)
        body = {"references": [image], "noun": "cup"}
        assert anna.post("/v1/concepts", json=body).status_code == 503
    ((record, more),) = sent
    with pytest.raises(Gone):
        jobs.submit(record, **more)
    assert not anna.get("/v1/jobs").json()["items"]
    assert not anna.get("/v1/concepts").json()["items"]
    api.container.journal.settle(jobs, api.container.concepts)
    assert all("/images/" in stored.key for stored in storage.list("tenants/"))
