"""Customization: what is trained, resumed to the bit, losses, bad input."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from customedit.concepts import dataset, losses, training
from customedit.concepts.class_images import ClassImages
from customedit.concepts.concept import Concept
from customedit.concepts.crops import full_frame, random_crop
from customedit.concepts.dataset import Subject
from customedit.concepts.prompts import ConceptPrompts
from customedit.concepts.settings import TrainingSettings
from customedit.concepts.trainable import TrainableConcept
from customedit.concepts.training import step_request, train_concept, train_concepts
from customedit.diffusion.base import Base
from customedit.diffusion.ddim import DDIMSchedule
from customedit.diffusion.engine import Engine, read_texts, run
from customedit.diffusion.method import Progress
from customedit.diffusion.profile import Profile
from customedit.errors import Cancelled, InputError, NumericalError, TrainingError
from customedit.mini import samples
from customedit.prompt_syntax import separate_words

PROMPTS = ConceptPrompts("<plaid>", "cup", "patterned")
QUICK = {"steps": 6, "class_images": 2, "class_steps": 2, "crops": 2, "checkpoint_every": 2}


@pytest.fixture(scope="session")
def base() -> Base:
    return Base.load()


@pytest.fixture(scope="session")
def references() -> list[Image.Image]:
    return [Image.open(p).convert("RGB") for p in samples.looks()[0].images[:2]]


def _equal(a: Concept, b: Concept) -> bool:
    pairs = [(a.tokens, b.tokens), (a.keys, b.keys), (a.values, b.values)]
    return all(p.keys() == q.keys() and all(torch.equal(p[k], q[k]) for k in p) for p, q in pairs)


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class images that trainings share."""
    return tmp_path_factory.mktemp("classes")


@pytest.fixture(scope="module")
def straight(base: Base, references: list[Image.Image], classes: Path) -> Concept:
    """What a training that nothing stopped ends in."""
    settings = TrainingSettings.of(base, **QUICK, batch=1)
    return run(base, train_concept(base, references, PROMPTS, settings, class_cache=classes))


@pytest.mark.parametrize("killed_at", [1, 3, 5])
def test_killed_and_resumed_gives_the_same_bits(
    killed_at: int,
    base: Base,
    references: list[Image.Image],
    straight: Concept,
    classes: Path,
    tmp_path: Path,
) -> None:
    settings = TrainingSettings.of(base, **QUICK, batch=1)

    def kill(progress: Progress) -> None:
        if progress.phase == "train" and progress.step == killed_at:
            raise Killed

    file = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Killed):
        run(
            base,
            train_concept(base, references, PROMPTS, settings, resume=file, class_cache=classes),
            kill,
        )
    steps: list[int] = []
    resumed = run(
        base,
        train_concept(base, references, PROMPTS, settings, resume=file, class_cache=classes),
        lambda p: steps.append(p.step) if p.phase == "train" else None,
    )
    assert _equal(straight, resumed)
    assert steps[0] == killed_at // 2 * 2 + 1  # from the last checkpoint, not from the start


def test_a_checkpoint_of_another_training_is_refused(
    base: Base, references: list[Image.Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "checkpoint.safetensors"
    settings = TrainingSettings.of(base, **QUICK | {"class_images": 0})
    run(base, train_concept(base, references, PROMPTS, settings, resume=file))
    other = TrainingSettings.of(base, **QUICK | {"class_images": 0, "seed": 1})
    match = r"resume: .*another training \(other settings\)"
    with monkeypatch.context() as patch, pytest.raises(InputError, match=match):
        patch.delattr(training, "build_datasets")  # refused before any work
        next(train_concept(base, references, PROMPTS, other, resume=file))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match=r"resume: .*delete it"):
        run(base, train_concept(base, references, PROMPTS, settings, resume=file))


def test_only_the_concepts_own_copies_are_trained(
    base: Base, references: list[Image.Image]
) -> None:
    before = {k: v.clone() for k, v in base.denoiser.state_dict().items()}
    table = base.pipeline.text_encoder.get_input_embeddings().weight.clone()
    settings = TrainingSettings.of(base, **QUICK | {"class_images": 0})
    concept = run(base, train_concept(base, references, PROMPTS, settings))
    assert all(torch.equal(v, before[k]) for k, v in base.denoiser.state_dict().items())
    assert torch.equal(base.pipeline.text_encoder.get_input_embeddings().weight, table)
    assert set(concept.keys) == set(base.layers) == set(concept.values)
    changed = [
        not torch.equal(w, base.weights[f"{n}.to_k.weight"]) for n, w in concept.keys.items()
    ]
    assert all(changed)
    assert concept.base == base.concept_fingerprint and concept.images == 2


def test_textual_inversion_trains_the_word_alone(base: Base, references: list[Image.Image]) -> None:
    settings = TrainingSettings.of(base, way="textual-inversion", steps=3, crops=2)
    concept = run(base, train_concept(base, references, PROMPTS, settings))
    assert not concept.keys and not concept.values
    start = TrainableConcept.of_base(base, [PROMPTS], settings).tokens["<plaid>"]
    assert not torch.equal(concept.tokens["<plaid>"], start)


def test_two_looks_learned_together(base: Base, references: list[Image.Image]) -> None:
    other = samples.looks()[3]
    pictures = [Image.open(p).convert("RGB") for p in other.images[:2]]
    subjects = [
        Subject(references, PROMPTS),
        Subject(pictures, ConceptPrompts("<scales>", other.noun, "patterned")),
    ]
    settings = TrainingSettings.of(base, **QUICK)
    concept = run(base, train_concepts(base, subjects, settings))
    start = TrainableConcept.of_base(base, [s.prompts for s in subjects], settings)
    assert set(concept.tokens) == {"<plaid>", "<scales>"} and concept.images == 4
    for token, vector in concept.tokens.items():  # each token is drawn, and its gradient is its own
        assert not torch.equal(vector, start.tokens[token])
    assert len(concept.prompts) == 2
    assert separate_words(concept.noun) == list(dict.fromkeys(["cup", other.noun]))
    assert concept.attribute == "patterned"  # of both
    with pytest.raises(InputError, match="token: given are <plaid>, <plaid>"):
        run(base, train_concepts(base, [subjects[0]] * 2, settings))


def test_the_loss_is_the_formula(base: Base, references: list[Image.Image]) -> None:
    """Instance and prior losses against a plain rewrite of the step on the stock UNet."""
    settings = TrainingSettings.of(base, **QUICK)
    trained = TrainableConcept.of_base(base, [PROMPTS], settings)
    pool = run(base, dataset.encode_references(base, Subject(references, PROMPTS), settings))
    prompt = base.profile.class_prompt(PROMPTS.noun)
    latents = run(base, ClassImages(prompt, 2, 2).draw(base))
    words = (prompt,) * 2
    prior = dataset.Dataset(latents, torch.ones_like(latents[:, 0]), words)
    request = step_request(base, trained, settings, pool, prior, 4, ())
    output, _ = base.output(request.latents, request.times, read_texts([request]))
    _, found = request.loss(output)
    facts = {name: figure.item() for name, figure in found.items()}

    rng = np.random.default_rng([settings.seed, 2, 4])
    noise_of = torch.Generator().manual_seed(int(rng.integers(2**62)))
    own = rng.integers(len(pool.latents), size=2)
    other = rng.integers(2, size=2)
    x0 = torch.cat([pool.latents[own], latents[other]])
    times = torch.from_numpy(rng.integers(1000, size=4))
    noise = torch.randn(x0.shape, generator=noise_of)
    assert isinstance(base.schedule, DDIMSchedule)
    a = base.schedule.alphas[times].float()[:, None, None, None]
    x, v = a.sqrt() * x0 + (1 - a).sqrt() * noise, a.sqrt() * noise - (1 - a).sqrt() * x0
    vectors = trained.tokens
    words = (*(pool.texts[i] for i in own), *words)
    with torch.no_grad():
        states = [base.states(base.tokens(w, list(vectors)), vectors) for w in words]
        out = base.output(x, times, [base.context(s) for s in states])[0]
    error = (out - v).square().mean(1)
    masks = pool.masks[own]
    instance = sum(float((error[k] * masks[k]).sum() / masks[k].sum()) for k in range(2)) / 2
    assert facts["instance"] == pytest.approx(instance, rel=1e-4)
    assert facts["prior"] == pytest.approx(float(error[2:].mean()), rel=1e-4)
    assert facts["loss"] == pytest.approx(facts["instance"] + facts["prior"], rel=1e-5)


def test_weights_multiply_their_losses() -> None:
    """3 times the mean over rows of references, and half of that over rows of class images."""
    generator = torch.Generator().manual_seed(0)
    output, target = torch.randn((2, 5, 4, 8, 8), generator=generator)
    batch = losses.Batch(
        output, torch.zeros(5), target, torch.ones(5, 8, 8), torch.ones(5), ("a cup",) * 5, 2
    )
    settings = TrainingSettings(instance_weight=3.0, prior_weight=0.5)
    loss, figures = losses.batch_loss(settings, batch, output)
    errors = (output - target).square().mean((1, 2, 3))
    assert figures["instance"].item() == pytest.approx(errors[:2].mean().item(), rel=1e-5)
    assert figures["prior"].item() == pytest.approx(errors[2:].mean().item(), rel=1e-5)
    wanted = 3 * errors[:2].mean() + 0.5 * errors[2:].mean()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert figures["loss"] is loss
    alone = dataclasses.replace(batch, instances=5)
    loss, figures = losses.batch_loss(settings, alone, output)
    assert loss.item() == pytest.approx(3 * errors.mean().item(), rel=1e-5)
    assert "prior" not in figures


def steps_kept(checkpoint: Path) -> int:
    with safe_open(checkpoint, framework="pt") as file:
        return int(json.loads(file.metadata()["training"])["step"])


@pytest.mark.parametrize("late", [False, True])
def test_nan_stops_with_the_step_and_the_remedy(
    base: Base, references: list[Image.Image], tmp_path: Path, late: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """late: the figures of a step are read as from a GPU, once the next one is launched."""
    real, calls = losses.batch_loss, list[int]()

    def poisoned(*args: Any) -> Any:
        loss, facts = real(*args)
        calls.append(len(calls))
        if len(calls) == 3:
            loss = loss * float("nan")
        return loss, facts | {"loss": loss}

    class Figures(losses.LateFigures):
        def __init__(self, device: torch.device) -> None:
            super().__init__(torch.device("meta") if late else device)

    monkeypatch.setattr(training, "batch_loss", poisoned)
    monkeypatch.setattr(training, "LateFigures", Figures)
    settings = TrainingSettings.of(base, **QUICK | {"class_images": 0})
    file = tmp_path / "training.safetensors"
    with pytest.raises(
        TrainingError, match=r"The loss became nan at step 3; use a learning rate below"
    ):
        run(base, train_concept(base, references, PROMPTS, settings, resume=file))
    assert steps_kept(file) == 2

    calls.clear()
    file.unlink()
    engine = Engine(base)
    ticket = engine.submit(train_concept(base, references, PROMPTS, settings, resume=file))
    while len(calls) < 3:
        engine.tick()
    ticket.cancel()  # where the loss of step 3 is not read yet
    while not engine.idle:
        engine.tick()
    with pytest.raises(Cancelled if late else TrainingError):
        ticket.result()
    assert steps_kept(file) == 2


def test_a_base_that_overflows_is_the_cause_and_not_the_learning_rate(
    base: Base, references: list[Image.Image]
) -> None:
    settings = TrainingSettings.of(base, **QUICK | {"class_images": 0})
    bias = base.denoiser.conv_out.bias
    before = bias.detach().clone()
    try:
        with torch.no_grad():
            bias.add_(1e30)  # whose square is above float32's range
        with pytest.raises(NumericalError, match=r"loss of inf at step 1 without any training"):
            run(base, train_concept(base, references, PROMPTS, settings))
    finally:
        with torch.no_grad():
            bias.copy_(before)


def test_class_images_are_drawn_once(base: Base, tmp_path: Path) -> None:
    first = run(base, ClassImages("a photo of a cup", 3, 2).draw(base, tmp_path))
    heard: list[Progress] = []
    again = run(base, ClassImages("a photo of a cup", 3, 2).draw(base, tmp_path), heard.append)
    assert torch.equal(first, again) and not heard
    assert first.shape == (3, base.channels, 16, 16)
    few = run(base, ClassImages("a photo of a cup", 1, 2).draw(base))
    assert torch.allclose(few[0], first[0], atol=1e-4)  # each has its own seed


@pytest.mark.parametrize("seed", range(40))
def test_crops_and_their_masks(seed: int) -> None:
    white = Image.new("RGB", (90, 70), "white")
    found = random_crop(white, 128, 8, np.random.default_rng(seed))
    assert found.pixels.shape == (3, 128, 128) and found.mask.shape == (16, 16)
    picture = (found.pixels > 0.9).all(0).reshape(16, 8, 16, 8).all((1, 3))
    assert found.mask.sum() >= 1
    assert not (found.mask.astype(bool) & ~picture).any()  # the loss never sees the padding
    said = {"far away", "very small"} if picture.mean() < 0.34 else {"", "zoomed in", "close up"}
    assert found.prefix in said | {"far away", "very small", ""}


def test_a_whole_reference_counts_everywhere() -> None:
    found = full_frame(Image.new("RGB", (300, 200), "red"), 128, 8)
    assert found.mask.all() and found.prefix == ""


def test_prompts_say_what_to_learn() -> None:
    assert PROMPTS.instance() == "a photo of a <plaid> patterned cup"
    assert PROMPTS.instance("far away") == "a far away photo of a <plaid> patterned cup"
    assert PROMPTS.instance("very small") == "a photo of a very small <plaid> patterned cup"
    assert Profile().class_prompt("cup") == "a photo of a cup"
    assert Profile().class_prompt("owl") == "a photo of an owl"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ConceptPrompts("plaid", "cup"), "token: 'plaid'"),
        (lambda: ConceptPrompts("<plaid>", ""), "noun"),
        (lambda: TrainingSettings(steps=0), "steps: 0"),
        (lambda: TrainingSettings(rate=0.0), "rate"),
        (lambda: TrainingSettings(way="magic"), "way: 'magic'"),  # type: ignore[arg-type]  # what is tested
        (lambda: dataset.check_references([]), "references: are 0 images"),
        (lambda: dataset.check_references([Image.new("RGB", (1, 1))] * 21), "references: are 21"),
    ],
)
def test_bad_input(make: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        make()


def test_a_prompt_without_the_token_is_encoded_once(
    base: Base, references: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[str] = []
    encode = base.family.encode

    def counted(prompts: Any) -> Any:
        encoded.extend(" ".join(row.tokens.words) for row in prompts)
        return encode(prompts)

    monkeypatch.setattr(base.family, "encode", counted)
    prompts = ConceptPrompts("<a>", "cup", "patterned")
    settings = TrainingSettings.of(base, steps=3, class_images=1, class_steps=1, crops=1, batch=1)
    run(base, train_concept(base, references, prompts, settings))
    assert len([words for words in encoded if "<a>" in words]) == 3
    assert encoded.count("a photo of a cup") <= 2  # for its picture, and for all steps
