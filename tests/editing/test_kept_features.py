"""Features kept of a source: the next edit runs a row less a step, to the same bits."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from customedit.diffusion.base import Base
from customedit.diffusion.concept_regions import ConceptRegion
from customedit.diffusion.engine import Engine, run
from customedit.diffusion.kept_features import Part, StepFeatures
from customedit.diffusion.method import Denoise, Method
from customedit.diffusion.shared_rows import together
from customedit.diffusion.text import Weighted
from customedit.editing.edit import Opened, draw
from customedit.editing.editor import Editor, Session
from customedit.editing.guidance import Guidance
from customedit.editing.inversion import Inversion, invert
from customedit.editing.kept_features import FeatureCache, SourceFeatures
from customedit.editing.method_settings import P2PSettings
from customedit.editing.plan import EditPlan
from customedit.editing.prompt_to_prompt import prompt_to_prompt
from customedit.errors import InputError
from customedit.schemas.methods import P2POptions

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 5
SOURCE = "a photo of a white cup on a wooden table"
SWAPPED = "a photo of a blue ball on a wooden table"
REFINED = "a photo of a glossy white cup on a wooden table"
PLENTY = 2**30


class Change:
    """A concept of random changes."""

    def __init__(self, base: Base, token: str, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)

        def moved(name: str) -> dict[str, Tensor]:
            weights = {n: base.weights[f"{n}.{name}.weight"] for n in base.layers}
            return {
                n: w + 0.02 * torch.randn(w.shape, generator=generator) for n, w in weights.items()
            }

        self.tokens = {token: torch.randn(base.width, generator=generator)}
        self.keys, self.values = moved("to_k"), moved("to_v")


@pytest.fixture(scope="module")
def concept(base: Base) -> Change:
    return Change(base, "<a>", 1)


@pytest.fixture(scope="module")
def inversion(base: Base, picture: Image.Image) -> Inversion:
    return run(base, invert(base, base.encode(picture), SOURCE, steps=STEPS))


def edited(
    base: Base, inversion: Inversion, target: str, settings: P2PSettings,
    features: SourceFeatures | None, concepts: list[Weighted], **more: Any,
) -> tuple[Any, list[int]]:  # fmt: skip
    """What an edit drew, and the rows of its steps."""
    size = (inversion.noise.shape[2], inversion.noise.shape[3])
    texts = [
        base.text(more.pop("source", SOURCE), concepts),
        base.text(target, concepts, size=size),
    ]
    rows: list[int] = []

    def counted(method: Method[Any]) -> Method[Any]:
        answer = None
        while True:
            try:
                request = method.send(answer)
            except StopIteration as end:
                return end.value
            if isinstance(request, Denoise):
                rows.append(request.rows)
            answer = yield request

    method = prompt_to_prompt(base, inversion, *texts, settings=settings, features=features, **more)
    return run(base, counted(method)), rows


def same(got: Any, wanted: Any) -> None:
    """Equal to the bit: latents, the mask, and the maps if there are any."""
    for name in ("latents", "mask", "maps"):
        ours, theirs = getattr(got, name), getattr(wanted, name)
        assert (ours is None) == (theirs is None)
        assert ours is None or torch.equal(ours, theirs), name


BOX = torch.zeros(128, 128)
BOX[:, 64:] = 1

CASES: dict[str, tuple[str, P2PSettings, dict[str, Any]]] = {
    "replacement": (SWAPPED, P2PSettings(way="replace", strength=0.5), {}),
    "refinement": (REFINED, P2PSettings(cross_steps=0.8, self_steps=0.4), {}),
    "reweighting": (REFINED, P2PSettings(strength=0.6, reweight={"glossy": 3.0, "cup": 0.5}), {}),
    "steps of a word": (
        SWAPPED, P2PSettings(way="replace", strength=1.0, words={"ball": (0.4, 0.8)}), {},
    ),
    "a region of the source's words": (
        SWAPPED, P2PSettings(blend_over="source", blend_words=("cup",), blend_start=0.2), {},
    ),
    "a region of both prompts' words": (
        REFINED,
        P2PSettings(
            blend_over="union", blend_words=("cup",), blend_target_words=("cup",), blend_start=0.0,
            subtract=("table",),
        ),
        {},
    ),
    "a mask": (SWAPPED, P2PSettings(blend_over="mask"), {"mask": BOX}),
    "maps handed back": (REFINED, P2PSettings(), {"record": True}),
    "a late start": (SWAPPED, P2PSettings(start=0.4), {}),
    "the last steps unguided": (REFINED, P2PSettings(strength=0.8), {"unguided": True}),
    "no maps": (SWAPPED, P2PSettings(strength=0.0), {}),
    "a concept": ("a photo of a <a> white cup on a wooden table", P2PSettings(), {"named": True}),
    "a concept in a region": (
        "a photo of a <a> white cup on a wooden table",
        P2PSettings(blend_over="source", blend_words=("cup",)),
        {"named": True, "placed": True},
    ),
    "a concept in the source as well": (
        "a photo of a <a> white cup on a wooden table", P2PSettings(),
        {"named": True, "source": "a photo of a <a> cup on a wooden table"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(CASES))
def test_the_next_edit_runs_a_row_less_to_the_same_bits(
    name: str, base: Base, inversion: Inversion, concept: Change
) -> None:
    target, settings, more = CASES[name]
    more = dict(more)
    concepts = [Weighted(concept)] if more.pop("named", False) else []
    if more.pop("placed", False):
        concepts = [Weighted(concept, region=ConceptRegion(box=(0.2, 0.1, 0.8, 0.7)))]
    unguided = more.pop("unguided", False)
    more["guidance"] = Guidance(5.0, 0.0, 0.6 if unguided else 1.0)
    wanted, plain = edited(base, inversion, target, settings, None, concepts, **more)
    features = FeatureCache(PLENTY).of("key")
    assert features is not None
    first, _ = edited(base, inversion, target, settings, features, concepts, **more)
    same(first, wanted)
    again, rows = edited(base, inversion, target, settings, features, concepts, **more)
    same(again, wanted)
    assert rows == [count - 1 for count in plain]


def test_another_edit_takes_what_is_there_and_adds_what_it_lacks(
    base: Base, inversion: Inversion
) -> None:
    features = FeatureCache(PLENTY).of("key")
    read = P2PSettings(strength=0.4, blend_over="source", blend_words=("cup",))
    edited(base, inversion, SWAPPED, read, features, [])
    longer = dataclasses.replace(read, strength=0.8)
    wanted, _ = edited(base, inversion, REFINED, longer, None, [])
    got, rows = edited(base, inversion, REFINED, longer, features, [])
    same(got, wanted)
    assert rows == [2, 2, 3, 3, 2]  # maps are taken until step 4, which were kept until step 2
    got, rows = edited(base, inversion, REFINED, longer, features, [])
    same(got, wanted)
    assert rows == [2] * STEPS


@pytest.mark.parametrize("max_rows", [32, 4])
def test_a_sweep_fills_and_takes_features_as_single_edits_do(
    max_rows: int, base: Base, picture: Image.Image, inversion: Inversion
) -> None:
    session = Editor(base).open(picture, SOURCE)
    plans = [
        plan
        for strength in (0.2, 0.8, 0.4)
        for plan in session.plan(REFINED, strengths=[strength], steps=STEPS)
    ]
    features = FeatureCache(PLENTY).of("key")
    opened = Opened(base, picture)

    def drawings(chosen: list[EditPlan], kept: SourceFeatures | None) -> tuple[list[Tensor], int]:
        methods = [
            draw(base, plan, picture, inversion=inversion, opened=opened, features=kept)
            for plan in chosen
        ]
        engine = Engine(base, max_rows=max_rows)
        ticket = engine.submit(together(base, methods, max_rows=max_rows))
        while not ticket.done:
            engine.tick()
        return [drawing.latents for drawing in ticket.result()], engine.rows

    wanted, plain = drawings(plans, None)
    least = plans[:1]  # beside it others take what it has not kept
    for chosen, expected in ((least, None), (plans, None), (plans, 2 * len(plans) * STEPS)):
        got, rows = drawings(chosen, features)
        assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=False))
        assert expected is None or rows == expected < plain


def sessions(base: Base, picture: Image.Image) -> tuple[Session, Session]:
    """A session that keeps features, and one that keeps none."""
    return (
        Editor(base, kept_features=PLENTY).open(picture, SOURCE),
        Editor(base).open(picture, SOURCE),
    )


def test_an_editor_keeps_features_if_it_is_asked(base: Base, picture: Image.Image) -> None:
    keeping, plain = sessions(base, picture)
    common: dict[str, Any] = {"steps": STEPS, "p2p": P2POptions(way="replace")}
    for target in (SWAPPED, SWAPPED.replace("ball", "bowl")):
        got, wanted = (s.edit(target, **common) for s in (keeping, plain))
        assert torch.equal(got.drawing.latents, wanted.drawing.latents)
        assert got.image.tobytes() == wanted.image.tobytes()
    assert len(keeping.editor.features) == 1
    assert 0 < keeping.editor.features.bytes == held(keeping.editor.features)
    assert len(plain.editor.features) == 0
    with pytest.raises(InputError, match="kept_features"):
        Editor(base, kept_features=-1)


def held(cache: FeatureCache) -> int:
    """Bytes of the tensors that are held, each with all that its storage has."""
    steps = [s for f in cache._held.values() for s in f._steps.values()]
    tensors = [x for s in steps for pair in s.attention.values() for x in pair]
    tensors += [x for s in steps for x in s.queries.values()]
    tensors += [s.maps for s in steps if s.maps is not None]
    return sum(x.untyped_storage().nbytes() for x in tensors)


def plan(session: Session, target: str = REFINED, **more: Any) -> EditPlan:
    (found,) = session.plan(target, **({"steps": STEPS} | more))
    return found


def test_features_are_of_one_source(base: Base, picture: Image.Image, concept: Change) -> None:
    session = Editor(base).open(picture, SOURCE)
    key = plan(session).features_key
    assert key is not None
    named = "a photo of a <a> white cup on a wooden table"
    other_version = Change(base, "<a>", 2)
    alike = [
        plan(session, SWAPPED), plan(session, strengths=[0.9]), plan(session, guidance=2.0),
        plan(session, mask=BOX), plan(session, named, concepts=[concept]),
        plan(session, named, concepts=[other_version]),
    ]  # fmt: skip
    assert {p.features_key for p in alike} == {key}
    turned = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    others = [
        plan(session, steps=STEPS + 1),
        plan(Editor(base).open(picture, SOURCE + " there")),
        plan(Editor(base).open(turned, SOURCE)),
        plan(session, named, concepts=[concept], everywhere=True),
        plan(session, named, concepts=[other_version], everywhere=True),
        plan(session, named, concepts=[Weighted(concept, 0.5)], everywhere=True),
    ]
    found = [p.features_key for p in others]
    assert len(set(found)) == len(found) and key not in found and None not in found
    none = [
        plan(session, inversion="ddim"), plan(session, inversion="null-text"),
        plan(session, method="sdedit"), plan(session, method="masactrl"), plan(session, change=0.0),
    ]  # fmt: skip
    assert [p.features_key for p in none] == [None] * len(none)


def test_a_concept_everywhere_has_features_of_its_own(
    base: Base, picture: Image.Image, concept: Change
) -> None:
    keeping, plain = sessions(base, picture)
    named = "a photo of a <a> white cup on a wooden table"
    for entry in (concept, Change(base, "<a>", 2), concept):
        common: dict[str, Any] = {"concepts": [entry], "everywhere": True, "steps": STEPS}
        got, wanted = (s.edit(named, **common) for s in (keeping, plain))
        assert torch.equal(got.drawing.latents, wanted.drawing.latents)
    assert len(keeping.editor.features) == 2


@pytest.mark.parametrize("kind", ["ddim", "null-text", "negative-prompt"])
def test_other_inversions_keep_nothing(kind: Any, base: Base, picture: Image.Image) -> None:
    keeping, plain = sessions(base, picture)
    for _ in range(2):
        got, wanted = (s.edit(REFINED, steps=3, inversion=kind) for s in (keeping, plain))
        assert torch.equal(got.drawing.latents, wanted.drawing.latents)
    assert keeping.editor.features.bytes == 0


def test_what_does_not_fit_is_drawn_as_ever(base: Base, inversion: Inversion) -> None:
    settings = P2PSettings(strength=0.6)
    wanted, plain = edited(base, inversion, SWAPPED, settings, None, [])
    whole = FeatureCache(PLENTY)
    edited(base, inversion, SWAPPED, settings, whole.of("key"), [])
    tight = FeatureCache(whole.bytes - 1)
    for _ in range(2):
        got, rows = edited(base, inversion, SWAPPED, settings, tight.of("key"), [])
        same(got, wanted)
        assert rows[0] == plain[0] and (len(tight), tight.bytes) == (0, 0)
    assert FeatureCache(0).of("key") is None


def test_features_may_go_while_an_edit_runs(base: Base, inversion: Inversion) -> None:
    settings = P2PSettings(strength=1.0, blend_over="source", blend_words=("cup",))
    wanted, _ = edited(base, inversion, SWAPPED, settings, None, [])
    cache = FeatureCache(PLENTY)
    edited(base, inversion, SWAPPED, settings, cache.of("key"), [])
    texts = base.text(SOURCE), base.text(SWAPPED)
    method = prompt_to_prompt(
        base, inversion, *texts, settings=settings, features=cache.of("key"), guidance=7.5
    )
    engine, steps = Engine(base), 0

    def on_progress(_: object) -> None:
        nonlocal steps
        steps += 1
        if steps == 2:
            cache.clear()

    ticket = engine.submit(method, on_progress=on_progress)
    while not ticket.done:
        engine.tick()
    same(ticket.result(), wanted)
    assert engine.rows == 2 * 2 + 3 * 3
    assert (len(cache), cache.bytes) == (0, 0)


def filled(cache: FeatureCache, key: str, numbers: int, steps: int = 2) -> SourceFeatures:
    """Features of so many float32 numbers at each step."""
    features = cache.of(key)
    assert features is not None
    parts: set[Part] = {"maps"}
    features.want([parts] * steps)
    for k in range(steps):
        if (step := features.recording(k)) is not None:
            features.recorded(step, torch.zeros(1, numbers))
    return features


def test_the_least_recently_used_goes_first() -> None:
    cache = FeatureCache(4 * 60)
    first, second = filled(cache, "a", 10), filled(cache, "b", 10)
    assert (len(cache), cache.bytes) == (2, 4 * 40)
    assert cache.of("a") is first  # used again: "b" is the older one now
    third = filled(cache, "c", 15)
    assert (len(cache), cache.bytes) == (2, 4 * 50)
    assert first.held(1, ["maps"]) and third.held(1, ["maps"])
    assert second.held(0, ["maps"]) is None and cache.of("b") is not second
    assert second.recording(0) is None  # it keeps nothing from now on
    filled(cache, "d", 31)  # more than the budget: nobody goes for its sake
    assert (len(cache), cache.bytes) == (2, 4 * 50)


def test_a_step_is_held_once_all_its_parts_are() -> None:
    cache = FeatureCache(PLENTY)
    features = filled(cache, "a", 10)
    assert features.held(0, ["maps"]) is not None
    assert features.held(0, ["maps", "self"]) is None
    assert features.held(7, []) is not None  # of which nothing is taken
    assert StepFeatures().sizes() == {}
