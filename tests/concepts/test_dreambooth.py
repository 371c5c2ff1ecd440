"""DreamBooth trains a model of its own and leaves the base alone."""

from __future__ import annotations

import torch
from PIL import Image

from customedit.concepts.prompts import ConceptPrompts
from customedit.concepts.settings import TrainingSettings
from customedit.diffusion.base import Base
from customedit.diffusion.engine import run
from customedit.editing.editor import Editor
from customedit.experiments.dreambooth import dreambooth
from customedit.mini import samples


def test_the_whole_unet_is_trained_and_the_base_is_not() -> None:
    base = Base.load()
    before = {k: v.clone() for k, v in base.denoiser.state_dict().items()}
    references = [Image.open(p).convert("RGB") for p in samples.looks()[0].images[:2]]
    settings = TrainingSettings.of(base, way="dreambooth", steps=2, class_images=0, crops=2)
    prompts = ConceptPrompts("<a>", "cup", "patterned")
    tuned, word = run(base, dreambooth(base, references, prompts, settings))
    assert all(torch.equal(v, before[k]) for k, v in base.denoiser.state_dict().items())
    same = [torch.equal(v, before[k]) for k, v in tuned.denoiser.state_dict().items()]
    assert sum(same) < 0.05 * len(same)
    picture = Image.open(samples.sources()[3].image)

    def latents(model: Base) -> torch.Tensor:
        session = Editor(model).open(picture, "a photo of a cup")
        result = session.edit("a photo of a <a> patterned cup", concepts=[word], steps=2)
        return result.drawing.latents

    assert latents(tuned).isfinite().all()
    assert not torch.allclose(latents(tuned), latents(base))
