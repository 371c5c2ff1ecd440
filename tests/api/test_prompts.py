"""Prompts read over HTTP: tokens counted by the rule that edits are refused by, unknown words."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from redis import Redis

from customedit import mini
from customedit.client import CustomEdit
from customedit.diffusion.facts import BaseFacts, TokenizerFacts
from customedit.jobs import bases
from customedit.jobs.bases import Bases
from customedit.jobs.store import Jobs
from customedit.storage.store import Storage
from customedit.tenants.catalogue import Concepts

from .conftest import Running, customize, finish_concept, upload

TOKENIZER = (mini.path() / "tokenizer" / "tokenizer.json").read_text()
WORDS = ("a", "photo", "of", "cup", "table", "on")


@pytest.fixture
def publish(
    api: Running, redis_client: Redis, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> Callable[[int], None]:
    """A worker that names its base, which reads so many tokens."""
    monkeypatch.setattr(bases, "READ_EVERY_S", 0)

    def publish(length: int) -> None:
        tokenizer = TokenizerFacts(length=length, definition=TOKENIZER)
        facts = BaseFacts(fingerprint="f", tokenizers=(tokenizer,), name="mini", words=WORDS)
        Bases(redis_client, api.settings, storage).publish(facts)

    return publish


def test_without_a_worker_nothing_is_known(anna: httpx.Client) -> None:
    answer = anna.post("/v1/prompts/read", json={"prompts": ["a cup"]})
    assert answer.status_code == 200 and answer.json() == {"base": None, "items": []}


def test_tokens_and_unknown_words_are_told(
    anna: httpx.Client, publish: Callable[[int], None], api: Running, jobs: Jobs,
    concepts: Concepts, storage: Storage,
) -> None:  # fmt: skip
    publish(12)
    made = customize(anna, token="<x>")
    look = finish_concept(jobs, concepts, storage, made["id"], columns={"<x>": 2})
    with CustomEdit(api.url, api.key("anna")) as client:
        found = client.read_prompts(
            prompts=["a photo of a cup on a Tabel", "a <x> cup", ""], concepts=[look.id]
        )
    assert found.base == "mini"
    first, second, third = found.items
    assert [(w.word, w.near) for w in first.unknown_words] == [("tabel", ["table"])]
    assert second.unknown_words == [] and second.limit == 12
    assert second.tokens == 2 + 2 + 2  # start and end, two words, two columns
    assert third.tokens == 2


def test_the_count_is_that_of_the_refusal(
    anna: httpx.Client, publish: Callable[[int], None]
) -> None:
    publish(8)
    prompt = "a photo of a cup on a table"
    (read,) = anna.post("/v1/prompts/read", json={"prompts": [prompt]}).json()["items"]
    assert (read["tokens"], read["limit"]) == (10, 8)
    body = {"image": upload(anna), "source_prompt": "a red cup on a table", "target_prompt": prompt}
    refused = anna.post("/v1/edits", json=body)
    assert refused.status_code == 422
    assert "takes 10 tokens with start and end, the model reads 8" in refused.json()["detail"]


def test_a_concept_of_others_is_unknown(anna: httpx.Client) -> None:
    body = {"prompts": ["a cup"], "concepts": ["con_" + "0" * 26]}
    refused = anna.post("/v1/prompts/read", json=body)
    assert refused.status_code == 409 and refused.json()["field"] == "concepts[0]"
