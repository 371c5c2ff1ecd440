"""DreamBooth trains a model of its own and leaves the base alone."""

from __future__ import annotations

import torch
from PIL import Image

from customedit.concepts.prompts import ConceptPrompts
from customedit.concepts.settings import TrainingSettings
from customedit.diffusion.base import Base
from customedit.diffusion.engine import run
from customedit.diffusion.text import Weighted
from customedit.editing.edit import EditSettings, edit
from customedit.experiments.dreambooth import dreambooth
from customedit.mini import samples


def test_the_whole_unet_is_trained_and_the_base_is_not() -> None:
    base = Base.load()
    before = {k: v.clone() for k, v in base.unet.state_dict().items()}
    references = [Image.open(p).convert("RGB") for p in samples.looks()[0].images[:2]]
    settings = TrainingSettings.of(base, way="dreambooth", steps=2, class_images=0, crops=2)
    prompts = ConceptPrompts("<a>", "cup", "patterned")
    tuned, word = run(base, dreambooth(base, references, prompts, settings))
    assert all(torch.equal(v, before[k]) for k, v in base.unet.state_dict().items())
    same = [torch.equal(v, before[k]) for k, v in tuned.unet.state_dict().items()]
    assert sum(same) < 0.05 * len(same)
    picture = Image.open(samples.sources()[3].image).convert("RGB")
    prompt = EditSettings("a photo of a cup", "a photo of a <a> patterned cup", steps=2)
    concepts = [Weighted(word)]
    ours = run(tuned, edit(tuned, picture, prompt, concepts))
    plain = run(base, edit(base, picture, prompt, concepts))
    assert ours.latents.isfinite().all()
    assert not torch.allclose(ours.latents, plain.latents)
