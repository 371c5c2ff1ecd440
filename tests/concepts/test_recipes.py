"""What goes beyond the paper's training: each option does what it says, and is off by default."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from customedit.concepts.class_images import class_images
from customedit.concepts.concept import Concept
from customedit.concepts.crops import random_crop
from customedit.concepts.dataset import Subject, check_subjects, encode_references, mask_region
from customedit.concepts.files import save_concept
from customedit.concepts.losses import masked_loss, min_snr_weights
from customedit.concepts.merge import merge_on_base
from customedit.concepts.prompts import ConceptPrompts
from customedit.concepts.settings import TrainingSettings
from customedit.concepts.shown_nouns import noun_errors, noun_warnings
from customedit.concepts.trainable import Averages, TrainableConcept, trained_prompt, trained_text
from customedit.concepts.training import set_rate, train_concept, train_concepts
from customedit.diffusion.adapters import UNET
from customedit.diffusion.base import Base
from customedit.diffusion.ddim import DDIMSchedule, Prediction
from customedit.diffusion.engine import run
from customedit.diffusion.method import Progress
from customedit.diffusion.text import Encoded, Weighted
from customedit.errors import InputError
from customedit.mini import samples
from customedit.schemas.concepts import CustomizeRequest, TrainingOptions
from customedit.schemas.recipes import RECIPES

PROMPTS = ConceptPrompts("<plaid>", "cup", "patterned")
IMAGE = "img_" + "0" * 64
QUICK: dict[str, Any] = {"steps": 4, "class_steps": 2, "crops": 2, "checkpoint_every": 2}


@pytest.fixture(scope="module")
def base() -> Base:
    return Base.load()


@pytest.fixture(scope="module")
def references() -> list[Image.Image]:
    return [Image.open(p).convert("RGB") for p in samples.looks()[0].images[:2]]


def changed(base: Base, columns: Any = "prompt") -> Concept:
    """A concept of random changes."""
    torch.manual_seed(0)

    def moved(name: str) -> Tensor:
        weight = base.weights[name]
        return weight + 0.05 * torch.randn_like(weight)

    return Concept(
        {"<a>": torch.randn(base.width)},
        {n: moved(f"{n}.to_k.weight") for n in base.layers},
        {n: moved(f"{n}.to_v.weight") for n in base.layers},
        noun="cup",
        base=base.concept_fingerprint,
        prompts=("a photo of a <a> cup",),
        columns=columns,
    )


def test_settings_say_nothing_that_the_paper_does_not(base: Base) -> None:
    plain = TrainingSettings.of(base, recipe="paper")
    assert plain == TrainingSettings.of(base)  # the bundled base's profile takes it
    off = {"columns": "prompt", "rate_schedule": "constant", "rank": 0, "ema": 0, "snr_gamma": 0}
    off |= {"crop_cells": 0, "weigh_cells": False, "focus": "picture", "prior_classes": 1}
    assert {name: getattr(plain, name) for name in off} == off


def test_a_change_comes_before_the_recipe_and_that_before_the_profile(base: Base) -> None:
    found = TrainingSettings.of(base, recipe="contained", ema=0.5)
    assert found.ema == 0.5 and found.columns == "token" and found.recipe == "contained"
    assert found.rate == RECIPES["contained"].rate * 2e-4 and found.steps == 250
    word = TrainingSettings.of(base, recipe="contained", way="textual-inversion")
    assert word.columns == "prompt" and word.rate_schedule == "cosine"  # what has no effect is out
    still = TrainingSettings.of(base, recipe="contained", augment_crops=False)
    assert still.crop_cells == 0
    base = dataclasses.replace(
        base, profile=base.profile.model_copy(update={"recipe": "contained"})
    )
    assert TrainingSettings.of(base).columns == "token"
    assert TrainingSettings.of(base, recipe="paper") == dataclasses.replace(
        plain_of(base), recipe="paper"
    )


def plain_of(base: Base) -> TrainingSettings:
    return TrainingSettings(
        steps=250, rate=2e-4, class_images=24, class_steps=15, recipe=base.profile.recipe
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"recipe": "mine"}, "recipe: 'mine' is unknown; use one of paper, contained"),
        ({"columns": "words"}, "columns: 'words' is unknown"),
        ({"way": "textual-inversion", "columns": "token"}, "columns: has no effect"),
        ({"way": "textual-inversion", "rank": 4}, "rank: has no effect"),
        ({"way": "lora", "rank": 0}, "rank: of a LoRA is 0"),
        ({"way": "lora", "rank": 1000}, "rank: is 1000, and this base has"),
        ({"alpha": 4.0}, "alpha: has no effect: it is of the way lora"),
        ({"train_text_encoder": True}, "train_text_encoder: has no effect"),
        ({"crop_cells": 8, "augment_crops": False}, "crop_cells: has no effect"),
        ({"crop_cells": 17}, "crop_cells: is 17, and this base has 16 cells a side"),
        ({"prior_classes": 2, "class_images": 0}, "prior_classes: has no effect"),
        ({"prior_classes": 11}, "prior_classes: is 11, and this base has 10 nouns"),
        ({"columns": "token", "class_images": 8}, "class_images: has no effect: .*columns .prompt"),
        ({"recipe": "contained", "prior_weight": 2}, "prior_weight: has no effect: .*columns"),
        ({"way": "textual-inversion", "class_images": 50}, "class_images: has no effect: textual"),
        ({"way": "textual-inversion", "prior_weight": 2}, "prior_weight: has no effect: textual"),
        ({"class_images": 50, "prior_weight": 0}, "class_images: has no effect: prior_weight is 0"),
        ({"class_images": 0, "prior_weight": 5}, "prior_weight: has no effect: class_images is 0"),
        ({"augment_crops": False, "crops": 99}, "crops: has no effect: references are not framed"),
        ({"crops": 1, "crop_cells": 8}, "crop_cells: has no effect: crops is 1"),
        ({"ema": 1.0}, "ema: 1.0 is out of range"),
    ],
)
def test_what_cannot_work_is_refused(changes: dict[str, Any], says: str, base: Base) -> None:
    with pytest.raises(InputError, match=says):
        TrainingSettings.of(base, **changes)


def test_requests_refuse_what_has_no_effect() -> None:
    for given in (
        {"alpha": 4.0},
        {"way": "textual-inversion", "rank": 4},
        {"way": "lora", "rank": 0},
        {"way": "textual-inversion", "class_images": 50},
        {"class_images": 50, "prior_weight": 0},
        {"class_images": 0, "prior_weight": 5},
        {"augment_crops": False, "crops": 99},
        {"crops": 1, "crop_cells": 8},
    ):
        with pytest.raises(ValueError, match=r"\w+: (has no effect|of a LoRA is 0)"):
            TrainingOptions.model_validate(given)
    with pytest.raises(ValueError, match=r"training\.focus: has no effect: masks"):
        CustomizeRequest.model_validate(
            {"references": [IMAGE], "masks": [IMAGE], "noun": "cup", "training": {"focus": "noun"}}
        )


@pytest.mark.parametrize(
    "given",
    [
        {"class_images": 0, "prior_weight": 0},
        {"way": "textual-inversion", "class_images": 0},
        {"class_images": 0, "class_steps": 7},  # of previews, too
        {"augment_crops": False, "crops": 1},
        {"crops": 1, "crop_cells": 0},
        {"recipe": "contained", "crops": 1},  # whose crop_cells nobody asked for
        {"recipe": "contained", "augment_crops": False},
        {"recipe": "contained", "columns": "prompt", "class_images": 8},
        {"way": "lora", "rank": 4, "columns": "token", "class_images": 8, "prior_weight": 2},
    ],
)
def test_what_is_off_or_was_not_asked_for_is_no_error(given: dict[str, Any], base: Base) -> None:
    TrainingOptions.model_validate(given)
    TrainingSettings.of(base, **given)


# the columns of the token alone


def test_keys_and_values_act_on_the_tokens_columns_alone(base: Base) -> None:
    """K' = K_base on every column but V*'s, where it is K_base + s (K_concept - K_base)."""
    narrow, whole = changed(base, "token"), changed(base)
    prompt = "a photo of a <a> cup and a <a> vase"
    found = base.text(prompt, [Weighted(narrow, 0.7)])
    wide = base.text(prompt, [Weighted(whole, 0.7)])
    plain = base.context(found.states)
    assert found.tokens is not None
    own = list(found.tokens.concepts)
    rest = [k for k in range(base.length) if k not in own]
    assert len(own) == 2
    for name in ("keys", "values"):
        parts = zip(getattr(found, name), getattr(wide, name), getattr(plain, name), strict=True)
        for got, all_columns, bare in parts:
            assert torch.equal(got[rest], bare[rest])
            assert torch.allclose(got[own], all_columns[own], atol=1e-5)
            assert not torch.allclose(got[own], bare[own], atol=1e-3)
    assert torch.equal(base.context(found.states, "", [Weighted(narrow)]).keys[0], plain.keys[0])


def test_two_concepts_of_their_own_columns_do_not_disturb_each_other(base: Base) -> None:
    one = changed(base, "token")
    two = dataclasses.replace(
        one,
        tokens={"<b>": -one.tokens["<a>"]},
        prompts=("a photo of a <b> cup",),
        keys={n: -w for n, w in one.keys.items()},
    )
    both = base.text("a <a> cup and a <b> vase", [Weighted(one), Weighted(two)])
    assert both.tokens is not None
    alone = base.family.row("", Encoded(both.states), [Weighted(one)], both.tokens)
    first = next(iter(both.tokens.concepts))
    assert torch.allclose(both.keys[0][first], alone.keys[0][first], atol=1e-6)
    with pytest.raises(InputError, match=r"<a> acts on its token's columns alone"):
        merge_on_base(base, [one, two])


def test_columns_are_a_fact_of_the_file(base: Base, tmp_path: Path) -> None:
    narrow, whole = changed(base, "token"), changed(base)
    narrow.save(tmp_path / "n.safetensors")
    read = Concept.load(tmp_path / "n.safetensors")
    assert read.columns == "token" and read.digest == narrow.digest != whole.digest
    saved = save_concept(narrow, tmp_path / "other", base, "diffusers")
    assert "whole prompt" in saved.warnings[0]
    assert not save_concept(whole, tmp_path / "whole", base, "diffusers").warnings


@pytest.mark.parametrize("options", [{}, {"rank": 4}, {"way": "lora"}])
@pytest.mark.parametrize("columns", ["prompt", "token"])
def test_training_reads_what_use_reads(options: dict[str, Any], columns: str, base: Base) -> None:
    """A row of a training reads the same keys and values as one of the finished concept."""
    settings = TrainingSettings.of(base, columns=columns, seed=3, **options)
    trained = TrainableConcept.of_base(base, [PROMPTS], settings)
    with torch.no_grad():
        for leaf in trained.leaves.values():
            leaf += 0.02 * torch.randn(leaf.shape, generator=torch.Generator().manual_seed(1))
    prompt = PROMPTS.instance()
    asked = trained_prompt(base, trained, prompt)
    (encoded,) = base.family.encode([asked])
    row = trained_text(base, trained, prompt, asked, encoded)
    used = base.text(prompt, [Weighted(trained.snapshot())])
    assert torch.allclose(row.states, used.states, atol=1e-5)
    for name in ("keys", "values"):
        for got, wanted in zip(getattr(row, name), getattr(used, name), strict=True):
            assert torch.allclose(got, wanted, atol=2e-5)
    latents = torch.randn(1, base.channels, 16, 16)
    one, other = (base.output(latents, 500, [context])[0] for context in (row, used))
    assert torch.allclose(one, other, atol=1e-4)


# the rate, the average, the rank


@pytest.mark.parametrize(
    ("name", "shares"),
    [("constant", (1, 1, 1)), ("linear", (1, 0.5, 0.25)), ("cosine", (1, 0.5, 0.1464466))],
)
def test_the_rate_falls(name: Any, shares: tuple[float, ...], base: Base) -> None:
    settings = TrainingSettings.of(base, steps=100, rate_schedule=name)
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], 1.0)
    for done, share in zip((0, 50, 75), shares, strict=True):
        set_rate(optimizer, settings, done)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(settings.rate * share)


def test_the_average_is_that_of_its_formula() -> None:
    leaf = torch.zeros(2)
    averages = Averages({"x": leaf}, 0.9)
    wanted = torch.zeros(2)
    for done in range(1, 200):
        leaf += 1
        averages.update({"x": leaf}, done)
        decay = min(0.9, (1 + done) / (10 + done))
        wanted = decay * wanted + (1 - decay) * leaf
    assert torch.allclose(averages.values["x"], wanted)
    averages.swap({"x": leaf})
    assert torch.allclose(leaf, wanted) and averages.values["x"][0] == 199


def test_a_change_of_low_rank_has_that_rank(base: Base, references: list[Image.Image]) -> None:
    settings = TrainingSettings.of(base, rank=3, class_images=0, **QUICK)
    concept = run(base, train_concept(base, references, PROMPTS, settings))
    assert {f"{path.removeprefix(UNET)}.weight" for path in concept.adapters} == set(base.weights)
    for adapter in concept.adapters.values():
        assert int(torch.linalg.matrix_rank(adapter.delta(), rtol=1e-3)) == 3


def test_resumed_with_averages_gives_the_same_bits(
    base: Base, references: list[Image.Image], tmp_path: Path
) -> None:
    settings = TrainingSettings.of(base, recipe="contained", rank=2, **QUICK)
    straight = run(base, train_concept(base, references, PROMPTS, settings))
    file = tmp_path / "checkpoint.safetensors"

    class Stop(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.phase == "train" and progress.step == 3:
            raise Stop

    with pytest.raises(Stop):
        run(base, train_concept(base, references, PROMPTS, settings, resume=file), stop)
    resumed = run(base, train_concept(base, references, PROMPTS, settings, resume=file))
    assert resumed.digest == straight.digest and resumed.columns == "token"


# the loss


def test_min_snr_weights_are_those_of_the_paper(base: Base) -> None:
    times = torch.tensor([20, 300, 700, 990])
    assert isinstance(base.schedule, DDIMSchedule)
    kinds: tuple[Prediction, ...] = ("epsilon", "v_prediction", "sample")
    for kind in kinds:
        schedule = dataclasses.replace(base.schedule, prediction=kind)
        found = min_snr_weights(schedule, times, 5.0)
        for weight, time in zip(found.tolist(), times.tolist(), strict=True):
            alpha = float(schedule.alphas[time])
            snr = alpha / (1 - alpha)
            below = {"epsilon": snr, "v_prediction": snr + 1, "sample": 1}[kind]
            assert weight == pytest.approx(min(snr, 5) / below, rel=1e-5)


def test_rows_or_cells_weigh_the_same() -> None:
    torch.manual_seed(0)
    output, target = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    mask = torch.zeros(2, 3, 3)
    mask[0, 0, 0], mask[1] = 1, 0.5
    error = (output - target).square().mean(1)
    by_rows = (error[0, 0, 0] + error[1].mean()) / 2
    by_cells = (error[0, 0, 0] + 0.5 * error[1].sum()) / 5.5
    assert torch.allclose(masked_loss(output, target, mask), by_rows)
    assert torch.allclose(masked_loss(output, target, mask, by_cells=True), by_cells)
    weighted = masked_loss(output, target, mask, weights=torch.tensor([2.0, 0.0]))
    assert torch.allclose(weighted, error[0, 0, 0])


def test_pasted_crops_have_so_many_cells_at_the_least() -> None:
    image, rng = Image.new("RGB", (64, 64), "white"), np.random.default_rng(0)
    shares = [(random_crop(image, 128, 8, rng, least_cells=12).pixels > 0.9).all(0).mean()
              for _ in range(60)]  # fmt: skip
    assert min(shares) >= (12 / 16) ** 2 - 0.02
    whole = [random_crop(image, 128, 8, rng, least_cells=16).mask for _ in range(20)]
    assert all(mask.all() for mask in whole)


@pytest.mark.parametrize("seed", range(8))
def test_a_region_goes_where_its_crop_goes(seed: int) -> None:
    """White where the picture is white: so the mask is what is white of the crop."""
    image = Image.new("RGB", (96, 64), "black")
    image.paste("white", (40, 16, 72, 48))
    region = image.convert("F").point(lambda v: v / 255)
    crop = random_crop(image, 64, 8, np.random.default_rng(seed), region=region)
    white = ((crop.pixels.mean(0) + 1) / 2).clip(0, 1)
    plain = random_crop(image, 64, 8, np.random.default_rng(seed))
    assert np.array_equal(crop.pixels, plain.pixels) and crop.prefix == plain.prefix
    cells = white.reshape(8, 8, 8, 8).mean((1, 3)) * plain.mask
    assert np.allclose(crop.mask, cells, atol=0.02)


def test_the_loss_counts_where_the_noun_is(base: Base, references: list[Image.Image]) -> None:
    settings = TrainingSettings.of(base, focus="noun", augment_crops=False)
    pool = run(base, encode_references(base, Subject(references, PROMPTS), settings))
    mask = pool.masks[0]
    assert mask.min() < 0.2 and mask.max() > 0.8
    middle, edge = mask[6:11, 5:11].mean(), torch.cat([mask[0], mask[:, 0], mask[:, -1]]).mean()
    assert middle > edge + 0.2  # the cup stands in the middle
    given = [Image.new("L", i.size, 0) for i in references]
    for picture in given:
        picture.paste(255, (0, 0, picture.width // 2, picture.height))
    pool = run(base, encode_references(base, Subject(references, PROMPTS, masks=given), settings))
    assert pool.masks[:, :, :7].min() > 0.9 and pool.masks[:, :, 9:].max() < 0.1


# classes


def test_class_images_of_several_classes(base: Base) -> None:
    settings = TrainingSettings.of(base, prior_classes=4, class_images=10)
    found = class_images(base, ["jug", "cup"], settings)
    assert [(i.prompt, i.count) for i in found] == [
        ("a photo of a jug", 3), ("a photo of a cup", 3), ("a photo of a vase", 2),
        ("a photo of a bowl", 2),
    ]  # fmt: skip
    assert len({i.file(base) for i in found}) == 4
    half = Base.load(dtype=torch.bfloat16)  # of the same fingerprint, whose images are others
    assert half.fingerprint == base.fingerprint
    assert len({i.file(model) for i in found for model in (base, half)}) == 8
    assert not class_images(base, ["cup"], TrainingSettings.of(base, columns="token"))


def test_each_reference_has_its_own_noun(base: Base, references: list[Image.Image]) -> None:
    subject = Subject(references, PROMPTS, nouns=["cup", "bowl"])
    settings = TrainingSettings.of(base, class_images=2, **QUICK)
    pool = run(base, encode_references(base, subject, settings))
    assert "patterned cup" in pool.texts[0] and "patterned bowl" in pool.texts[2]
    concept = run(base, train_concepts(base, [subject], settings))
    assert concept.noun == "cup" and len(concept.prompts) == 2
    with pytest.raises(InputError, match="nouns: are 1 for 2 references"):
        check_subjects([Subject(references, PROMPTS, nouns=["cup"])])
    with pytest.raises(InputError, match="masks: number 1 has no white"):
        check_subjects([Subject(references, PROMPTS, masks=[Image.new("L", (8, 8))] * 2)])


def test_references_that_show_another_thing_are_told(
    base: Base, references: list[Image.Image]
) -> None:
    """By the base itself, which has never seen the look."""

    def told(noun: str) -> list[str]:
        subject = Subject(references[:1], dataclasses.replace(PROMPTS, noun=noun))
        return run(base, noun_warnings(base, subject))

    assert told("cup") == []
    (warning,) = told("lamp")
    assert warning.startswith("1 of 1 references said to show 'lamp' look like 'cup'")
    errors = run(base, noun_errors(base, references[0], "patterned", ["lamp", "cup"]))
    assert errors.mean() == pytest.approx(1, abs=1e-5) and errors[1] < errors[0]


def test_a_mask_is_white_in_what_is_learned_from() -> None:
    """Of a picture of 200 x 100 that is its middle square: columns 50 to 149."""
    picture = Image.new("RGB", (200, 100), "olive")

    def given(left: int, right: int, size: tuple[int, int] = (200, 100)) -> Subject:
        mask = Image.new("L", size)
        share = size[0] / 200
        mask.paste(255, (int(left * share), 0, int(right * share), size[1]))
        return Subject([picture], PROMPTS, masks=[mask])

    for size in ((200, 100), (400, 200)):
        for columns in ((0, 40), (152, 200)):
            with pytest.raises(InputError, match="masks: number 1 has no white in the middle"):
                check_subjects([given(*columns, size)])
        for columns in ((0, 60), (140, 200), (90, 100)):
            check_subjects([given(*columns, size)])


def test_masks_of_references_are_read_as_masks_of_edits_are() -> None:
    """What is transparent is not learned, 16 bits are not clipped, shares are taken as they are."""
    picture = Image.new("RGB", (4, 2), "olive")
    clear = Image.new("RGBA", (4, 2), (255, 255, 255, 0))
    clear.putpixel((1, 0), (255, 255, 255, 255))
    deep = Image.fromarray(np.array([[0, 65535, 0, 0], [0, 0, 0, 0]], np.uint16))
    shares = Image.fromarray(np.array([[0, 1, 0, 0], [0, 0, 0, 0]], np.float32))
    for mask in (clear, deep, shares):
        region = np.asarray(mask_region(mask, picture))
        assert region.tolist() == [[0, 1, 0, 0], [0, 0, 0, 0]]
    low = Image.fromarray(np.full((2, 4), 300, np.uint16))  # of 65535, and white if it is clipped
    with pytest.raises(InputError, match="masks"):
        check_subjects([Subject([picture], PROMPTS, masks=[low])])
    with pytest.raises(InputError, match="masks: spans 0 to 2"):
        check_subjects([Subject([picture], PROMPTS, masks=[shares.point(lambda v: v * 2)])])
