"""What front ends know of the bases that workers run."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from redis import Redis

from customedit import mini
from customedit.config.settings import Settings
from customedit.diffusion.facts import BaseFacts, TokenizerFacts
from customedit.errors import InputError
from customedit.jobs import bases
from customedit.jobs.bases import FORGET_S, Bases
from customedit.storage import object_keys
from customedit.storage.store import Storage

TOKENIZER = (mini.path() / "tokenizer" / "tokenizer.json").read_text()


def facts(name: str, length: int = 40) -> BaseFacts:
    tokenizer = TokenizerFacts(length=length, definition=TOKENIZER)
    return BaseFacts(fingerprint=name, tokenizers=(tokenizer,))


@pytest.fixture
def make(redis_client: Redis, settings: Settings, storage: Storage) -> Callable[[], Bases]:
    """A front end's or a worker's."""
    return lambda: Bases(redis_client, settings, storage)


def refuses(known: Bases, words: int) -> bool:
    try:
        known.check_prompt(" ".join(["cup"] * words), {}, "target_prompt")
    except InputError as error:
        assert error.field == "target_prompt"
        return True
    return False


def test_nothing_is_refused_until_a_base_is_known(make: Callable[[], Bases]) -> None:
    known = make()
    assert known.current() == [] and not refuses(known, 500)


def test_a_front_end_knows_what_a_worker_published(make: Callable[[], Bases]) -> None:
    make().publish(facts("f1"))
    make().publish(facts("f1"))  # another worker with the same base
    known = make()
    assert known.current() == [facts("f1")]
    assert not refuses(known, 38) and refuses(known, 39)


def test_what_one_base_can_read_is_not_refused(make: Callable[[], Bases]) -> None:
    make().publish(facts("f1", 77))
    make().publish(facts("f2", 40))
    known = make()
    assert not refuses(known, 75) and refuses(known, 76)


def test_a_base_whose_workers_are_gone_is_forgotten(
    make: Callable[[], Bases], monkeypatch: pytest.MonkeyPatch
) -> None:
    make().publish(facts("f1", 77))
    assert not refuses(make(), 75)  # also while no worker runs
    later = Bases._time
    monkeypatch.setattr(Bases, "_time", lambda self: later(self) + FORGET_S + 1)
    make().publish(facts("f2", 40))
    known = make()
    assert known.current() == [facts("f2", 40)] and refuses(known, 39)


def test_a_view_is_a_few_seconds_old_at_most(
    make: Callable[[], Bases], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = make()
    assert known.current() == []
    make().publish(facts("f1"))
    assert known.current() == []
    monkeypatch.setattr(bases, "READ_EVERY_S", 0.0)
    assert known.current() == [facts("f1")]


def test_a_base_whose_facts_are_lost_refuses_nothing(
    make: Callable[[], Bases], storage: Storage
) -> None:
    make().publish(facts("f1"))
    make().publish(facts("f2"))
    (one, _) = storage.list("bases/")
    storage.delete(one.key)
    assert make().current() == []
    make().publish(facts("f1"))  # a worker puts them back
    make().publish(facts("f2"))
    assert len(make().current()) == 2


def test_a_tokenizer_that_cannot_be_made_refuses_nothing(make: Callable[[], Bases]) -> None:
    tokenizer = TokenizerFacts(length=40, definition='{"version": "9.0"}')
    make().publish(BaseFacts(fingerprint="f1", tokenizers=(tokenizer,)))
    assert make().current() == []


def test_the_facts_lie_beside_the_tenants() -> None:
    assert object_keys.base("a1") == "bases/a1.json"
    assert object_keys.folder_of(object_keys.base("a1")) is None
