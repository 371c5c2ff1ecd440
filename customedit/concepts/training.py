"""Customization: Custom Diffusion (arXiv 2212.04488) with Custom-Edit's augmented prompts.

The concept's embedding V* and the key and value weights of every cross-attention layer are trained,
whole or as changes of low rank, or what the base's family has in their place (``new_changes``);
Textual Inversion (arXiv 2208.01618), the baseline, trains the embedding alone. The base stays
frozen and shared: the weights that are trained are the concept's own copies, which enter through
the keys and values of its rows. A training is a method: one optimization step, then a turn for the
others.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
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
from customedit.concepts.optimizer_step import DeterministicStep, take_optimizer_step
from customedit.concepts.prompts import ConceptPrompts
from customedit.concepts.settings import TrainingSettings
from customedit.diffusion.adapters import Adapter
from customedit.diffusion.base import Base
from customedit.diffusion.devices import to_device
from customedit.diffusion.engine import Method, Progress, Turn
from customedit.errors import InputError, NumericalError, TrainingError

Preview: TypeAlias = Callable[["TrainableConcept"], Image.Image | None]
"""Shows a training: a picture for its progress, or None from one that draws it elsewhere."""


@dataclass
class TrainableConcept:
    """A concept under training: its tensors are float32 leaves.

    It can be used in prompts meanwhile, as a ``text.Customization``.
    """

    tokens: dict[str, Tensor]
    keys: dict[str, Tensor]
    values: dict[str, Tensor]
    adapters: dict[str, Adapter] = field(default_factory=dict)

    @classmethod
    def of_base(
        cls, base: Base, prompts: Sequence[ConceptPrompts], settings: TrainingSettings
    ) -> TrainableConcept:
        """From the base's own weights and, for each token, the embedding of a word."""
        tokens = {
            p.token: initial_vector(base, p, settings.initial).requires_grad_(True) for p in prompts
        }
        if settings.way != "custom-diffusion":
            return cls(tokens, {}, {})
        changes = base.family.new_changes(settings.rank, settings.seed)
        return cls(tokens, changes.keys, changes.values, changes.adapters)

    def snapshot(self) -> TrainableConcept:
        """A copy that training does not change."""

        def copied(part: dict[str, Tensor]) -> dict[str, Tensor]:
            return {k: v.detach().clone() for k, v in part.items()}

        return TrainableConcept(
            copied(self.tokens),
            copied(self.keys),
            copied(self.values),
            {
                path: dataclasses.replace(adapter, **copied(adapter.factors))  # type: ignore[arg-type]  # tensors alone
                for path, adapter in self.adapters.items()
            },
        )

    @property
    def leaves(self) -> dict[str, Tensor]:
        """Every leaf by a name of its own, in a fixed order."""
        return {
            **{f"token.{k}": v for k, v in self.tokens.items()},
            **{f"{k}.to_k": v for k, v in self.keys.items()},
            **{f"{k}.to_v": v for k, v in self.values.items()},
            **{
                f"adapter.{path}.{name}": factor
                for path, adapter in self.adapters.items()
                for name, factor in adapter.factors.items()
            },
        }


def initial_vector(base: Base, prompts: ConceptPrompts, word: str | None) -> Tensor:
    """The embedding [width] that V* starts from, a copy.

    word: whose it is; None for the profile's rare word, or for the attribute (else the noun) where
    the base's vocabulary lacks it. Of a word of several tokens the first is used.
    """
    encoders = base.family.encoders
    candidates = [word] if word else [base.profile.rare_word, prompts.attribute or prompts.noun]
    for candidate in candidates:
        ids = [e.tokenizer(candidate, add_special_tokens=False).input_ids for e in encoders]
        if len(ids[0]) == 1 or candidate == candidates[-1]:
            tables = (encoder.model.get_input_embeddings().weight for encoder in encoders)
            first = [e.first_token(own) for e, own in zip(encoders, ids, strict=True)]
            rows = [table[token] for table, token in zip(tables, first, strict=True)]
            return torch.cat(rows).detach().float().clone()
    raise AssertionError("the last candidate always serves")


def masked_loss(output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean over rows of each row's squared error, averaged where its mask is 1; a scalar.

    output, target: [rows, C, h, w]; mask: [rows, h, w], 0 or 1.
    """
    error = (output - target).square().mean(1)
    return ((error * mask).sum((1, 2)) / mask.sum((1, 2)).clamp(min=1)).mean()


def training_loss(
    base: Base,
    trained: TrainableConcept,
    settings: TrainingSettings,
    references: Dataset,
    prior: Dataset | None,
    number: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of step ``number``, and its parts by name; scalars.

    Custom Diffusion's: the squared error of the base's own target on ``batch`` framings of
    references, and with prior preservation on as many class images. What is drawn depends on seed
    and number alone.

    Class rows read their words through the concept's weights: that is the drift which prior
    preservation is there to stop.
    """
    rng = np.random.default_rng([settings.seed, 2, number])
    noise_of = torch.Generator().manual_seed(int(rng.integers(2**62)))
    parts = [(references, rng.integers(len(references.texts), size=settings.batch))]
    if prior is not None:
        parts.append((prior, rng.integers(len(prior.texts), size=settings.batch)))
    words = [part.texts[i] for part, numbers in parts for i in numbers]
    texts = {w: base.trained_text(w, trained) for w in dict.fromkeys(words)}
    context = [texts[w] for w in words]
    drawings = [part.select(numbers) for part, numbers in parts]
    latents, masks = (torch.cat(found) for found in zip(*drawings, strict=True))
    rows = len(latents)
    schedule = base.schedule.sized(*latents.shape[-2:])
    times = schedule.draw_times(rng, rows)
    noise = to_device(torch.randn(latents.shape, generator=noise_of), base.device)
    noisy = schedule.add_noise(latents, noise, times)
    target = schedule.target(latents, noise, times)
    output, _ = base.output(noisy, times, context)
    instance = masked_loss(
        output[: settings.batch], target[: settings.batch], masks[: settings.batch]
    )
    loss = settings.instance_weight * instance
    facts = {"instance": instance}
    if prior is not None:
        kept = masked_loss(
            output[settings.batch :], target[settings.batch :], masks[settings.batch :]
        )
        loss = loss + settings.prior_weight * kept
        facts["prior"] = kept
    return loss, {"loss": loss, **facts}


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
    arguments ends in the same bits.
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
            "use custom-diffusion or textual-inversion",
        )
    check_subjects(subjects)
    check_words(base, subjects)
    words = [dataclasses.asdict(s.prompts) for s in subjects]
    if resume is not None and resume.exists():
        checkpoint.check(resume, checkpoint.about_training(base, settings, words))
    yield Turn()
    references, prior = yield from build_datasets(base, subjects, settings, class_cache)
    trained = TrainableConcept.of_base(base, [s.prompts for s in subjects], settings)
    untrained = TrainableConcept({k: v.detach().clone() for k, v in trained.tokens.items()}, {}, {})
    try:
        facts = yield from train_leaves(
            base,
            trained,
            trained.leaves,
            words,
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
    leaves: dict[str, Tensor],
    words: Sequence[dict[str, str]],
    settings: TrainingSettings,
    references: Dataset,
    prior: Dataset | None,
    *,
    resume: Path | None = None,
    preview: Preview | None = None,
) -> Method[dict[str, float]]:
    """AdamW on ``leaves`` (names to tensors, in a fixed order); returns the last step's losses.

    words: of the subjects, which a checkpoint must match.

    Raises TrainingError when the loss is not finite; the last checkpoint stays.
    """
    tensors = list(leaves.values())
    # tensor by tensor (foreach=False): the same bits however many there are; on a GPU one kernel
    # for all, which takes each number by itself
    fused = base.device.type == "cuda"
    optimizer = torch.optim.AdamW(
        tensors, settings.rate, weight_decay=settings.weight_decay, foreach=False, fused=fused
    )
    about = checkpoint.about_training(base, settings, words)
    start = 0
    if resume is not None and resume.exists():
        start = checkpoint.load(resume, leaves, optimizer, about)
    facts: dict[str, float] = {}
    deterministic_step = DeterministicStep(base.device)
    for number in range(start, settings.steps):
        loss_of = functools.partial(
            training_loss, base, trained, settings, references, prior, number
        )
        facts = deterministic_step(
            functools.partial(
                take_optimizer_step, loss_of, optimizer, base.denoiser.dtype, settings.clip
            )
        )
        if not math.isfinite(facts["loss"]):
            raise TrainingError(
                f"The loss became {facts['loss']} at step {number + 1}; use a learning rate below "
                f"{settings.rate:g}",
                step=number,
            )
        done = number + 1
        if resume is not None and (done % settings.checkpoint_every == 0 or done == settings.steps):
            checkpoint.save(resume, leaves, optimizer, done, about)
        shown = None
        if preview is not None and settings.preview_every and done % settings.preview_every == 0:
            shown = preview(trained)
        try:
            yield Progress("train", done, settings.steps, facts, shown)
            yield Turn()
        except GeneratorExit:
            if resume is not None:
                checkpoint.save(resume, leaves, optimizer, done, about)
            raise
    return facts


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
    with torch.no_grad():
        loss, _ = training_loss(base, untrained, settings, references, prior, number)
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
    first, held = subjects[0].prompts, trained.snapshot()
    return Concept(
        tokens=held.tokens,
        keys=held.keys,
        values=held.values,
        adapters=held.adapters,
        noun=first.noun,
        attribute=first.attribute,
        base=base.concept_fingerprint,
        prompts=tuple(s.prompts.instance() for s in subjects),
        recipe={"settings": dataclasses.asdict(settings), "final": facts},
        images=sum(len(s.references) for s in subjects),
    )
