"""Edits whose words, seeds or concepts do not fit: told before a job is made."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from redis import Redis

from customedit import mini
from customedit.diffusion.facts import BaseFacts
from customedit.jobs.bases import Bases
from customedit.jobs.records import ConceptRecord
from customedit.mini.text import load_tokenizer
from customedit.schemas import ids
from customedit.storage.store import Storage
from customedit.tenants.catalogue import Concepts

from .conftest import Running, upload

EDIT: dict[str, Any] = {"source_prompt": "a cup", "target_prompt": "a red cup"}


@pytest.mark.parametrize("method", [{}, {"method": "p2p"}])
def test_several_seeds_have_no_effect_on_p2p(anna: httpx.Client, method: dict[str, str]) -> None:
    asked = {**EDIT, "image": upload(anna), **method}
    problem = anna.post("/v1/edits", json={**asked, "seeds": [1, 2]}).json()
    assert (problem["status"], problem["field"]) == (422, "seeds")
    assert "are 2" in problem["detail"] and problem["limit"] == "give one seed, or use sdedit"
    assert anna.post("/v1/edits", json={**asked, "seeds": [1]}).status_code == 202
    drawn = {**asked, "method": "sdedit", "seeds": [1, 2]}
    assert anna.post("/v1/edits", json=drawn).status_code == 202


@pytest.mark.parametrize("path", ["/v1/edits", "/v1/edits?dry_run=true"])
@pytest.mark.parametrize("method", ["p2p", "masactrl"])
def test_a_union_without_words_of_the_target_is_refused_before_a_job_is_made(
    anna: httpx.Client, path: str, method: str
) -> None:
    asked = {**EDIT, "image": upload(anna), "target_prompt": "a jug", "method": method}
    union = {"blend_over": "union"}
    problem = anna.post(path, json={**asked, method: union}).json()
    assert (problem["status"], problem["field"]) == (422, f"{method}.blend_target_words")
    assert "none of the blend words (cup)" in problem["detail"]
    assert problem["limit"].startswith("name the target's words, or read the source's alone")
    named = union | {"blend_target_words": ["jug"]}
    assert anna.post(path, json={**asked, method: named}).is_success
    assert len(anna.get("/v1/jobs").json()["items"]) == ("dry_run" not in path)


@pytest.mark.parametrize(
    ("named", "status"), [("today", 202), ("earlier", 202), ("another", 422), ("", 202)]
)
def test_a_concept_of_another_base(
    api: Running, anna: httpx.Client, concepts: Concepts, storage: Storage, redis_client: Redis,
    named: str, status: int,
) -> None:  # fmt: skip
    facts = BaseFacts.of(
        [load_tokenizer(mini.path() / "tokenizer")], "f1",
        name="mini", concept_fingerprints=("today", "earlier"),
    )  # fmt: skip
    Bases(redis_client, api.settings, storage).publish(facts)
    record = ConceptRecord(
        id=ids.new("con"), tenant="anna", job=ids.new("job"), token="<a>", state="ready",
        created_at=1, base=named, columns={"<a>": 1},
    )  # fmt: skip
    concepts.put(record)
    asked = {**EDIT, "image": upload(anna), "target_prompt": "a <a> cup"}
    answer = anna.post("/v1/edits", json={**asked, "concepts": [{"id": record.id}]})
    assert answer.status_code == status, answer.text
    if status == 422:
        assert answer.json()["field"] == "concepts[0].id"
        assert "was made for the base another, this is today (mini)" in answer.json()["detail"]


class TestLengthOfPrompts:
    """Counted by the facts of the base that a worker published."""

    PROMPT = " ".join(["cup"] * 40)
    LIMIT = "shorten it by 2 tokens or more"

    @pytest.fixture
    def base(self, api: Running, storage: Storage, redis_client: Redis) -> BaseFacts:
        facts = BaseFacts.of([load_tokenizer(mini.path() / "tokenizer")], "f1")
        Bases(redis_client, api.settings, storage).publish(facts)
        return facts

    @pytest.mark.parametrize("field", ["source_prompt", "target_prompt"])
    def test_too_many_tokens(self, base: BaseFacts, anna: httpx.Client, field: str) -> None:
        asked = {**EDIT, "image": upload(anna), "method": "sdedit", field: self.PROMPT}
        answer = anna.post("/v1/edits", json=asked)
        assert answer.status_code == 422, answer.text
        problem = answer.json()
        assert (problem["field"], problem["limit"]) == (field, self.LIMIT)
        assert "takes 42 tokens with start and end, the model reads 40" in problem["detail"]
        assert not anna.get("/v1/jobs").json()["items"]
        fits = {**asked, field: " ".join(["cup"] * 38)}
        assert anna.post("/v1/edits", json=fits).status_code == 202

    def test_a_token_counts_with_all_its_vectors(
        self, base: BaseFacts, anna: httpx.Client, concepts: Concepts
    ) -> None:
        record = ConceptRecord(
            id=ids.new("con"), tenant="anna", job=ids.new("job"), token="<a>", state="ready",
            created_at=1, columns={"<a>": 30, "<b>": 2},
        )  # fmt: skip
        concepts.put(record)
        asked = {**EDIT, "image": upload(anna), "concepts": [{"id": record.id}]}
        asked["method"] = "sdedit"
        for count, status in ((8, 202), (9, 422)):
            prompt = " ".join(["<a>", *["cup"] * count])
            answer = anna.post("/v1/edits", json={**asked, "target_prompt": prompt})
            assert answer.status_code == status, answer.text
        two = anna.post("/v1/edits", json={**asked, "target_prompt": "a <b> cup"})
        assert two.status_code == 202, two.text

    @pytest.mark.parametrize(
        ("noun", "attribute", "field"), [(18, 16, "noun"), (5, 30, "attribute")]
    )
    def test_words_of_a_concept(
        self, base: BaseFacts, anna: httpx.Client, noun: int, attribute: int, field: str
    ) -> None:
        words = {"noun": " ".join(["cup"] * noun), "attribute": " ".join(["red"] * attribute)}
        asked = {"references": [upload(anna)], **words}
        problem = anna.post("/v1/concepts", json=asked).json()
        assert (problem["status"], problem["field"]) == (422, field)
        form = {"file": ("a.safetensors", (8).to_bytes(8, "little") + b"{}      ")}
        imported = anna.post("/v1/concepts/import", files=form, data=words).json()
        assert (imported["status"], imported["field"]) == (422, field)
        assert not anna.get("/v1/jobs").json()["items"]

    def test_without_a_known_base_the_worker_checks(self, anna: httpx.Client) -> None:
        asked = {**EDIT, "image": upload(anna), "target_prompt": self.PROMPT, "method": "sdedit"}
        assert anna.post("/v1/edits", json=asked).status_code == 202
