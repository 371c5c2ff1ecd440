"""Training checkpoints to the folder that ships, or to compact files to go on from; and back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPModel

from customedit.mini import clip, judge, profile, unet, vae
from customedit.mini.loop import config_of, save_atomically
from customedit.mini.sizes import SMALL
from customedit.mini.text import load_tokenizer

LIMIT = 64 * 1024 * 1024
"""Most bytes that all weights of the small size together may take."""

PART: Final = 16 * 1000 * 1000
"""Most bytes of a file of packed checkpoints, and of the large size's UNet, which is in several."""

STAGES: Final = ("clip", "vae", "decoder", "unet", "judge")
"""The stages that leave a checkpoint."""

Model = TypeVar("Model", bound=nn.Module)


def load_average(model: nn.Module, checkpoint: Path) -> int:
    """Put the moving average of ``checkpoint`` into ``model``; returns the step it was taken at.

    Raises FileNotFoundError naming the stage to run first.
    """
    if not checkpoint.exists():
        raise FileNotFoundError(
            f"{checkpoint} is missing; run: python -m customedit.mini.train {checkpoint.stem}"
        )
    saved = torch.load(checkpoint, weights_only=True, map_location="cpu")
    model.load_state_dict(saved["average"])
    model.eval()
    return int(saved["step"])


def model_of(checkpoint: Path, build: Callable[[], Model]) -> Model:
    """A model as ``checkpoint`` has it configured, or as ``build`` makes it; without its weights.

    A run that was restored from weights of another size so goes on in that size.
    """
    model = build()
    if not checkpoint.exists():
        return model
    saved = torch.load(checkpoint, weights_only=True, map_location="cpu", mmap=True)
    config, kind = saved.get("config"), cast(Any, type(model))
    return model if config is None else cast(Model, kind.from_config(config))


def latent_scale(folder: Path) -> float:
    """1 / standard deviation of the training latents: times this, they have unit variance."""
    return 1.0 / unet.Latents(folder / "scenes", 4).std()


def assemble(folder: Path, out: Path) -> dict[str, Any]:
    """Write the pipeline, ``clip/`` and ``judge.safetensors`` to ``out``.

    Weights are kept in float16 and load as float32: transformers would load its part as it is kept,
    diffusers its parts as float32, and the two would not meet. Returns the training steps of each
    part, which ``training.json`` keeps, too.

    Raises ValueError when the weights of the small size take more than LIMIT.
    """
    tokenizer = load_tokenizer(folder / "tokenizer")
    whole = clip.build(tokenizer)
    codec = model_of(folder / "decoder.pt", vae.build)
    denoiser = model_of(folder / "unet.pt", unet.build)
    eye = model_of(folder / "judge.pt", judge.Judge)
    parts = {"clip": whole, "decoder": codec, "unet": denoiser, "judge": eye}
    steps = {name: load_average(part, folder / f"{name}.pt") for name, part in parts.items()}
    codec.register_to_config(scaling_factor=latent_scale(folder))
    pipeline = StableDiffusionPipeline(
        vae=codec,
        text_encoder=clip.text_encoder(whole),
        tokenizer=tokenizer,
        unet=denoiser,
        scheduler=unet.scheduler(),
        safety_checker=None,
        feature_extractor=clip.image_processor(),
        requires_safety_checker=False,
    )
    out.mkdir(parents=True, exist_ok=True)
    small = denoiser.config.sample_size == SMALL.cells
    pipeline.to(dtype=torch.float16).save_pretrained(
        out, safe_serialization=True, max_shard_size=None if small else PART
    )
    whole.half().save_pretrained(out / "clip", safe_serialization=True)
    tokenizer.save_pretrained(out / "clip")
    clip.image_processor().save_pretrained(out / "clip")
    for config in (out / "text_encoder" / "config.json", out / "clip" / "config.json"):
        config.write_text(config.read_text().replace('"float16"', '"float32"'))
    for name in ("vocab.json", "merges.txt"):  # for readers that know no tokenizer.json
        for part in ("tokenizer", "clip"):
            shutil.copyfile(folder / "tokenizer" / name, out / part / name)
    save_file(_halves(eye.state_dict()), out / "judge.safetensors")
    profile.write(out, 8 * denoiser.config.sample_size)
    (out / "training.json").write_text(json.dumps({"steps": steps}, indent=2) + "\n")
    size = sum(p.stat().st_size for p in out.rglob("*.safetensors"))
    if small and size > LIMIT:
        raise ValueError(f"the weights take {size} bytes, more than the {LIMIT} they may")
    return steps


def pack(folder: Path, out: Path) -> dict[str, int]:
    """Write the moving averages of the checkpoints in ``folder`` to ``out``, in half precision.

    A stage becomes one or more files ``vae.1.safetensors`` of at most PART, whose metadata have its
    step and configuration. With the tokenizer that is all that :func:`restore` needs to go on with
    a training that is under way; the optimiser's memory is left behind. Returns the stages' steps.
    """
    out.mkdir(parents=True, exist_ok=True)
    if (folder / "tokenizer").exists():
        shutil.copytree(folder / "tokenizer", out / "tokenizer", dirs_exist_ok=True)
    steps: dict[str, int] = {}
    for name in STAGES:
        if not (folder / f"{name}.pt").exists():
            continue
        saved = torch.load(folder / f"{name}.pt", weights_only=True, map_location="cpu")
        steps[name] = saved["step"]
        notes = {"step": str(saved["step"]), "config": json.dumps(saved.get("config"))}
        for old in out.glob(f"{name}.*.safetensors"):
            old.unlink()
        for number, part in enumerate(_parted(_halves(saved["average"])), 1):
            save_file(part, out / f"{name}.{number}.safetensors", notes)
    return steps


def _parted(state: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """``state`` in pieces of at most PART, less what their headers take."""
    part: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if part and sum(t.nbytes for t in (*part.values(), tensor)) > PART - 500_000:
            yield part
            part = {}
        part[name] = tensor
    yield part


def _halves(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.half().contiguous() if v.is_floating_point() else v for k, v in state.items()}


def _unpack(packed: Path, folder: Path) -> None:
    if (packed / "tokenizer").exists() and not (folder / "tokenizer").exists():
        shutil.copytree(packed / "tokenizer", folder / "tokenizer")
    for name in STAGES:
        state: dict[str, Tensor] = {}
        notes: dict[str, str] = {}
        for path in packed.glob(f"{name}.*.safetensors"):
            with safe_open(path, "pt") as file:
                notes = file.metadata()
                state |= {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        if state:
            state = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
            step, config = int(notes["step"]), json.loads(notes["config"])
            _start(folder / f"{name}.pt", state, step, config)


def _start(checkpoint: Path, state: Mapping[str, Tensor], step: int, config: Any) -> None:
    """Write a checkpoint without the optimiser's memory, unless there is one."""
    if not checkpoint.exists():
        saved = {"model": state, "average": state, "optimizer": None, "step": step}
        save_atomically({**saved, "config": config}, checkpoint)


def restore(weights: Path, folder: Path) -> None:
    """Unpack ``weights`` into checkpoints, for stages to go on from.

    What :func:`pack` wrote goes on at the steps where it was. Of an assembled folder finished parts
    get their steps back, and the UNet starts a new schedule at step 0 from the weights that
    shipped. The optimisers start without memory. Checkpoints that exist are left alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (weights / "model_index.json").exists():
        _unpack(weights, folder)
        return
    steps = json.loads((weights / "training.json").read_text())["steps"]
    if not (folder / "tokenizer").exists():
        shutil.copytree(weights / "tokenizer", folder / "tokenizer")
    found = _parts(weights)
    for name, model in found.items():
        step = 0 if name == "unet" else steps.get(name, 0)
        _start(folder / f"{name}.pt", model.state_dict(), step, config_of(model))


def _parts(weights: Path) -> dict[str, nn.Module]:
    """The models of an assembled folder, by the stage that made them, in single precision."""
    codec = AutoencoderTiny.from_pretrained(weights / "vae").float()
    return {
        "clip": CLIPModel.from_pretrained(weights / "clip").float(),
        "vae": codec,
        "decoder": codec,
        "judge": judge.load(weights / "judge.safetensors"),
        "unet": UNet2DConditionModel.from_pretrained(weights / "unet").float(),
    }


def start_from(model: nn.Module, weights: Path, stage: str) -> int:
    """Give ``model`` the tensors of an assembled folder that fit it; returns how many did.

    A model of other channels or another vocabulary so starts with what it shares, instead of at
    random.
    """
    state, given = model.state_dict(), _parts(weights)[stage].state_dict()
    fitting = {k: v for k, v in given.items() if k in state and v.shape == state[k].shape}
    model.load_state_dict(fitting, strict=False)
    return len(fitting)
