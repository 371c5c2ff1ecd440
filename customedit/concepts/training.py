"""Customization: Custom Diffusion (arXiv 2212.04488) with Custom-Edit's augmented prompts.

The concept's embedding V* and the key and value weights of every cross-attention layer are trained,
whole or as changes of low rank, or what the base's family has in their place (``new_changes``);
Textual Inversion (arXiv 2208.01618), the baseline, trains the embedding alone; a LoRA (arXiv
2106.09685) trains small changes of chosen layers. The base stays frozen and shared: what is trained
is the concept's own and enters through the rows that read it. A training is a method: it asks the
engine for the gradients of each step, which may compute them together with those of other
trainings, and takes the optimizer's step itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from PIL import Image
from torch import Tensor

from customedit.concepts import checkpoint
from customedit.concepts.concept import Concept
from customedit.concepts.dataset import (
    Dataset,
    Subject,
    build_datasets,
    check_subjects,
    check_words,
)
from customedit.concepts.losses import Batch, LateFigures, batch_loss, draw_batch
from customedit.concepts.prompts import ConceptPrompts
from customedit.concepts.settings import TrainingSettings
from customedit.concepts.trainable import (
    Averages,
    TrainableConcept,
    is_trained,
    trained_prompt,
    trained_text,
    untrained_states,
)
from customedit.diffusion.base import Base
from customedit.diffusion.engine import read_texts
from customedit.diffusion.method import Learn, Method, Progress, Turn, learn
from customedit.diffusion.text import Customization, Encoded, PromptRow, TextContext
from customedit.errors import InputError, NumericalError, TrainingError
from customedit.prompt_syntax import joined_words

Preview: TypeAlias = Callable[[Customization], Image.Image | None]
"""Shows a training: a picture for its progress, or None from one that draws it elsewhere."""


def train_concept(
    base: Base,
    references: Sequence[Image.Image],
    prompts: ConceptPrompts,
    settings: TrainingSettings | None = None,
    *,
    resume: Path | None = None,
    class_cache: Path | None = None,
    preview: Preview | None = None,
) -> Method[Concept]:
    """Train a concept on ``references`` (1 to 20 pictures, RGB, any size).

    resume: a checkpoint file, read if it is there and written every ``checkpoint_every`` steps and
    when the training is stopped at a yield; one that is killed and called again with equal
    arguments ends in the same bits (beside others in one engine: to rounding).
    class_cache: a folder that keeps class images. Progress carries the losses.

    Raises InputError for arguments that cannot be used, TrainingError when the loss is not finite,
    NumericalError when the base itself is the cause.
    """
    return train_concepts(
        base,
        [Subject(references, prompts)],
        settings,
        resume=resume,
        class_cache=class_cache,
        preview=preview,
    )


def train_concepts(
    base: Base,
    subjects: Sequence[Subject],
    settings: TrainingSettings | None = None,
    *,
    resume: Path | None = None,
    class_cache: Path | None = None,
    preview: Preview | None = None,
) -> Method[Concept]:
    """Train one concept with a token for each of ``subjects``, all at once.

    Custom Diffusion's joint training: the key and value weights are shared, every token has its own
    embedding, and a step draws from the references of all. The rest is as for ``train_concept``.
    """
    settings = settings or TrainingSettings.of(base)
    base.family.require(settings.way, "way")
    if settings.way == "dreambooth":
        raise InputError(
            "way",
            "dreambooth trains a whole model, not a concept",
            "use custom-diffusion, lora or textual-inversion",
        )
    check_subjects(subjects)
    check_words(base, subjects)
    about = {} if resume is None else checkpoint.about_training(base, settings, subjects)
    if resume is not None and resume.exists():
        checkpoint.check(resume, about)
    yield Turn()
    references, prior = yield from build_datasets(base, subjects, settings, class_cache)
    trained = TrainableConcept.of_base(base, [s.prompts for s in subjects], settings)
    untrained = TrainableConcept({k: v.detach().clone() for k, v in trained.tokens.items()})
    try:
        facts = yield from train_leaves(
            base,
            trained,
            trained.leaves,
            about,
            settings,
            references,
            prior,
            resume=resume,
            preview=preview,
        )
    except TrainingError as error:
        check_base_loss(base, untrained, settings, references, prior, error.step)
        raise
    return finished_concept(base, trained, subjects, settings, facts)


def train_leaves(
    base: Base,
    trained: TrainableConcept,
    leaves: Mapping[str, Tensor],
    about: Mapping[str, Any],
    settings: TrainingSettings,
    references: Dataset,
    prior: Dataset | None,
    *,
    resume: Path | None = None,
    preview: Preview | None = None,
) -> Method[dict[str, float]]:
    """AdamW on ``leaves`` (names to tensors, in a fixed order); returns the last step's losses.

    about: ``checkpoint.about_training``, which a checkpoint must match. The leaves end as their
    moving averages if the settings want them. On a GPU the progress of a step comes once the next
    one is launched (``LateFigures``), or with its checkpoint or preview.

    Raises TrainingError when the loss is not finite; the last checkpoint stays.
    """
    tensors = list(leaves.values())
    # tensor by tensor (foreach=False): the same bits however many there are; on a GPU one kernel
    # for all, which takes each number by itself
    fused = base.device.type == "cuda"
    optimizer = torch.optim.AdamW(
        tensors, settings.rate, weight_decay=settings.weight_decay, foreach=False, fused=fused
    )
    averages = Averages(leaves, settings.ema) if settings.ema else None
    done = 0
    if resume is not None and resume.exists():
        done = checkpoint.load(resume, leaves, optimizer, about, averages)
    written = done
    facts: dict[str, float] = {}
    figures = LateFigures(base.device)
    try:
        while done < settings.steps:
            set_rate(optimizer, settings, done)
            request = step_request(base, trained, settings, references, prior, done, tensors)
            found = yield from learn(request)
            take_step(optimizer, found.of, settings.clip)
            done += 1
            if averages is not None:
                averages.update(leaves, done)
            at_end, every = done == settings.steps, settings.preview_every
            saves = resume is not None and (done % settings.checkpoint_every == 0 or at_end)
            shows = preview is not None and every > 0 and done % every == 0
            figures.add(done, found.figures)
            known = figures.read(now=saves or shows or at_end)
            check_losses(known, settings.rate)
            if resume is not None and saves:
                checkpoint.save(resume, leaves, optimizer, done, about, averages)
                written = done
            shown = None
            if preview is not None and shows:
                shown = preview(averaged_snapshot(trained, leaves, averages))
            for step, facts in known:
                picture = shown if step == done else None
                yield Progress("train", step, settings.steps, facts, picture)
    except GeneratorExit:
        if resume is not None and written < done:
            with contextlib.suppress(TrainingError):  # numbers that nothing can go on from
                check_losses(figures.read(now=True), settings.rate)
                checkpoint.save(resume, leaves, optimizer, done, about, averages)
        raise
    if averages is not None:
        averages.swap(leaves)
    return facts


def step_request(
    base: Base,
    trained: TrainableConcept,
    settings: TrainingSettings,
    references: Dataset,
    prior: Dataset | None,
    number: int,
    leaves: Sequence[Tensor],
) -> Learn:
    """What step ``number`` asks for.

    Custom Diffusion's loss: the squared error of the base's own target on ``batch`` framings of
    references, and with prior preservation on as many class images. What is drawn depends on seed
    and number alone.

    Class rows read their words through the concept's weights: that is the drift which prior
    preservation is there to stop.
    """
    batch = draw_batch(base, settings, references, prior, number)
    return Learn(
        base,
        batch.noisy,
        batch.times,
        functools.partial(batch_prompts, base, trained, batch),
        functools.partial(batch_texts, base, trained, batch),
        functools.partial(batch_loss, settings, batch),
        leaves,
    )


def batch_prompts(base: Base, trained: TrainableConcept, batch: Batch) -> list[PromptRow]:
    """The prompts of ``batch`` in which something is trained, equal ones once."""
    each = dict.fromkeys(batch.texts)
    return [trained_prompt(base, trained, words) for words in each if is_trained(trained, words)]


def batch_texts(
    base: Base,
    trained: TrainableConcept,
    batch: Batch,
    prompts: Sequence[PromptRow],
    encoded: Sequence[Encoded],
) -> list[TextContext]:
    """What each row reads. prompts, encoded: of ``batch_prompts``, and what became of them."""
    found = zip(prompts, encoded, strict=True)
    texts = {
        words: trained_text(base, trained, words, *next(found))
        if is_trained(trained, words)
        else base.family.trained_row(words, untrained_states(base, trained, words), trained)
        for words in dict.fromkeys(batch.texts)
    }
    return [texts[words] for words in batch.texts]


def set_rate(optimizer: torch.optim.Optimizer, settings: TrainingSettings, done: int) -> None:
    """The learning rate of the step after ``done`` steps."""
    share = done / settings.steps
    factor = {
        "constant": 1.0,
        "linear": 1 - share,
        "cosine": (1 + math.cos(math.pi * share)) / 2,
    }[settings.rate_schedule]
    for group in optimizer.param_groups:
        group["lr"] = settings.rate * factor


def take_step(optimizer: torch.optim.Optimizer, gradients: Sequence[Tensor], clip: float) -> None:
    """One step of ``optimizer``, its gradients clipped to the norm ``clip``.

    Nothing is looked at: a loss that is not finite has then spoilt the leaves.
    """
    leaves = [leaf for group in optimizer.param_groups for leaf in group["params"]]
    for leaf, gradient in zip(leaves, gradients, strict=True):
        leaf.grad = gradient
    torch.nn.utils.clip_grad_norm_(leaves, clip)
    optimizer.step()


def check_losses(steps: Sequence[tuple[int, Mapping[str, float]]], rate: float) -> None:
    """Raise TrainingError for the first of ``steps``, (number from 1, figures), without a loss.

    rate: the learning rate.
    """
    for number, facts in steps:
        if not math.isfinite(facts["loss"]):
            raise TrainingError(
                f"The loss became {facts['loss']} at step {number}; use a learning rate "
                f"below {rate:g}",
                step=number - 1,
            )


def averaged_snapshot(
    trained: TrainableConcept, leaves: Mapping[str, Tensor], averages: Averages | None
) -> TrainableConcept:
    """A copy of what the concept would be if the training ended now."""
    if averages is None:
        return trained.snapshot()
    averages.swap(leaves)
    try:
        return trained.snapshot()
    finally:
        averages.swap(leaves)


def check_base_loss(
    base: Base,
    untrained: TrainableConcept,
    settings: TrainingSettings,
    references: Dataset,
    prior: Dataset | None,
    number: int,
) -> None:
    """Tell a base that overflows from a training that diverged at step ``number``.

    Raises NumericalError where the loss of that step is not finite before any training, either.
    """
    request = step_request(base, untrained, settings, references, prior, number, ())
    with torch.no_grad():
        output, _ = base.output(request.latents, request.times, read_texts([request]))
        loss, _ = request.loss(output)
    if not bool(loss.isfinite()):
        raise NumericalError(
            f"The base {base.name} in {base.dtype} gives a loss of {float(loss)} at step "
            f"{number + 1} without any training; use a wider dtype (float32, bfloat16)"
        )


def finished_concept(
    base: Base,
    trained: TrainableConcept,
    subjects: Sequence[Subject],
    settings: TrainingSettings,
    facts: dict[str, float],
) -> Concept:
    """The concept that was trained, with its recipe."""
    held = trained.snapshot()
    prompts = [p.instance() for s in subjects for p in s.each]
    return Concept(
        tokens=held.tokens,
        keys=held.keys,
        values=held.values,
        noun=joined_words(s.prompts.noun for s in subjects),
        attribute=joined_words(s.prompts.attribute for s in subjects),
        base=base.concept_fingerprint,
        prompts=tuple(dict.fromkeys(prompts)),
        recipe={"settings": dataclasses.asdict(settings), "final": facts},
        images=sum(len(s.references) for s in subjects),
        adapters=held.adapters,
        columns=held.columns,
    )
