"""The bundled base: a small diffusion model of a small world, trained from scratch on own renders.

``path()`` is a folder that ``diffusers.StableDiffusionPipeline.from_pretrained`` loads as it is;
``vocabulary`` says what it can draw, ``samples`` holds pictures to try things on.
"""

from __future__ import annotations

from pathlib import Path

_WEIGHTS = Path(__file__).parent / "weights"


def path() -> Path:
    """The folder of the bundled base, in the layout of a Stable Diffusion pipeline.

    Beside the pipeline's parts it holds ``clip/`` (a CLIPModel whose text tower is the pipeline's
    text encoder) and ``judge.safetensors``.

    Raises:
        FileNotFoundError: if this installation carries no weights.
    """
    if not (_WEIGHTS / "model_index.json").is_file():
        raise FileNotFoundError(
            f"no bundled base in {_WEIGHTS}; train it with: python -m customedit.mini.train"
        )
    return _WEIGHTS
