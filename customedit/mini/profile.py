"""The bundled base's profile, made from what its small world knows.

``python -m customedit.mini.profile`` writes it into the base's folder, as ``assemble`` does.
"""

from __future__ import annotations

from pathlib import Path

from customedit import mini
from customedit.diffusion.profile import CAPTIONS, FILE, Profile
from customedit.mini import captions, vocabulary
from customedit.mini.scenes import SIZE, sample_scene

CAPTIONS_SEED = 5_000_000
"""First seed of the scenes whose captions a merge leaves alone; no training scene is there."""


def build(side: int = SIZE) -> Profile:
    """The profile of a base that draws ``side`` pixels.

    Training takes seconds on a processor, so its defaults are far below SD's.
    """
    scenes = [sample_scene(CAPTIONS_SEED + k) for k in range(CAPTIONS)]
    common = {"steps": 250, "class_images": 24, "class_steps": 15}
    return Profile.model_validate(
        {
            "architecture": "customedit mini",
            "side": side,
            "guidance": 4.0,
            "training": {
                "custom-diffusion": {**common, "rate": 2e-4},
                "textual-inversion": {**common, "rate": 5e-3, "class_images": 0},
                "dreambooth": {**common, "rate": 1e-4},
                "lora": {**common, "rate": 1e-3, "rank": 8},
            },
            "nouns": vocabulary.CLASSES,
            "captions": [captions.full(scene, k % 5) for k, scene in enumerate(scenes)],
            "clip": "clip",
            "vocabulary": vocabulary.as_dict(),
        }
    )


def write(folder: Path, side: int = SIZE) -> None:
    """Write the profile into the base in ``folder``, which draws ``side`` pixels."""
    text = build(side).model_dump_json(by_alias=True, exclude_none=True, indent=1)
    (folder / FILE).write_text(text + "\n")


if __name__ == "__main__":
    write(mini.path())
