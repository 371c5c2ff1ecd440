"""Whole edits by sessions: regions, masks, sizes, ``change``, inversions that are shared."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from customedit.diffusion.base import Base
from customedit.diffusion.engine import run
from customedit.diffusion.method import Progress
from customedit.diffusion.text import Weighted
from customedit.editing.edit import edit, encode_and_invert
from customedit.editing.editor import Editor, InversionFolder, Order, Session
from customedit.editing.inversion import unconditional
from customedit.errors import InputError
from customedit.schemas.methods import P2POptions

from .conftest import NOISE_METHODS

SOURCE, TARGET = "a photo of a red cup on a table", "a photo of a blue cup on a table"


class Word:
    """A concept that trains nothing but its embedding."""

    def __init__(self, base: Base, token: str) -> None:
        self.tokens = {token: torch.randn(base.width, generator=torch.Generator().manual_seed(0))}
        self.keys: dict[str, torch.Tensor] = {}
        self.values: dict[str, torch.Tensor] = {}


@pytest.fixture
def session(base: Base, picture: Image.Image) -> Session:
    return Editor(base).open(picture, SOURCE)


def left_half(height: int, width: int) -> torch.Tensor:
    mask = torch.zeros(height, width)
    mask[:, : width // 2] = 1
    return mask


@pytest.mark.parametrize("size", [(500, 400), (130, 128), (96, 160)])
def test_every_result_has_the_size_of_the_source(
    base: Base, picture: Image.Image, size: tuple[int, int]
) -> None:
    source = picture.resize(size)
    session = Editor(base).open(source, SOURCE)
    for options in ({}, {"preserve": True}, {"method": "sdedit"}, {"change": 0.0}):
        result = session.edit(TARGET, steps=2, **options)
        assert result.image.size == size
        assert result.drawing.working.size == base.size(*size)
        assert result.source.tobytes() == source.tobytes()


def test_preserved_pixels_are_the_sources_own(base: Base, picture: Image.Image) -> None:
    large = picture.resize((500, 400))
    result = Editor(base).open(large, SOURCE).edit(TARGET, steps=5, feather=4.0)
    assert result.region_words == ("cup",) and result.region is not None
    changed = (np.asarray(result.image) != np.asarray(large)).any(2)
    assert 0 < changed.mean() < 0.9


@pytest.mark.parametrize("method", ["p2p", "sdedit"])
@pytest.mark.parametrize("size", [(128, 128), (480, 320), (200, 555)])
def test_outside_a_users_mask_every_pixel_stays(
    base: Base, picture: Image.Image, method: Any, size: tuple[int, int]
) -> None:
    """Beyond the feather, at the source's own size: not at that of the latents' cells."""
    source, feather = picture.resize(size), 3
    mask = torch.zeros(size[1], size[0])
    mask[size[1] // 4 : size[1] // 2, size[0] // 3 : size[0] // 2] = 1
    result = Editor(base).open(source, SOURCE).edit(
        TARGET, method=method, steps=3, mask=mask, preserve=True, feather=feather
    )  # fmt: skip
    changed = (np.asarray(result.image) != np.asarray(source)).any(2)
    reach = feather + 1
    allowed = torch.nn.functional.max_pool2d(mask[None], 2 * reach + 1, 1, reach)[0].bool().numpy()
    assert changed.any() and not changed[~allowed].any()


@pytest.mark.parametrize("method", ["p2p", "sdedit"])
def test_a_users_mask_holds_the_latents(
    base: Base, picture: Image.Image, session: Session, method: Any
) -> None:
    free = session.edit(TARGET, method=method, steps=4, **_reaching(method))
    held = session.edit(TARGET, method=method, steps=4, mask=left_half(128, 128))
    source = base.encode(picture)[..., 8:]
    assert (held.drawing.latents[..., 8:] - source).abs().max() <= 1e-5
    assert (free.drawing.latents[..., 8:] - source).abs().max() > 0.1
    assert (held.drawing.latents[..., :8] - base.encode(picture)[..., :8]).abs().max() > 0.1


def _reaching(method: str) -> dict[str, Any]:
    """Options with which the edit reaches everywhere."""
    return {method: {"blend_over": "none"}}


def test_words_and_a_mask_hold_together(session: Session) -> None:
    words = P2POptions(blend_words=["cup"])
    by_words = session.edit(TARGET, steps=4, p2p=words).drawing.mask
    both = session.edit(TARGET, steps=4, p2p=words, mask=left_half(128, 128)).drawing.mask
    alone = session.edit(TARGET, steps=4, mask=left_half(128, 128)).drawing.mask
    assert by_words is not None and both is not None and alone is not None
    assert 0 < both.sum() < min(by_words.sum(), alone.sum())
    assert torch.equal(both, both * by_words) and torch.equal(both, both * alone)
    assert torch.equal(alone[:, :8], torch.ones(16, 8))  # nobody named words: the mask is all


@pytest.mark.parametrize("method", NOISE_METHODS)
def test_change_runs_the_same_way_in_every_method(
    base: Base, session: Session, picture: Image.Image, method: Any
) -> None:
    latents = base.encode(picture)
    away = []
    for change in (0.0, 0.1, 0.35, 0.6, 1.0):
        result = session.edit(
            TARGET, method=method, change=change, steps=10, preserve=False, **_reaching(method)
        )
        away.append(float((result.drawing.latents - latents).square().mean()))
        if change == 0:
            assert result.image.tobytes() == picture.tobytes()
    assert away[0] == 0 and away[1] > 0
    # free of the source's features an edit may land a little nearer to the source by chance
    assert all(more > 0.95 * less for less, more in itertools.pairwise(away))


def test_a_session_inverts_once(base: Base, picture: Image.Image) -> None:
    phases: list[str] = []

    def listen(progress: Progress) -> None:
        phases.append(progress.phase)

    session = Editor(base).open(picture, SOURCE)
    first = session.edit(TARGET, steps=3, on_progress=listen)
    session.edit("a photo of a green cup on a table", steps=3, strength=0.2, on_progress=listen)
    session.edit(TARGET, steps=3, inversion="ddim", on_progress=listen)  # of the same trajectory
    session.sweep(TARGET, strengths=(0.2, 0.5), steps=3, on_progress=listen)
    assert phases.count("invert") == 3
    again = session.edit(TARGET, steps=3)
    assert torch.equal(first.drawing.latents, again.drawing.latents)


def test_a_sweep_without_a_store_inverts_once(base: Base, picture: Image.Image) -> None:
    phases: list[str] = []
    session = Editor(base).open(picture, SOURCE)
    results = session.sweep(
        TARGET, strengths=(0.2, 0.8), seeds=(1,), steps=3,
        on_progress=lambda progress: phases.append(progress.phase),
    )  # fmt: skip
    assert [r.plan.strength for r in results] == [0.2, 0.8]
    assert {r.plan.seed for r in results} == {1} and phases.count("invert") == 3
    drawn = session.sweep(TARGET, strengths=(0.5,), seeds=(1, 2), method="sdedit", steps=2)
    assert [r.plan.seed for r in drawn] == [1, 2]
    with pytest.raises(InputError, match=r"seeds: are 2, .*; give one seed, or use sdedit"):
        session.sweep(TARGET, seeds=(1, 2))
    with pytest.raises(InputError, match="strengths: with seeds make 0 edits"):
        session.sweep(TARGET, strengths=())


@pytest.mark.parametrize("kind", ["direct", "null-text", "negative-prompt", "ddim"])
def test_an_inversion_from_a_store_gives_the_same_bits(
    base: Base, picture: Image.Image, tmp_path: Path, kind: Any
) -> None:
    fresh = Editor(base).open(picture, SOURCE).edit(TARGET, steps=2, inversion=kind)
    stored = [
        Editor(base, inversions=tmp_path).open(picture, SOURCE).edit(
            TARGET, steps=2, inversion=kind
        )
        for _ in range(2)
    ]  # fmt: skip
    assert len(list(tmp_path.iterdir())) == 1
    for result in stored:
        assert torch.equal(fresh.drawing.latents, result.drawing.latents)


def test_bases_of_other_dtypes_keep_their_own_inversions(
    base: Base, picture: Image.Image, tmp_path: Path
) -> None:
    """After a run in bfloat16 an edit in float32 is as if there had been none."""
    half = Base.load(dtype=torch.bfloat16)
    fresh = Editor(base).open(picture, SOURCE).edit(TARGET, steps=2)
    for model in (half, base):
        result = Editor(model, inversions=tmp_path).open(picture, SOURCE).edit(TARGET, steps=2)
    assert torch.equal(fresh.drawing.latents, result.drawing.latents)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_damaged_inversion_is_made_again(
    base: Base, picture: Image.Image, tmp_path: Path
) -> None:
    session = Editor(base, inversions=InversionFolder(tmp_path)).open(picture, SOURCE)
    first = session.edit(TARGET, steps=2)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    again = Editor(base, inversions=tmp_path).open(picture, SOURCE).edit(TARGET, steps=2)
    assert torch.equal(first.drawing.latents, again.drawing.latents)


@pytest.mark.parametrize("method", ["p2p", "sdedit"])
def test_everywhere_is_the_whole_model_customised(
    method: Any, base: Base, picture: Image.Image, session: Session
) -> None:
    """A concept that changes weights acts without its token, and as a customised model would."""
    word = Word(base, "<a>")
    layer = base.layers[0]
    for part, name in ((word.keys, "to_k"), (word.values, "to_v")):
        weight = base.weights[f"{layer}.{name}.weight"]
        part[layer] = weight + 0.2 * torch.randn(
            weight.shape, generator=torch.Generator().manual_seed(1)
        )
    common = {"method": method, "steps": 4, "seed": 3} | _reaching(method)
    plain = session.edit(TARGET, **common).drawing
    acted = session.edit(TARGET, concepts=[word], everywhere=True, **common).drawing
    assert not torch.allclose(acted.latents, plain.latents, atol=1e-3)
    if method == "sdedit":  # and the like of a base with these weights put in
        other = copy.deepcopy(base)
        for part, name in ((word.keys, "to_k"), (word.values, "to_v")):
            other.weights[f"{layer}.{name}.weight"].data.copy_(part[layer])
        whole = Editor(other).open(picture, SOURCE).edit(TARGET, **common).drawing
        assert torch.allclose(acted.latents, whole.latents, atol=1e-4)


def changed_word(base: Base, token: str, seed: int) -> tuple[Word, Base]:
    """A concept that changes keys and values of a layer, and a base with these weights put in."""
    word, other = Word(base, token), copy.deepcopy(base)
    layer, generator = base.layers[0], torch.Generator().manual_seed(seed)
    for part, name in ((word.keys, "to_k"), (word.values, "to_v")):
        weight = base.weights[f"{layer}.{name}.weight"]
        part[layer] = weight + 0.2 * torch.randn(weight.shape, generator=generator)
        other.weights[f"{layer}.{name}.weight"].data.copy_(part[layer])
    return word, other


@pytest.mark.parametrize("kind", ["null-text", "negative-prompt", "ddim"])
def test_everywhere_reaches_the_unconditional_rows_of_every_inversion(
    kind: Any, base: Base, picture: Image.Image, session: Session
) -> None:
    """The edit is that of a base with the weights put in, from the inversion of the base itself."""
    word, other = changed_word(base, "<a>", 1)
    acting = [Weighted(word)]
    (plan,) = session.plan(TARGET, concepts=acting, everywhere=True, inversion=kind, steps=4)
    inversion = run(base, encode_and_invert(base, plan, picture))
    acted = run(base, edit(base, plan, picture, concepts=acting, inversion=inversion)).drawing
    plain = plan.model_copy(update={"everywhere": False, "concepts": ()})
    whole = run(other, edit(other, plain, picture, inversion=inversion)).drawing
    torch.testing.assert_close(acted.latents, whole.latents, atol=1e-4, rtol=0)
    if kind == "null-text":
        assert inversion.nulls is not None
        empty = base.text("", acting, everywhere=True)
        row = unconditional(base, inversion, 2, empty, acting)
        wanted = other.context(inversion.nulls[2])
        for ours, theirs in ((row.keys, wanted.keys), (row.values, wanted.values)):
            for own, wished in zip(ours, theirs, strict=True):
                torch.testing.assert_close(own, wished, atol=1e-5, rtol=0)
        assert not torch.allclose(row.keys[0], base.context(inversion.nulls[2]).keys[0], atol=0.1)


@pytest.mark.parametrize("method", NOISE_METHODS)
def test_edits_by_several_concepts_everywhere_are_the_same_together_and_alone(
    method: Any, base: Base, session: Session
) -> None:
    """Each reads source and empty prompt through its own weights: no row of another is taken."""
    editor = session.editor
    orders = []
    for number, token in enumerate(("<a>", "<b>")):
        entries = [Weighted(changed_word(base, token, number)[0])]
        (plan,) = session.plan(TARGET, concepts=entries, everywhere=True, method=method, steps=3)
        orders.append(Order(session, plan, entries))
    both = editor.edit_all(orders)
    for order, result in zip(orders, both, strict=True):
        (alone,) = editor.edit_all([order])
        torch.testing.assert_close(result.drawing.latents, alone.drawing.latents, atol=1e-4, rtol=0)
    assert not torch.allclose(both[0].drawing.latents, both[1].drawing.latents, atol=1e-3)
