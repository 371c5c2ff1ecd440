"""Customization: Custom Diffusion (arXiv 2212.04488) with Custom-Edit's augmented prompts.

Trained are the concept's embedding V* and the key and value weights of every cross-attention layer;
Textual Inversion (arXiv 2208.01618), the baseline, trains the embedding alone. The base stays
frozen and shared: the weights that are trained are the concept's own copies, which enter through
the keys and values of its rows. A training is a method: one optimisation step, then a turn for the
others.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from customedit.concepts import checkpoint
from customedit.concepts.concept import Concept
from customedit.concepts.dataset import Pool, Subject, check_subjects, pools
from customedit.concepts.determinism import Steady
from customedit.concepts.optimizer_step import descend
from customedit.concepts.prompts import ConceptPrompts
from customedit.concepts.settings import TrainingSettings
from customedit.diffusion.base import Base
from customedit.diffusion.devices import to_device
from customedit.diffusion.engine import Method, Progress, Turn
from customedit.diffusion.text import TextContext
from customedit.errors import InputError, TrainingError

Preview: TypeAlias = Callable[["Trained"], Image.Image | None]
"""Shows a training: a picture for its progress, or None from one that draws it elsewhere."""


@dataclass
class Trained:
    """What is being trained: float32 leaves. It is a ``text.Customization`` while it learns."""

    tokens: dict[str, Tensor]
    keys: dict[str, Tensor]
    values: dict[str, Tensor]

    @classmethod
    def start(
        cls, base: Base, prompts: Sequence[ConceptPrompts], settings: TrainingSettings
    ) -> Trained:
        """From the base's own weights and, for each token, the embedding of a word."""
        tokens = {
            p.token: initial_vector(base, p, settings.initial).requires_grad_(True) for p in prompts
        }
        keys: dict[str, Tensor] = {}
        values: dict[str, Tensor] = {}
        if settings.way == "custom-diffusion":
            for layer in base.layers:
                for part, name in ((keys, "to_k"), (values, "to_v")):
                    weight = base.weights[f"{layer}.{name}.weight"].clone()
                    part[layer] = weight.requires_grad_(True)
        return cls(tokens, keys, values)

    def still(self) -> Trained:
        """A copy that training does not change any more."""

        def copied(part: dict[str, Tensor]) -> dict[str, Tensor]:
            return {k: v.detach().clone() for k, v in part.items()}

        return Trained(copied(self.tokens), copied(self.keys), copied(self.values))

    @property
    def named(self) -> dict[str, Tensor]:
        """Every leaf by a name of its own, in a fixed order."""
        return {
            **{f"token.{k}": v for k, v in self.tokens.items()},
            **{f"{k}.to_k": v for k, v in self.keys.items()},
            **{f"{k}.to_v": v for k, v in self.values.items()},
        }


def initial_vector(base: Base, prompts: ConceptPrompts, word: str | None) -> Tensor:
    """The embedding [width] that V* starts from, a copy."""
    table = base.pipeline.text_encoder.get_input_embeddings().weight
    candidates = [word] if word else [base.profile.rare_word, prompts.attribute or prompts.noun]
    for candidate in candidates:
        ids = base.tokenizer(candidate, add_special_tokens=False).input_ids
        if len(ids) == 1 or candidate == candidates[-1]:
            return table[ids[0]].detach().float().clone()
    raise AssertionError("the last candidate always serves")


def trained_text(base: Base, trained: Trained, prompt: str) -> TextContext:
    """The context of ``prompt`` with gradients into ``trained``.

    The start token's key and value are not trained through, as in Custom Diffusion's code: its
    state is the same in every prompt, so a change there would act on everything.
    """
    tokens = base.tokens(prompt, list(trained.tokens))
    states = base.states(tokens, trained.tokens)

    def projected(own: dict[str, Tensor], name: str) -> tuple[Tensor, ...]:
        out = []
        for layer in base.layers:
            weight = own.get(layer, base.weights[f"{layer}.{name}.weight"])
            rows = states.float() @ weight.T
            out.append(torch.cat([rows[:1].detach(), rows[1:]]).to(base.unet.dtype))
        return tuple(out)

    return TextContext(
        prompt, states, projected(trained.keys, "to_k"), projected(trained.values, "to_v")
    )


def masked_loss(output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean over rows of each row's squared error, averaged where ``mask`` [rows, h, w] is 1."""
    error = (output - target).square().mean(1)
    return ((error * mask).sum((1, 2)) / mask.sum((1, 2)).clamp(min=1)).mean()


def step_loss(
    base: Base,
    trained: Trained,
    settings: TrainingSettings,
    pool: Pool,
    prior: Pool | None,
    number: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of step ``number`` and its parts: what is drawn depends on seed and number alone.

    Class rows read their words through the concept's weights: that is the drift which prior
    preservation is there to stop.
    """
    rng = np.random.default_rng([settings.seed, 2, number])
    noise_of = torch.Generator().manual_seed(int(rng.integers(2**62)))
    parts = [(pool, rng.integers(len(pool.texts), size=settings.batch))]
    if prior is not None:
        parts.append((prior, rng.integers(len(prior.texts), size=settings.batch)))
    words = [part.texts[i] for part, numbers in parts for i in numbers]
    texts = {w: trained_text(base, trained, w) for w in dict.fromkeys(words)}
    context = [texts[w] for w in words]
    drawings = [part.drawn(numbers) for part, numbers in parts]
    latents, masks = (torch.cat(found) for found in zip(*drawings, strict=True))
    rows = len(latents)
    times = torch.from_numpy(rng.integers(len(base.schedule.alphas), size=rows))
    noise = to_device(torch.randn(latents.shape, generator=noise_of), base.device)
    noisy = base.schedule.add_noise(latents, noise, times)
    target = base.schedule.target(latents, noise, times)
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


def customize(
    base: Base,
    references: Sequence[Image.Image],
    prompts: ConceptPrompts,
    settings: TrainingSettings | None = None,
    *,
    resume: Path | None = None,
    class_cache: Path | None = None,
    preview: Preview | None = None,
) -> Method[Concept]:
    """Learn a concept from ``references``.

    resume: a checkpoint file, read if it is there and written every ``checkpoint_every`` steps and
    when the training is stopped at a yield; one that is killed and called again with equal
    arguments ends in the same bits.
    class_cache: a folder that keeps class images. Progress carries the losses.

    Raises InputError for unusable arguments, TrainingError when the loss is no number.
    """
    return customize_jointly(
        base,
        [Subject(references, prompts)],
        settings,
        resume=resume,
        class_cache=class_cache,
        preview=preview,
    )


def customize_jointly(
    base: Base,
    subjects: Sequence[Subject],
    settings: TrainingSettings | None = None,
    *,
    resume: Path | None = None,
    class_cache: Path | None = None,
    preview: Preview | None = None,
) -> Method[Concept]:
    """Learn one concept with a token for each of ``subjects``, all at once.

    Custom Diffusion's joint training: the key and value weights are shared, every token has its own
    embedding, and a step draws from the references of all. The rest is as for ``customize``.
    """
    settings = settings or TrainingSettings.of(base)
    if settings.way == "dreambooth":
        raise InputError("way", "dreambooth gives no concept but a model", "see dreambooth.py")
    check_subjects(subjects)
    yield Turn()
    pool, prior = yield from pools(base, subjects, settings, class_cache)
    trained = Trained.start(base, [s.prompts for s in subjects], settings)
    about = [dataclasses.asdict(s.prompts) for s in subjects]
    facts = yield from optimise(
        base, trained, trained.named, about, settings, pool, prior, resume=resume, preview=preview
    )
    return finish(base, trained, subjects, settings, facts)


def optimise(
    base: Base,
    trained: Trained,
    leaves: dict[str, Tensor],
    words: Sequence[dict[str, str]],
    settings: TrainingSettings,
    pool: Pool,
    prior: Pool | None,
    *,
    resume: Path | None = None,
    preview: Preview | None = None,
) -> Method[dict[str, float]]:
    """AdamW on ``leaves`` (names to tensors, in a fixed order); returns the last step's losses.

    words: of the subjects, which a checkpoint must match.

    Raises TrainingError when the loss is no number; the last checkpoint stays.
    """
    tensors = list(leaves.values())
    # tensor by tensor (foreach=False): the same bits however many there are
    optimizer = torch.optim.AdamW(
        tensors, settings.rate, weight_decay=settings.weight_decay, foreach=False
    )
    about: dict[str, Any] = {
        "settings": dataclasses.asdict(settings),
        "prompts": list(words),
        "base": base.fingerprint,
    }
    start = 0
    if resume is not None and resume.exists():
        start = checkpoint.load(resume, leaves, optimizer, about)
    facts: dict[str, float] = {}
    steady = Steady(base.device)
    for number in range(start, settings.steps):
        loss_of = functools.partial(step_loss, base, trained, settings, pool, prior, number)
        facts = steady(
            functools.partial(descend, loss_of, optimizer, base.unet.dtype, settings.clip)
        )
        if not math.isfinite(facts["loss"]):
            raise TrainingError(
                f"the loss is {facts['loss']} at step {number + 1}; take a rate below "
                f"{settings.rate:g} and train again"
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


def finish(
    base: Base,
    trained: Trained,
    subjects: Sequence[Subject],
    settings: TrainingSettings,
    facts: dict[str, float],
) -> Concept:
    """What was trained, as a concept with its recipe."""
    first, held = subjects[0].prompts, trained.still()
    return Concept(
        tokens=held.tokens,
        keys=held.keys,
        values=held.values,
        noun=first.noun,
        attribute=first.attribute,
        base=base.concept_fingerprint,
        prompts=tuple(s.prompts.instance() for s in subjects),
        recipe={"settings": dataclasses.asdict(settings), "final": facts},
        images=sum(len(s.references) for s in subjects),
    )
