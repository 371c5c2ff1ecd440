"""Concepts with regions: cross-attention against maps written out in full, position by position."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from customedit.boxes import axis_shares, check_box, check_cells
from customedit.concepts.concept import Concept
from customedit.diffusion.attention import Forward
from customedit.diffusion.attention_control import AttentionControl
from customedit.diffusion.base import Base
from customedit.diffusion.concept_regions import ConceptRegion, inside, sets_anywhere
from customedit.diffusion.controlled_rows import RowsControl, by_regions
from customedit.diffusion.families.unet import UNetFamily
from customedit.diffusion.readings import MOST_READINGS, bound_columns, check_overlaps, without
from customedit.diffusion.text import PromptRow, TextContext, Weighted
from customedit.errors import InputError
from customedit.prompt_syntax import joined_words

from .conftest import change

PROMPT = "a photo of a <a> patterned cup and a <b> patterned ball"
LEFT, RIGHT = ConceptRegion(box=(0, 0, 0.5, 1)), ConceptRegion(box=(0.5, 0, 1, 1))
SIZE = (16, 16)


def look(base: Base, token: str, seed: int) -> Concept:
    """A concept with random weights, of patterned cups."""
    made = change(base, token, seed, size=0.02)
    return Concept(made.tokens, made.keys, made.values, noun="cup", attribute="patterned")


@pytest.fixture(scope="module")
def looks(base: Base) -> tuple[Concept, Concept]:
    return look(base, "<a>", 1), look(base, "<b>", 2)


def placed(base: Base, concepts: Any, regions: Any, prompt: str = PROMPT) -> TextContext:
    entries = [Weighted(c, region=r) for c, r in zip(concepts, regions, strict=True)]
    return base.text(prompt, entries, size=SIZE)


class Watched:
    """The layers of a base as they are called: what each cross-attention saw and gave."""

    def __init__(self, base: Base) -> None:
        self.base, self.seen = base, list[tuple[str, Tensor, Tensor]]()

    def __enter__(self) -> Watched:
        self.hooks = [
            self.base.denoiser.get_submodule(name).register_forward_hook(
                lambda _m, args, out, name=name: self.seen.append((name, args[0], out))
            )
            for name in self.base.layers
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()


def written_out(
    base: Base, layer: str, states: Tensor, text: TextContext, columns: list[int]
) -> tuple[Tensor, Tensor]:
    """One row of one layer in full: (maps [heads, positions, tokens], output).

    The logits of all but ``columns`` are minus infinity, everywhere.
    """
    attn, number = base.denoiser.get_submodule(layer), base.layers.index(layer)
    bias = torch.full((len(text.keys[number]),), -torch.inf)
    bias[columns] = 0

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (attn.heads, -1)).transpose(0, 1)

    query, key, value = heads(attn.to_q(states)), heads(text.keys[number]), text.values[number]
    maps = torch.softmax(query @ key.mT * attn.scale + bias, -1)
    return maps, attn.to_out[0]((maps @ heads(value)).transpose(0, 1).flatten(1))


def plain(
    base: Base, acting: list[Concept], absent: list[Concept]
) -> tuple[TextContext, list[int]]:
    """The prompt with ``acting`` alone by the base's parts, and the columns that it attends to."""
    vectors = {t: v for c in (*acting, *absent) for t, v in c.tokens.items()}
    ordered = {t: vectors[t] for t in sorted(vectors)}
    tokens = base.tokens(PROMPT, ordered)
    hidden = {column for c in absent for column in bound_columns(c, tokens)}
    (encoded,) = base.family.encode([PromptRow(without(tokens, absent), ordered)])
    text = base.family.row(PROMPT, encoded, [Weighted(c) for c in acting], tokens)
    return text, [k for k in range(base.length) if k not in hidden]


@torch.no_grad()
def test_every_position_reads_the_concepts_of_its_regions(
    base: Base, looks: tuple[Concept, Concept], latents: Tensor
) -> None:
    """Of each layer: the left half as with <a> alone, the right as with <b>, the rest with none."""
    a, b = looks
    middle = ConceptRegion(box=(0.25, 0, 0.75, 0.5))
    text = placed(base, looks, (LEFT, middle))
    wanted = {(): plain(base, [], [a, b]), ("a",): plain(base, [a], [b])}
    wanted |= {("b",): plain(base, [b], [a]), ("a", "b"): plain(base, [a, b], [])}
    with Watched(base) as watched:
        base.output(latents[:1], 501, [text])
    assert len(watched.seen) == len(base.layers)
    for layer, states, got in watched.seen:
        side = int(states.shape[1] ** 0.5)
        regions = {
            n: inside(r.shares(*SIZE)[None], (side, side))
            for n, r in zip("ab", (LEFT, middle), strict=True)
        }
        for acting, (context, columns) in wanted.items():
            here = torch.ones(1, side, side, dtype=torch.bool)
            for name, region in regions.items():
                here &= region if name in acting else ~region
            maps, out = written_out(base, layer, states[0], context, columns)
            assert torch.allclose(got[0][here.flatten()], out[here.flatten()], atol=1e-5)
            absent = [k for k in range(base.length) if k not in columns]
            assert (maps[..., absent] == 0).all()


@torch.no_grad()
def test_the_recorded_maps_are_zero_outside_and_the_rule_inside(
    base: Base, looks: tuple[Concept, Concept], latents: Tensor
) -> None:
    text = placed(base, looks, (LEFT, RIGHT))
    control = dataclasses.replace(
        AttentionControl.none(1, base.length), record=torch.tensor([True])
    )
    got, maps = base.output(latents[:1], 501, [text], control)
    unrecorded, _ = base.output(latents[:1], 501, [text])
    assert torch.equal(got, unrecorded)
    assert maps is not None and torch.allclose(maps.sum(-1), torch.ones(1, *SIZE), atol=1e-5)
    assert text.tokens is not None
    halves = (slice(8), slice(8, 16))
    for concept, ours, others in zip(looks, halves, halves[::-1], strict=True):
        columns = bound_columns(concept, text.tokens)
        assert len(columns) == 2  # the token and "patterned"
        assert (maps[0, :, others][..., columns] == 0).all()
        assert (maps[0, :, ours][..., columns] > 0).all()


@torch.no_grad()
def test_mixed_maps_are_zero_outside_too(
    base: Base, looks: tuple[Concept, Concept], latents: Tensor
) -> None:
    """A word swap gives the token the source's map, and its region still holds."""
    source, text = base.text("a photo of a red cup"), placed(base, looks, (LEFT, RIGHT))
    control = AttentionControl.none(2, base.length)
    control.cross_source[1] = 0
    control.mapper[1] = 0.1
    control.from_source[1], control.from_own[1] = 1.0, 0.5
    control.record[:] = True
    _, maps = base.output(latents[:2], 501, [source, text], control)
    assert maps is not None and text.tokens is not None
    columns = bound_columns(looks[0], text.tokens)
    assert (maps[1, :, 8:][..., columns] == 0).all()
    assert (maps[1, :, :8][..., columns] >= 0.1).all()
    assert (maps[0][..., columns] > 0).all()  # the source's own row has no regions


@torch.no_grad()
def test_rows_with_regions_and_without_are_each_as_alone(
    base: Base, looks: tuple[Concept, Concept], latents: Tensor
) -> None:
    a, b = looks
    texts = [
        base.text("a photo of a cup"),
        placed(base, looks, (LEFT, RIGHT)),
        base.text("a photo of a <a> patterned cup", [Weighted(a)]),
        placed(base, [b], [LEFT], "a <b> patterned ball"),
    ]
    x = torch.cat([latents, latents[:1]])
    control = AttentionControl.none(4, base.length)
    control.cross_source[1], control.self_source[1] = 0, 0
    control.from_source[1, 3:], control.from_own[1, 3:] = 0.7, 0.3
    for chosen in (None, control):
        together, _ = base.output(x, 501, texts, chosen)
        for row, text in enumerate(texts):
            if chosen is not None and row == 1:
                two, _ = base.output(x[:2], 501, texts[:2], control.select(torch.arange(2)))
                alone = two[1]
            else:
                alone = base.output(x[row : row + 1], 501, [text])[0][0]
            assert torch.equal(together[row], alone)
    repeated, _ = base.output(x[:1].repeat(3, 1, 1, 1), 501, [texts[1], texts[0], texts[1]])
    assert torch.equal(repeated[0], repeated[2])


def mixing(base: Base, record: tuple[bool, bool]) -> AttentionControl:
    """Of two rows: the second takes maps of the first. record: whose maps are handed back."""
    control = AttentionControl.none(2, base.length)
    control.cross_source[1] = 0
    control.from_source[1, 3:], control.from_own[1, 3:] = 0.7, 0.3
    control.record[:] = torch.tensor(record)
    return control


@torch.no_grad()
@pytest.mark.parametrize("regions_first", [False, True])
def test_another_requests_regions_change_no_bit(
    base: Base, looks: tuple[Concept, Concept], latents: Tensor, regions_first: bool
) -> None:
    """Rows of other requests keep the fused kernel, and recorded maps come in the rows' order."""
    source = base.text("a photo of a red cup")
    requests = [
        (mixing(base, (True, False)), [source, base.text("a photo of a blue cup")]),
        (mixing(base, (True, True)), [source, placed(base, looks, (LEFT, RIGHT))]),
        (AttentionControl.none(1, base.length), [placed(base, looks, (RIGHT, LEFT))]),
    ]
    requests = requests[::-1] if regions_first else requests
    rows = [latents[: len(texts)] for _, texts in requests]
    got, maps = base.output(
        torch.cat(rows), 501, [text for _, texts in requests for text in texts],
        AttentionControl.join([control for control, _ in requests]),
    )  # fmt: skip
    assert maps is not None and len(maps) == 3
    at = read = 0
    for x, (control, texts) in zip(rows, requests, strict=True):
        alone, recorded = base.output(x, 501, texts, control)
        assert torch.equal(got[at : at + len(x)], alone)
        count = int(control.record.sum())
        if recorded is not None:
            assert torch.equal(maps[read : read + count], recorded)
        at, read = at + len(x), read + count


def test_rows_by_regions_are_those_that_read_so_or_take_such_a_map(
    base: Base, looks: tuple[Concept, Concept]
) -> None:
    regions = placed(base, looks, (LEFT, RIGHT)).readings
    joint = AttentionControl.join(
        [mixing(base, (True, False)), mixing(base, (False, False)), mixing(base, (True, True))]
    )
    cases: list[tuple[list[Any], list[int]]] = [
        ([None] * 6, []),
        ([None, None, None, regions, None, None], [3]),
        ([regions, None, None, None, None, None], [0, 1]),
    ]
    for readings, wanted in cases:
        assert by_regions(joint, readings).nonzero()[:, 0].tolist() == wanted


@torch.no_grad()
def test_outside_a_region_nothing_of_the_concept_is_read(
    base: Base, looks: tuple[Concept, Concept], latents: Tensor
) -> None:
    """Another concept in the same region: the same bits outside, in the first layer."""
    other = look(base, "<a>", 9)
    found = []
    for concept in (looks[0], other):
        text = placed(base, [concept], [LEFT], "a photo of a <a> patterned cup")
        with Watched(base) as watched:
            base.output(latents[:1], 501, [text])
        found.append(watched.seen[0][2].unflatten(1, (16, 16)))
    assert torch.equal(found[0][:, :, 8:], found[1][:, :, 8:])
    assert (found[0][:, :, :8] - found[1][:, :, :8]).abs().max() > 1e-3
    nobody = base.text("a photo of a cup")  # but for positions in the prompt, it reads this
    with Watched(base) as watched:
        base.output(latents[:1], 501, [nobody])
    wanted = watched.seen[0][2].unflatten(1, (16, 16))
    away = (found[0][:, :, 8:] - wanted[:, :, 8:]).norm() / wanted[:, :, 8:].norm()
    assert away < 0.5


@torch.no_grad()
def test_regions_that_are_swapped_swap_what_is_read(
    base: Base, looks: tuple[Concept, Concept]
) -> None:
    """Where both halves ask the same, each reads what the other read."""
    generator = torch.Generator().manual_seed(3)
    layer, family = base.denoiser.get_submodule(base.layers[0]), base.family
    assert isinstance(family, UNetFamily)
    half = torch.randn((1, 16, 8, layer.to_q.in_features), generator=generator)
    states = torch.cat([half, half], 2).flatten(1, 2)
    outs = []
    for regions in ((LEFT, RIGHT), (RIGHT, LEFT)):
        text = placed(base, looks, regions)
        keys, values = ([x[None] for x in found] for found in (text.keys, text.values))
        control = RowsControl.of(None, values, SIZE, base.device, [text.readings])
        family.state.forward = Forward(keys, values, 0, control)
        try:
            outs.append(layer(states).unflatten(1, SIZE))
        finally:
            family.state.forward = None
    one, two = outs
    assert (one[:, :, :8] - two[:, :, 8:]).abs().max() <= 1e-6
    assert (one[:, :, 8:] - two[:, :, :8]).abs().max() <= 1e-6
    assert (one[:, :, :8] - one[:, :, 8:]).abs().max() > 1e-3  # the concepts differ


def test_bound_columns_are_the_token_and_its_attribute(base: Base) -> None:
    concept = look(base, "<a>", 1)
    vectors = concept.tokens

    def words(prompt: str) -> list[str]:
        tokens = base.tokens(prompt, vectors)
        columns = bound_columns(concept, tokens)
        return [w for k, w in enumerate(tokens.words) if set(tokens.columns(k)) & set(columns)]

    assert words("a photo of a <a> patterned cup") == ["<a>", "patterned"]
    assert words("a photo of a <a> cup, patterned") == ["<a>"]
    assert words("a patterned cup in <a>, patterned") == ["<a>,"]
    assert words("a <a> Patterned, cup") == ["<a>", "Patterned,"]
    assert words("a cup") == []
    attributes = ("patterned", "hand painted", "patterned")
    concept = dataclasses.replace(concept, attribute=joined_words(attributes))
    assert words("a <a> patterned cup") == ["<a>", "patterned"]
    assert words("a <a> hand painted cup") == ["<a>", "hand", "painted"]
    assert words("a <a> hand cup") == ["<a>"]


@pytest.mark.parametrize("sides", [(16, 16), (8, 8), (4, 4), (2, 2)])
def test_a_position_is_inside_by_half_or_has_most(sides: tuple[int, int]) -> None:
    box = ConceptRegion(box=(0.25, 0.5, 0.5, 1.0))
    found = inside(box.shares(*SIZE)[None], sides)[0]
    rows, columns = sides
    if columns >= 4:
        wanted = torch.zeros(sides, dtype=torch.bool)
        wanted[rows // 2 :, columns // 4 : columns // 2] = True
        assert torch.equal(found, wanted)
    else:  # half of the lower left quarter
        assert found.tolist() == [[False, False], [True, False]]
    small = ConceptRegion(box=(0.0, 0.0, 1 / 16, 1 / 16))
    assert inside(small.shares(*SIZE)[None], sides)[0].sum() == 1


def test_shares_of_a_box_are_areas() -> None:
    assert axis_shares(0.25, 0.625, 4) == [0.0, 1.0, 0.5, 0.0]
    box = ConceptRegion(box=(0.1, 0.2, 0.6, 0.9))
    assert float(box.shares(7, 5).sum()) == pytest.approx(0.5 * 0.7 * 35)
    painted = torch.zeros(70, 50)
    painted[14:63, 5:30] = 1
    assert torch.allclose(box.shares(7, 5), ConceptRegion.of_mask(painted).shares(7, 5), atol=1e-5)


@pytest.mark.parametrize(
    ("box", "problem"),
    [
        ((0.1, 0.1, 1.2, 0.5), "is 0.1, 0.1, 1.2, 0.5; give left, top, right, bottom"),
        ((-0.1, 0.1, 0.2, 0.5), "give left, top"),
        ((0.1, 0.1, float("nan"), 0.5), "give left, top"),
        ((0.5, 0.1, 0.5, 0.5), "no area"),
        ((0.1, 0.9, 0.5, 0.5), "no area"),
        ((0.0, 0.0, 1.0, 1.0), "is the whole picture; leave it out"),
    ],
)
def test_boxes_that_are_none(box: Any, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as refused:
        check_box(box)
    assert refused.value.field == "box"
    with pytest.raises(InputError, match=problem):
        ConceptRegion(box=box)


def test_a_region_is_given_once_and_fills_a_cell() -> None:
    with pytest.raises(InputError, match="box: is given with a mask"):
        ConceptRegion(box=(0, 0, 0.5, 1), mask=torch.ones(2, 2))
    with pytest.raises(InputError, match="box: is missing"):
        ConceptRegion()
    check_cells((0, 0, 1 / 16, 1 / 32), SIZE)
    with pytest.raises(
        InputError, match="half of no latent cell, of which the picture has 16 x 16"
    ):
        check_cells((0, 0, 1 / 16, 1 / 40), SIZE)


def test_regions_overlap_in_so_many_ways_at_most(base: Base) -> None:
    """Each way has keys and values of its own."""
    check_overlaps(MOST_READINGS)
    rows = [ConceptRegion(box=(k / 16, 0, (k + 8) / 16, 1)) for k in range(8)]
    columns = [ConceptRegion(box=(0, k / 16, 1, (k + 8) / 16)) for k in range(8)]
    shares = torch.stack([r.shares(*SIZE) for r in (*rows, *columns)])
    sets = sets_anywhere(shares, base.family.cross_grids(*SIZE))
    assert sets[0] == frozenset() and len(sets) > MOST_READINGS
    with pytest.raises(
        InputError, match=f"concepts: have regions that overlap in {len(sets)} ways"
    ):
        check_overlaps(len(sets))


def test_regions_need_the_size_of_the_latents(
    base: Base, looks: tuple[Concept, Concept], latents: Tensor
) -> None:
    entry = Weighted(looks[0], region=LEFT)
    with pytest.raises(ValueError, match="regions are of latents of a size"):
        base.text("a <a> cup", [entry])
    text = base.text("a <a> cup", [entry], size=(8, 8))
    with pytest.raises(ValueError, match=r"of latents \(8, 8\), not \(16, 16\)"):
        base.output(latents[:1], 501, [text])


def test_a_region_of_a_mask_is_read_as_masks_of_edits_are() -> None:
    """Transparent is outside, and 16 bits are not clipped."""
    clear = Image.new("RGBA", (4, 2), (255, 255, 255, 0))
    clear.putpixel((1, 0), (255, 255, 255, 255))
    deep = Image.fromarray(np.array([[0, 65535, 0, 0], [0, 0, 0, 32768]], np.uint16))
    for mask, wanted in (
        (clear, [[0, 1, 0, 0], [0, 0, 0, 0]]),
        (deep, [[0, 1, 0, 0], [0, 0, 0, 32768 / 65535]]),
    ):
        found = ConceptRegion.of_mask(mask).mask
        assert found is not None
        torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float32))
    coloured = Image.merge("RGB", [Image.linear_gradient("L").rotate(a) for a in (0, 90, 180)])
    with pytest.raises(InputError, match="mask: holds colours"):
        ConceptRegion.of_mask(coloured)
