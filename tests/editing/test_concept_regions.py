"""Edits whose concepts have regions: where they act, what may change, recipes, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from customedit.concepts.concept import Concept
from customedit.diffusion.adapters import LowRank
from customedit.diffusion.base import Base
from customedit.diffusion.concept_regions import ConceptRegion
from customedit.diffusion.text import Weighted
from customedit.editing.editor import Editor, Order, Session
from customedit.editing.plan import EditPlan
from customedit.editing.region_words import ConceptWords, words_beside_regions
from customedit.errors import InputError
from customedit.schemas.methods import P2POptions

from ..diffusion import flow_folders, xl_folders
from ..diffusion.conftest import change
from .conftest import NOISE_METHODS

SOURCE = "a photo of a red cup on a table"
ONE, TWO = "a photo of a <a> patterned cup on a table", "a photo of a <a> <b> cup on a table"
LEFT, RIGHT = ConceptRegion(box=(0, 0, 0.5, 1)), ConceptRegion(box=(0.5, 0, 1, 1))


def look(base: Base, token: str, seed: int) -> Concept:
    made = change(base, token, seed, size=0.02)
    return Concept(made.tokens, made.keys, made.values, noun="cup", attribute="patterned")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """A small Stable Diffusion XL of random weights, where nothing has to look like anything."""
    return Base.load(xl_folders.saved(tmp_path_factory.mktemp("xl")))


@pytest.fixture(scope="module")
def looks(small: Base) -> tuple[Concept, Concept]:
    return look(small, "<a>", 1), look(small, "<b>", 2)


@pytest.fixture(scope="module")
def session(small: Base) -> Session:
    blocks = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(blocks).resize((64, 64), Image.Resampling.NEAREST)
    return Editor(small).open(picture, SOURCE)


@pytest.fixture(scope="module")
def bundled(base: Base, picture: Image.Image) -> Session:
    return Editor(base).open(picture, SOURCE)


@pytest.fixture(scope="module")
def known_looks(base: Base) -> tuple[Concept, Concept]:
    return look(base, "<a>", 1), look(base, "<b>", 2)


def drawn(session: Session, entries: list[Any], target: str = TWO, **options: Any) -> Tensor:
    free = P2POptions(blend_over="none")
    given: dict[str, Any] = {"steps": 4, "strength": 0.3, "p2p": free} | options
    return session.edit(target, concepts=entries, **given).drawing.latents


def halves(x: Tensor) -> tuple[float, float]:
    """Mean squares of the left and the right half."""
    return float(x[..., :8].square().mean()), float(x[..., 8:].square().mean())


@pytest.mark.parametrize("method", ["p2p", "sdedit"])
def test_each_region_changes_by_its_own_concept(
    method: Any, known_looks: tuple[Concept, Concept], bundled: Session
) -> None:
    """Another concept in one region moves that half much more than the other."""
    a, b = known_looks
    options: dict[str, Any] = {"method": method, "strength": None, "p2p": None, "steps": 2}
    options[method] = {"blend_over": "none"}
    plain, other = (
        drawn(bundled, [Weighted(one, region=LEFT), Weighted(b, region=RIGHT)], **options)
        for one in (a, look_like(a, 7))
    )
    left, right = halves(other - plain)
    assert left > 2 * right, (left, right)


@pytest.mark.parametrize("method", NOISE_METHODS)
def test_every_method_draws_with_regions_beside_others(
    method: Any, looks: tuple[Concept, Concept], session: Session
) -> None:
    """Edits with regions and without go through shared calls, and come out as alone."""
    a, b = looks
    options: dict[str, Any] = {"method": method, "steps": 3}
    ways = [
        (TWO, [Weighted(a, region=LEFT), Weighted(b, region=RIGHT)]),
        (ONE, [Weighted(a)]),
        (ONE, [Weighted(a, region=RIGHT)]),
    ]
    orders = [
        Order(session, session.plan(target, concepts=entries, **options)[0], entries)
        for target, entries in ways
    ]
    together = session.editor.edit_all(orders)
    alone = [session.editor.edit_all([order])[0] for order in orders]
    for one, two in zip(together, alone, strict=True):
        assert torch.equal(one.drawing.latents, two.drawing.latents)
    apart = (alone[1].drawing.latents - alone[2].drawing.latents).abs().max()
    assert apart > 1e-3


def look_like(concept: Concept, seed: int) -> Concept:
    """Another look under the same token."""
    generator = torch.Generator().manual_seed(seed)

    def moved(parts: dict[str, Tensor]) -> dict[str, Tensor]:
        return {n: w + 0.05 * torch.randn(w.shape, generator=generator) for n, w in parts.items()}

    return Concept(
        concept.tokens, moved(concept.keys), moved(concept.values),
        noun=concept.noun, attribute=concept.attribute,
    )  # fmt: skip


def test_the_edit_may_change_the_union_of_the_regions(
    small: Base, looks: tuple[Concept, Concept], session: Session
) -> None:
    """Where nobody says more, in latents and in pixels at the picture's own size."""
    source = session.picture.resize((500, 400))
    regions = ConceptRegion(box=(0.1, 0.2, 0.4, 0.6)), ConceptRegion(box=(0.5, 0.5, 0.9, 0.7))
    entries = [Weighted(c, region=r) for c, r in zip(looks, regions, strict=True)]
    result = Editor(small).open(source, SOURCE).edit(TWO, concepts=entries, steps=4, feather=0)
    assert result.plan.preserve and result.region_words == ()
    assert result.plan.p2p is not None and result.plan.p2p.concept_regions
    allowed = np.zeros((400, 500), bool)
    allowed[80:240, 50:200] = allowed[200:280, 250:450] = True
    assert result.region is not None
    assert np.array_equal(result.region.numpy() > 0, allowed)
    changed = (np.asarray(result.image) != np.asarray(source)).any(2)
    assert not changed[~allowed].any()
    assert changed[80:240, 50:200].mean() > 0.5 and changed[200:280, 250:450].mean() > 0.5


def test_words_of_other_changes_and_masks_go_beside_regions(
    known_looks: tuple[Concept, Concept], bundled: Session
) -> None:
    session, entries = bundled, [Weighted(known_looks[0], region=LEFT)]
    other = "a photo of a <a> patterned cup on a wooden table"
    alone = session.plan(ONE, concepts=entries)[0]
    beside = session.plan(other, concepts=entries)[0]
    assert (alone.region_words, beside.region_words) == ((), ("table",))
    result = session.edit(other, concepts=entries, steps=3)
    words = session.edit(other, concepts=entries, steps=3, p2p=P2POptions(blend_words=["table"]))
    assert result.drawing.mask is not None and words.drawing.mask is not None
    left = torch.zeros(16, 16)
    left[:, :8] = 1
    assert torch.equal(result.drawing.mask, torch.maximum(words.drawing.mask, left))
    assert 0 < words.drawing.mask[:, 8:].sum() < 128  # given words are the region by themselves
    mask = torch.zeros(128, 128)
    mask[:64] = 1
    masked = session.edit(ONE, concepts=entries, steps=3, mask=mask)
    assert masked.plan.p2p is not None and not masked.plan.p2p.concept_regions
    assert masked.drawing.mask is not None
    assert torch.equal(masked.drawing.mask[:8], torch.ones(8, 16))


def test_every_cell_that_a_region_touches_is_the_edit_s(
    looks: tuple[Concept, Concept], session: Session
) -> None:
    """None at its edge is a part of the source's at each step."""
    painted = np.zeros((64, 64), np.float32)
    painted[10:34, 8:30] = 0.5  # soft, and not on the cells' edges
    box = ConceptRegion(box=(0.49, 0.13, 0.9, 0.7))
    entries = [
        Weighted(looks[0], region=ConceptRegion.of_mask(painted)),
        Weighted(looks[1], region=box),
    ]
    result = session.edit(TWO, concepts=entries, steps=3)
    mask = result.drawing.mask
    assert mask is not None and set(mask.unique().tolist()) == {0, 1}
    wanted = torch.zeros_like(mask)
    wanted[2:9, 2:8] = 1
    wanted[2:12, 7:15] = 1
    assert torch.equal(mask, wanted) and result.plan.feather == 2


def test_the_rule_of_words_with_regions() -> None:
    placed = ConceptWords(("<a>",), "cup", "patterned", region="concepts[0].box")
    said = ConceptWords(("<b>",), "ball")
    assert words_beside_regions(SOURCE, ONE, [placed]) == ()
    both = "a photo of a <a> cup beside a <b> table"
    assert words_beside_regions(SOURCE, both, [placed, said]) == ("table",)
    painting = "a painting of a <a> cup on a table"  # as beside any concept that is said of a thing
    assert words_beside_regions(SOURCE, painting, [placed]) == ()
    assert words_beside_regions(SOURCE, "a painting of a red cup on a table") is None


@pytest.mark.parametrize("by_mask", [False, True])
def test_a_recipe_gives_the_same_bits(
    looks: tuple[Concept, Concept], session: Session, by_mask: bool
) -> None:
    base, painted = session.editor.base, np.zeros((64, 64), np.float32)
    painted[:, :32] = 1
    first = ConceptRegion.of_mask(painted) if by_mask else LEFT
    entries = [Weighted(looks[0], 0.8, first), Weighted(looks[1], region=RIGHT)]
    result = session.edit(TWO, concepts=entries, steps=3)
    plan = EditPlan.read(result.plan.as_json())
    assert plan == result.plan
    assert plan.concepts[1].box == (0.5, 0, 1, 1) and (plan.concepts[0].mask is None) != by_mask
    given = entries if by_mask else list(looks)
    again = Editor(base).replay(plan, session.picture, concepts=given[::-1])
    assert torch.equal(again.drawing.latents, result.drawing.latents)
    assert again.image.tobytes() == result.image.tobytes()
    wrongs: list[tuple[Any, str]] = [
        (Weighted(looks[0], region=ConceptRegion.of_mask(1 - painted)), "is not that of"),
        (Weighted(looks[0], region=RIGHT), "is not that of the recipe"),
        *([(looks[0], "of <a> is missing")] if by_mask else []),
    ]
    for wrong, problem in wrongs:
        with pytest.raises(InputError, match=f"region: .*{problem}"):
            Editor(base).replay(plan, session.picture, concepts=[wrong, looks[1]])


def test_a_mask_and_the_same_box_draw_the_same(
    looks: tuple[Concept, Concept], session: Session
) -> None:
    painted = Image.new("L", (256, 256))
    painted.paste(255, (0, 0, 128, 256))
    regions = LEFT, ConceptRegion.of_mask(painted)
    one, two = (drawn(session, [Weighted(looks[0], region=r)], ONE) for r in regions)
    assert torch.equal(one, two)


def refused(session: Session, entries: list[Any], target: str = ONE, **options: Any) -> InputError:
    with pytest.raises(InputError) as error:
        session.plan(target, concepts=entries, **options)
    return error.value


def test_regions_without_effect_are_refused(
    looks: tuple[Concept, Concept], session: Session
) -> None:
    a = looks[0]
    right = torch.zeros(64, 64)
    right[:, 36:] = 1
    error = refused(session, [Weighted(a, region=LEFT)], mask=right)
    assert (error.field, error.problem) == (
        "concepts[0].box", "lies outside the mask, so that <a> has no effect",
    )  # fmt: skip
    error = refused(session, [Weighted(a, region=LEFT)], everywhere=True)
    assert (error.field, error.problem) == ("concepts[0].box", "contradicts everywhere")
    small = ConceptRegion(box=(0.5, 0.5, 0.52, 0.9))
    error = refused(session, [looks[1], Weighted(a, region=small)], TWO)
    assert error.field == "concepts[1].box" and "no latent cell" in error.problem
    error = refused(session, [Weighted(a, region=LEFT)], SOURCE.replace("red", "blue"))
    assert "names no token of the concept <a>" in error.problem
    named = Editor(session.editor.base).open(session.picture, ONE)
    error = refused(named, [Weighted(a, region=LEFT)], SOURCE, method="ddpm")
    assert error.field == "concepts[0].box" and "does not name <a>" in error.problem
    for mask, problem in (
        (torch.ones(64, 64), "covers the whole picture"),
        (torch.zeros(64, 64), "black everywhere"),
        (torch.eye(64)[:, :32], "is 32 x 64 pixels, an aspect of 0.500"),
        (right * 3, "spans 0 to 3"),
    ):
        error = refused(session, [Weighted(a, region=ConceptRegion(mask=mask))])
        assert error.field == "concepts[0].mask" and problem in error.problem
    error = refused(session, [Weighted(a, region=LEFT)], p2p={"threshold": 0.4})
    assert error.field == "p2p.threshold" and "on concepts' regions" in error.problem


def test_a_concept_that_changes_other_layers_has_no_region(
    small: Base, looks: tuple[Concept, Concept], session: Session
) -> None:
    base = small
    path = f"unet.{base.self_layers[0]}.to_q"
    width = base.denoiser.get_submodule(base.self_layers[0]).to_q.weight.shape
    soft = Concept({"<a>": looks[0].tokens["<a>"]}, adapters={
        path: LowRank(torch.ones(width[0], 1), torch.ones(1, width[1]))
    })  # fmt: skip
    error = refused(session, [Weighted(soft, region=LEFT)], "a photo of a <a> cup on a table")
    assert error.field == "concepts[0].box" and "acts on the whole picture" in error.problem


@torch.no_grad()
def test_the_pooled_text_is_that_without_the_concept(
    small: Base, looks: tuple[Concept, Concept]
) -> None:
    """It acts on the whole picture, so another concept in a region has the same."""
    texts = [
        small.text("a <a> cup", [Weighted(concept, region=LEFT)], size=(16, 16))
        for concept in (looks[0], look(small, "<a>", 5))
    ]
    assert texts[0].pooled is not None and texts[1].pooled is not None
    assert torch.equal(texts[0].pooled, texts[1].pooled)
    assert texts[0].readings is not None and len(texts[0].readings.readings) == 2
    free = small.text("a <a> cup", [Weighted(looks[0])])
    assert free.pooled is not None and not torch.equal(texts[0].pooled, free.pooled)


@pytest.mark.parametrize("kind", ["sd3", "flux"])
def test_families_that_cannot_keep_a_concept_say_why(kind: str) -> None:
    base = flow_folders.wrapped(getattr(flow_folders, kind)())
    concept = Concept({"<a>": torch.zeros(base.width)}, noun="cup")
    session = Editor(base).open(Image.new("RGB", (64, 64), "olive"), SOURCE)
    error = refused(session, [Weighted(concept, region=LEFT)], "a photo of a <a> cup on a table")
    assert error.field == "concepts[0].box"
    assert "regions of concepts is not in this family" in error.problem
    assert "every word has seen the concept" in error.problem
