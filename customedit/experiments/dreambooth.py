"""DreamBooth (Ruiz et al., arXiv 2208.12242), the baseline: the whole UNet is trained.

What it learns is no concept but a model of its own, which cannot share forwards with the base. It
is here for the comparison of the paper.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from customedit.concepts import checkpoint
from customedit.concepts.concept import Concept
from customedit.concepts.dataset import Subject, build_datasets, check_subjects, check_words
from customedit.concepts.prompts import ConceptPrompts
from customedit.concepts.settings import TrainingSettings
from customedit.concepts.trainable import TrainableConcept, initial_vector
from customedit.concepts.training import check_base_loss, train_leaves
from customedit.diffusion.base import Base
from customedit.diffusion.method import Method, Turn
from customedit.errors import TrainingError


def own_copy(base: Base) -> Base:
    """A base with a UNet of its own, in float32; the other parts are shared.

    Trained in half precision, a weight would stay as it is: one step changes less than its last
    bit. All that is shared is in place already, so that nothing of ``base`` is moved.
    """
    tuned = Base.wrap(
        base.family.with_denoiser(copy.deepcopy(base.denoiser)),
        f"{base.name}+dreambooth",
        device=str(base.device),
        dtype=base.dtype,
        profile=base.profile,
    )
    tuned.denoiser.float()
    return tuned


def dreambooth(
    base: Base,
    references: Sequence[Image.Image],
    prompts: ConceptPrompts,
    settings: TrainingSettings | None = None,
    *,
    resume: Path | None = None,
    class_cache: Path | None = None,
) -> Method[tuple[Base, Concept]]:
    """A model that has learned the references, and the word for them (an untrained embedding).

    ``base`` is left as it is. Edit with the returned base and the returned word as its concept.
    Raises as ``train_concept`` does.
    """
    settings = settings or TrainingSettings.of(base, way="dreambooth")
    subject = Subject(references, prompts)
    check_subjects([subject])
    check_words(base, [subject])
    about = {} if resume is None else checkpoint.about_training(base, settings, [subject])
    if resume is not None and resume.exists():
        checkpoint.check(resume, about)
    yield Turn()
    pool, prior = yield from build_datasets(base, [subject], settings, class_cache)
    tuned = own_copy(base)
    leaves = {name: p.requires_grad_(True) for name, p in tuned.denoiser.named_parameters()}
    word = initial_vector(base, prompts, settings.initial)
    trained = TrainableConcept(
        {prompts.token: word},
        {n: leaves[f"{n}.to_k.weight"] for n in base.layers},
        {n: leaves[f"{n}.to_v.weight"] for n in base.layers},
    )
    try:
        yield from train_leaves(tuned, trained, leaves, about, settings, pool, prior, resume=resume)
    except TrainingError as error:
        untrained = TrainableConcept({prompts.token: word})
        check_base_loss(base, untrained, settings, pool, prior, error.step)
        raise
    tuned.denoiser.requires_grad_(False)
    tuned.read_weights()
    tuned.denoiser.to(base.dtype)
    concept = Concept(
        {prompts.token: word}, noun=prompts.noun, attribute=prompts.attribute,
        base=tuned.concept_fingerprint, prompts=(prompts.instance(),), images=len(references),
    )  # fmt: skip
    return tuned, concept
