"""Plans: what a request resolves to, what is refused before anything is drawn, recipes replayed."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from customedit.diffusion.base import Base
from customedit.diffusion.text import Weighted
from customedit.digests import picture_digest
from customedit.editing.editor import Editor
from customedit.editing.method_settings import (
    STRENGTHS,
    P2PSettings,
    Strength,
    strength_of_change,
)
from customedit.editing.plan import EditPlan, mask_digest
from customedit.editing.region_words import ConceptWords, union_words
from customedit.editing.settings import check_request
from customedit.errors import InputError
from customedit.schemas.methods import EditMethod, InversionKind, P2POptions
from customedit.schemas.requests import EditOptions

SOURCE, TARGET = "a photo of a cup on a table", "a photo of a red cup on a table"
LOOK = ConceptWords(("<look>",), "cup", "patterned")
UNSAID: dict[str, Any] = {"method": "sdedit", "source_prompt": ""}


class Word:
    """A concept that trains nothing but its embedding."""

    noun, attribute = "cup", "patterned"

    def __init__(self, base: Base, token: str = "<look>", seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.tokens = {token: torch.randn(base.width, generator=generator)}
        self.keys: dict[str, torch.Tensor] = {}
        self.values: dict[str, torch.Tensor] = {}


def asked(**changes: Any) -> EditOptions:
    return EditOptions(**{"source_prompt": SOURCE, "target_prompt": TARGET} | changes)


def test_a_request_that_says_nothing_has_every_default_resolved(
    base: Base, picture: Image.Image
) -> None:
    (plan,) = Editor(base).open(picture, SOURCE).plan(TARGET)
    assert plan.p2p == P2PSettings(blend_over="source", blend_words=("cup",))
    assert (plan.strength, plan.seed, plan.steps, plan.inversion) == (0.5, 0, 50, "direct")
    assert plan.guidance == base.guidance and plan.region_words == ("cup",)
    assert plan.base.fingerprint == base.fingerprint and plan.base.dtype == "float32"
    assert plan.working == picture.size and plan.mask is None


def test_strengths_and_seeds_make_the_plans(base: Base, picture: Image.Image) -> None:
    session = Editor(base).open(picture, SOURCE)

    def pairs(**options: Any) -> list[tuple[float, int]]:
        plans = session.plan(TARGET, **options)
        assert all(p.p2p is None or p.p2p.strength == p.strength for p in plans)
        return [(p.strength, p.seed) for p in plans]

    assert pairs(method="sdedit") == [(0.6, 0)]
    assert pairs(strengths=[0.2, 0.8], seeds=[1]) == [(0.2, 1), (0.8, 1)]
    for method in ({}, {"method": "p2p"}):
        with pytest.raises(InputError, match=r"seeds: are 2, and p2p draws nothing by chance"):
            pairs(seeds=[1, 2], **method)
    drawn = pairs(method="sdedit", strengths=[0.2, 0.8], seeds=[1, 2])
    assert drawn == [(0.2, 1), (0.2, 2), (0.8, 1), (0.8, 2)]


def test_every_expert_option_reaches_the_method() -> None:
    changed: dict[str, Any] = {
        "way": "replace", "cross_steps": 0.1, "self_steps": 0.2, "words": {"tea": (0.0, 0.5)},
        "reweight": {"tea": 2.0}, "blend_over": "union", "blend_words": ["cup"],
        "blend_target_words": ["tea"], "subtract": ["photo"], "threshold": 0.4,
        "blend_start": 0.3,
    }  # fmt: skip
    assert set(changed) == set(P2POptions.model_fields)
    request = asked(target_prompt=SOURCE.replace("cup", "tea"), p2p=P2POptions(**changed))
    tuples: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in changed.items()}
    assert check_request(request).p2p == P2PSettings(**tuples)


@pytest.mark.parametrize(
    ("changes", "mask", "over", "words"),
    [
        ({}, False, "source", ("cup",)),
        ({"p2p": {"blend_words": ["table"]}}, False, "source", ("table",)),
        ({"p2p": {"blend_over": "none"}}, False, "none", ()),
        ({}, True, "mask", ()),
        ({"p2p": {"blend_over": "mask"}}, True, "mask", ()),
        ({"p2p": {"blend_words": ["cup"]}}, True, "source", ("cup",)),
        ({"p2p": {"blend_over": "source"}}, True, "source", ("cup",)),
        ({"p2p": {"blend_over": "union"}}, False, "union", ("cup",)),
        ({"p2p": {"threshold": 0.5}}, False, "source", ("cup",)),
        ({"target_prompt": "a painting of a cup on a table"}, False, "none", ()),
        ({"method": "sdedit"}, False, "source", ("cup",)),
        ({"method": "sdedit"}, True, "mask", ()),
        ({"method": "sdedit", "sdedit": {"blend_words": ["table"]}}, True, "source", ("table",)),
        ({"method": "sdedit", "sdedit": {"blend_over": "none"}}, False, "none", ()),
        (UNSAID, False, "none", ()),
        (UNSAID, True, "mask", ()),
        (UNSAID | {"sdedit": {"blend_over": "mask", "blend_start": 0.5}}, True, "mask", ()),
    ],
)
def test_the_region_follows_from_what_is_given(
    changes: dict[str, Any], mask: bool, over: str, words: tuple[str, ...]
) -> None:
    settings = check_request(asked(**changes), mask=mask).settings
    assert (settings.blend_over, settings.blend_words) == (over, words)


@pytest.mark.parametrize(
    ("changes", "mask", "field", "says"),
    [
        ({"p2p": {"blend_over": "none"}}, True, "mask", "contradicts"),
        ({"p2p": {"blend_over": "mask"}}, False, "mask", "missing"),
        ({"p2p": {"blend_over": "mask", "blend_words": ["cup"]}}, True, "p2p.blend_words", "no ef"),
        ({"p2p": {"blend_over": "none", "subtract": ["cup"]}}, False, "p2p.subtract", "no effect"),
        ({"p2p": {"blend_over": "none", "threshold": 0.1}}, False, "p2p.threshold", "no effect"),
        ({"p2p": {"threshold": 0.1}}, True, "p2p.threshold", "no effect"),
        ({"p2p": {"blend_target_words": ["cup"]}}, False, "p2p.blend_target_words", "no effect"),
        (
            {"p2p": {"blend_over": "union"}, "target_prompt": "a photo of a jug on a table"},
            False,
            "p2p.blend_target_words",
            r"none of the blend words \(cup\)",
        ),
        (
            {"p2p": {"blend_over": "union", "blend_target_words": ["jug"]}},
            False,
            "target_prompt",
            "no word 'jug'",
        ),
        ({"p2p": {"blend_words": ["jug"]}}, False, "source_prompt", "no word 'jug'"),
        ({"p2p": {"subtract": ["jug"]}}, False, "source_prompt", "no word 'jug'"),
        ({"p2p": {"reweight": {"jug": 2.0}}}, False, "target_prompt", "no word 'jug'"),
        ({"p2p": {"words": {"jug": (0, 1)}}}, False, "target_prompt", "no word 'jug'"),
        ({"p2p": {"way": "replace"}}, False, "target_prompt", "has 9 words and.*8"),
        ({"p2p": {"threshold": 1.0}}, False, "p2p.threshold", "is 1.0"),
        ({"p2p": {"words": {"red": (0.5, 0.4)}}}, False, "p2p.words", "start <= end"),
        ({"method": "sdedit", "p2p": {}}, False, "p2p", "no effect on sdedit"),
        ({"method": "sdedit", "inversion": "ddim"}, False, "inversion", "no effect on sdedit"),
        (UNSAID | {"preserve": True}, False, "preserve", "needs a region"),
        (UNSAID | {"sdedit": {"blend_words": ["cup"]}}, False, "source_prompt", "is empty"),
        (UNSAID | {"sdedit": {"blend_over": "union"}}, True, "source_prompt", "is empty"),
        (UNSAID | {"sdedit": {"threshold": 0.4}}, False, "sdedit.threshold", "without a source"),
        (UNSAID | {"sdedit": {"blend_over": "none"}}, True, "mask", "contradicts sdedit"),
        (
            {"method": "sdedit", "sdedit": {"blend_words": ["jug"]}},
            False,
            "source_prompt",
            "no word 'jug'",
        ),
        (
            {"method": "sdedit", "target_prompt": "a photo of a cup by a table"},
            False,
            "sdedit.blend_words",
            "cannot be told",
        ),
        ({"sdedit": {}}, False, "sdedit", "no effect on p2p"),
        ({"p2p": {"blend_over": "none"}, "preserve": True}, False, "preserve", "needs a region"),
        ({"method": "sdedit", "strengths": [0.0]}, False, "strengths", "hold 0"),
        ({"everywhere": True}, False, "everywhere", "no concept"),
        ({"target_prompt": "a <b> cup"}, False, "target_prompt", "names <b>.*given: none"),
        (
            {"target_prompt": "a photo of a cup by a table"},
            False,
            "p2p.blend_words",
            "cannot be told",
        ),
    ],
)
def test_what_cannot_work_is_refused(
    changes: dict[str, Any], mask: bool, field: str, says: str
) -> None:
    with pytest.raises(InputError, match=says) as caught:
        check_request(asked(**changes), mask=mask)
    assert caught.value.field == field and caught.value.remedy


@pytest.mark.parametrize(
    ("union", "target", "words"),
    [
        ({}, TARGET, ("cup",)),
        ({"blend_target_words": []}, TARGET, ("cup",)),
        ({"blend_words": ["cup", "table"]}, "a jug on a table", ("table",)),
        ({"blend_target_words": ["jug"]}, "a photo of a jug on a table", ("jug",)),
    ],
)
def test_a_union_reads_the_targets_own_words_or_those_of_the_source_that_it_has(
    union: dict[str, Any], target: str, words: tuple[str, ...]
) -> None:
    options = asked(target_prompt=target, p2p={"blend_over": "union", **union})
    settings = check_request(options).p2p
    assert settings is not None and union_words(settings, target.split()) == words
    assert union_words(P2PSettings(blend_over="source", blend_words=("cup",)), ["cup"]) == ()


def test_the_sources_pixels_are_preserved_where_there_is_a_region() -> None:
    assert check_request(asked()).preserve
    assert check_request(asked(**UNSAID), mask=True).preserve
    assert not check_request(asked(**UNSAID)).preserve
    assert check_request(asked(method="sdedit")).preserve
    assert not check_request(asked(p2p={"blend_over": "none"})).preserve
    assert not check_request(asked(preserve=False)).preserve


@pytest.mark.parametrize(
    ("changes", "mask", "at_128", "at_1024"),
    [
        ({}, False, 1, 1),  # the outline of the cup
        ({"target_prompt": "a photo of a jug on a table"}, False, 8, 64),
        ({"method": "sdedit"}, True, 2, 2),
        ({}, True, 2, 2),
        ({"target_prompt": "a photo of a jug on a table", "feather": 3}, False, 3, 3),
    ],
)
def test_the_soft_edge_is_as_wide_as_what_the_region_was_read_from(
    changes: dict[str, Any], mask: bool, at_128: float, at_1024: float
) -> None:
    """A cell of the latents is 8 times as many pixels of a picture that is 8 times as large."""
    checked = check_request(asked(**changes), mask=mask)
    assert checked.feather_width((128, 96), (128, 96)) == at_128
    assert checked.feather_width((1024, 768), (128, 96)) == at_1024
    assert checked.own_feather == (None if at_128 == 8 else at_128)


def test_the_soft_edge_of_a_concept_s_region_is_that_of_a_mask() -> None:
    """A box is drawn as a mask is; beside the words of another change it is as wide as theirs."""
    placed = [dataclasses.replace(LOOK, region="concepts[0].box")]
    alone = check_request(asked(target_prompt="a photo of a <look> cup on a table"), placed)
    assert alone.p2p is not None and alone.p2p.concept_regions and alone.masked
    assert alone.own_feather == alone.feather_width((1024, 1024), (128, 128)) == 2
    beside = check_request(asked(target_prompt="a photo of a <look> cup on a wooden table"), placed)
    assert beside.p2p is not None and beside.p2p.blend_words == ("table",)
    assert not beside.masked and beside.feather_width((1024, 1024), (128, 128)) == 64


def test_a_plan_has_the_soft_edge_of_its_picture(base: Base, picture: Image.Image) -> None:
    large = picture.resize((picture.width * 3, picture.height * 3))
    widths = [
        Editor(base).open(shown, SOURCE).plan("a photo of a jug on a table")[0].feather
        for shown in (picture, large)
    ]
    assert widths[0] == 8 and widths[1] > 8
    working = base.size(*large.size)
    assert widths[1] == 8 * max(large.size) / max(working)


def test_concepts_must_have_an_effect() -> None:
    named = asked(target_prompt="a photo of a <look> cup on a table")
    assert check_request(named, [LOOK]).p2p is not None
    with pytest.raises(InputError, match="names no token of the concept <look>"):
        check_request(asked(), [LOOK])
    with pytest.raises(InputError, match="concepts: have <look> twice"):
        check_request(named, [LOOK, LOOK])
    assert check_request(asked(everywhere=True), [LOOK]).p2p is not None


def test_refusals_come_before_anything_is_drawn(base: Base, picture: Image.Image) -> None:
    class Untouched:
        """A base whose UNet nobody may call."""

        def __getattr__(self, name: str) -> Any:
            assert name not in ("predict", "output", "encode", "decode", "text", "unet")
            return getattr(base, name)

    session = Editor(Untouched()).open(picture, SOURCE)  # type: ignore[arg-type]  # stands for a base
    assert session.plan(TARGET)
    turned = torch.zeros(64, 128)
    turned[:, :9] = 1
    for options, says in (
        ({"steps": 201}, "steps: is 201"),
        ({"strengths": [1.5]}, "strengths"),
        ({"change": 0.5, "strengths": [0.5]}, "change: is given with strengths"),
        ({"guidance": float("nan")}, "guidance"),
        ({"seeds": [-1]}, "seeds"),
        ({"method": "magic"}, "method"),
        ({"mask": torch.zeros(128, 128)}, "mask: is black"),
        ({"mask": torch.ones(128, 128)}, "mask: covers the whole"),
        ({"mask": turned}, "mask: is 128 x 64"),
        ({"bogus": 1}, "bogus"),
    ):
        with pytest.raises(InputError, match=says):
            session.plan(TARGET, **options)
    with pytest.raises(InputError, match=r"target_prompt: takes .* tokens"):
        session.plan("a red " * 80 + "cup")


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("p2p.reweight", {"p2p": {"reweight": {"<lora>": 2.0}}}),
        ("p2p.words", {"p2p": {"words": {"<Lora>": [0, 0.3]}}}),
        ("p2p.blend_target_words",
         {"p2p": {"blend_over": "union", "blend_words": ["cup"],
                  "blend_target_words": ["cup", "<lora>,"]}}),
        ("ddpm.blend_words", {"method": "ddpm", "ddpm": {"blend_words": ["<lora>"]}}),
        ("ddpm.subtract",
         {"method": "ddpm", "ddpm": {"blend_words": ["cup"], "subtract": ["<lora>"]}}),
    ],
)  # fmt: skip
def test_a_token_that_no_column_stands_for_is_neither_read_nor_weighed(
    base: Base, picture: Image.Image, field: str, options: dict[str, Any]
) -> None:
    """As that of a LoRA without an embedding, which only says that the LoRA acts."""
    lora, word = Word(base, "<lora>"), Word(base, "<look>")
    lora.tokens = {"<lora>": torch.zeros(0, base.width)}
    target = "a photo of a <lora> <look> cup on a table"
    taught = options.get("method") == "ddpm"  # which may read its source with concepts
    session = Editor(base).open(picture, target if taught else SOURCE)
    with pytest.raises(InputError, match="its concept has no embedding") as refused:
        session.plan(target, concepts=[lora, word], **options)
    assert refused.value.field == field
    learned = json.loads(
        json.dumps(options).replace("<lora>", "<look>").replace("<Lora>", "<look>")
    )
    assert session.plan(target, concepts=[lora, word], **learned)


MORE_CHANGES = ("sdedit", "flowedit")
"""The methods whose strength is a share of the way from the source."""


@given(st.floats(0, 1), st.floats(0, 1))
def test_more_change_never_keeps_more(first: float, second: float) -> None:
    low, high = sorted((first, second))
    for method in get_args(EditMethod):
        knobs = [strength_of_change(method, c) for c in (low, high)]
        if method in MORE_CHANGES:
            assert knobs[0].strength <= knobs[1].strength
        else:
            assert knobs[0].strength >= knobs[1].strength and knobs[0].start >= knobs[1].start


def test_the_ends_and_the_middle_of_change() -> None:
    usual = P2PSettings()
    middle = strength_of_change("p2p", 0.5)
    assert (middle.strength, middle.start) == (usual.strength, usual.start)
    assert strength_of_change("p2p", 1.0).strength == 0
    assert strength_of_change("sdedit", 1.0).strength == 1
    for method in get_args(EditMethod):
        if method != "sdedit":
            middle = strength_of_change(method, 0.5)
            assert middle.strength == pytest.approx(STRENGTHS[method]) and middle.start == 0
            most = method in MORE_CHANGES
            assert strength_of_change(method, 1.0) == Strength(float(most))
            assert strength_of_change(method, 0.0).strength == (not most)
        with pytest.raises(InputError, match="change"):
            strength_of_change(method, 1.01)


# what an inversion is kept under


def test_inversion_keys_tell_apart_what_inversions_depend_on(
    base: Base, picture: Image.Image
) -> None:
    half = Base.load(dtype=torch.bfloat16)
    other = Image.fromarray(255 - np.asarray(picture))

    def key(model: Base = base, image: Image.Image = picture, **changes: Any) -> str:
        source = changes.pop("source", SOURCE)
        (plan,) = Editor(model).open(image, source).plan(TARGET, **{"steps": 10} | changes)
        return plan.inversion_key

    apart = [
        key(), key(half), key(image=other), key(image=picture.resize((256, 128))),
        key(source="a photo of a blue cup on a table"), key(steps=11),
        key(inversion="null-text"), key(inversion="null-text", guidance=3.0),
    ]  # fmt: skip
    assert len(set(apart)) == len(apart)
    same: tuple[dict[str, Any], ...] = (
        {"guidance": 3.0}, {"strengths": [0.1]}, {"inversion": "ddim"},
        {"inversion": "negative-prompt"}, {"p2p": P2POptions(threshold=0.2)},
    )  # fmt: skip
    for changes in same:
        assert key(**changes) == key()


# recipes


@pytest.mark.parametrize(
    "options",
    [
        {"inversion": kind, "steps": 2} for kind in get_args(InversionKind)
    ] + [
        {"method": "sdedit", "seeds": [7]},
        {"method": "masactrl", "masactrl": {"layer": 0.5}},
        {"method": "pnp", "guidance_start": 0.1, "guidance_end": 0.7},
        {"method": "ddpm", "seeds": [7]},
        {"method": "directedit", "change": 0.4},
        {"change": 0.3, "preserve": True},
        {"p2p": P2POptions(reweight={"red": 2.0}, subtract=["table"], words={"red": (0, 0.5)})},
    ],
)  # fmt: skip
def test_a_recipe_replays_to_the_same_pixels(
    base: Base, picture: Image.Image, options: dict[str, Any]
) -> None:
    session = Editor(base).open(picture, SOURCE)
    target = "a photo of a <look> red cup on a table"
    concepts = [Weighted(Word(base), 0.7)]
    plans = session.plan(target, concepts=concepts, **{"steps": 3} | options)
    (first,) = session.run(plans, concepts)
    recipe = json.loads(json.dumps(first.plan.as_json()))
    plan = EditPlan.read(recipe)
    assert plan == first.plan and EditPlan.read({"recipe": recipe}) == plan
    others = [Word(base, "<other>", seed=2), Word(base, seed=1), Word(base)]
    again = Editor(base).replay(plan, picture, concepts=others)
    assert again.image.tobytes() == first.image.tobytes()
    assert torch.equal(again.drawing.latents, first.drawing.latents)


def test_what_is_not_the_recipes_is_refused(base: Base, picture: Image.Image) -> None:
    editor = Editor(base)
    session = editor.open(picture, SOURCE)
    mask = torch.zeros(128, 128)
    mask[:, :64] = 1
    concepts = [Word(base)]
    (plan,) = session.plan("a photo of a <look> cup on a table", concepts=concepts, steps=2)
    (masked,) = session.plan(TARGET, mask=mask, steps=2)
    with pytest.raises(InputError, match="picture: is not that of the recipe"):
        editor.replay(plan, picture.resize((64, 64)), concepts=concepts)
    with pytest.raises(InputError, match="concept: <look> of the recipe, digest"):
        editor.replay(plan, picture, concepts=[Word(base, seed=3)])
    with pytest.raises(InputError, match="mask: is missing"):
        editor.replay(masked, picture)
    with pytest.raises(InputError, match="mask: is given, the recipe has none"):
        editor.replay(plan, picture, concepts=concepts, mask=mask)
    with pytest.raises(InputError, match="mask: is not that of the recipe"):
        editor.replay(masked, picture, mask=mask.flip(1))
    with pytest.raises(InputError, match="base: has dtype bfloat16, the recipe was made with"):
        Editor(Base.load(dtype=torch.bfloat16)).replay(plan, picture, concepts=concepts)
    recipe = plan.as_json()
    for broken, says in (
        (recipe | {"steps": 0}, r"recipe\.steps: is 0"),
        (recipe | {"more": 1}, r"recipe\.more"),
        ({k: v for k, v in recipe.items() if k != "source"}, r"recipe\.source"),
        ({"edits": []}, r"recipe\."),
    ):
        with pytest.raises(InputError, match=says):
            EditPlan.read(broken)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 255), st.data())
def test_digests_are_of_the_pixels(width: int, height: int, level: int, data: Any) -> None:
    picture = Image.new("RGB", (width, height), (level, 0, 0))
    assert picture_digest(picture) == picture_digest(picture.convert("RGBA"))
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    other = picture.copy()
    other.putpixel((x, y), (level, 1, 0))
    assert picture_digest(other) != picture_digest(picture)
    if width != height:
        turned = Image.new("RGB", (height, width), (level, 0, 0))
        assert picture_digest(turned) != picture_digest(picture)
        assert mask_digest(torch.ones(height, width)) != mask_digest(torch.ones(width, height))
