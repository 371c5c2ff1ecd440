"""Stage ``unet``: the denoiser, v-prediction on latents kept on disk, with grounded words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizer

from customedit.mini import grounding, loop
from customedit.mini.captions import describe
from customedit.mini.clip import WIDTH, tokenize
from customedit.mini.data import SHARD, Shards
from customedit.mini.loop import Average, Loss, Run, Step, check_time
from customedit.mini.sizes import SMALL, Size
from customedit.mini.vae import CHANNELS, to_tensor

DROP = 0.1
"""Share of captions replaced by the empty one, for classifier-free guidance."""

GROUNDING = 0.005
"""Weight of the word grounding loss beside the mean squared error of v."""


def build(size: Size = SMALL) -> UNet2DConditionModel:
    """A UNet of random weights, with cross-attention at every level."""
    levels = len(size.unet_widths)
    return UNet2DConditionModel(
        sample_size=size.cells,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        block_out_channels=size.unet_widths,
        layers_per_block=size.unet_layers,
        down_block_types=("CrossAttnDownBlock2D",) * levels,
        up_block_types=("CrossAttnUpBlock2D",) * levels,
        cross_attention_dim=WIDTH,
        attention_head_dim=size.unet_heads,  # heads per level, in spite of the name
        norm_num_groups=32,
    )


def scheduler() -> DDIMScheduler:
    """Stable Diffusion 2's: scaled-linear betas 0.00085 to 0.012, 1000 steps, v-prediction."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )


@torch.no_grad()
def write_latents(
    folder: Path,
    vae: AutoencoderTiny,
    batch: int = 50,
    device: str = "cpu",
    deadline: float | None = None,
) -> None:
    """Encode every shard once, passing over shards that have their latents.

    Writes ``latents-00042.npy``, float16 [n, channels, cells, cells]; every second scene is encoded
    as its mirror image (``mirrored``). Raises TimeUp when ``deadline`` has come, a shard being done
    (see :class:`customedit.mini.loop.Run`).
    """
    vae = vae.eval().to(device, memory_format=torch.channels_last)
    shards = sorted((folder / "scenes").glob("images-*.npy"))
    latents_of = {path: path.with_name(path.name.replace("images", "latents")) for path in shards}
    missing = [path for path, latents in latents_of.items() if not latents.exists()]
    for number, images_path in enumerate(missing):
        path = latents_of[images_path]
        if number:
            check_time(deadline, f"latents: {len(missing) - number} shards are left")
        images = np.load(images_path, mmap_mode="r")
        cells = images.shape[1] // 8
        out = np.empty((len(images), vae.config.latent_channels, cells, cells), np.float16)
        for at in range(0, len(images), batch):
            x = to_tensor(np.array(images[at : at + batch])).to(device)
            flip = torch.from_numpy(mirrored(np.arange(at, at + len(x)))).to(device)
            x[flip] = x[flip].flip(3)
            x = x.contiguous(memory_format=torch.channels_last)
            with loop.half_precision(device):
                out[at : at + batch] = vae.encode(x).latents.float().cpu().numpy()
        part = path.with_suffix(".part.npy")
        np.save(part, out)
        part.rename(path)


def mirrored(indices: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Which scenes are kept as their mirror image: every second one (captions name no side)."""
    return indices % 2 == 1


class Latents:
    """The latents of all shards, in memory."""

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        paths = sorted(folder.glob("latents-*.npy"))[:limit]
        paths = [p for p in paths if ".part" not in p.name]
        if not paths:
            raise FileNotFoundError(f"no latents in {folder}; run the 'latents' stage first")
        self.blocks: list[NDArray[np.float16]] = [np.load(p) for p in paths]

    def __len__(self) -> int:
        return len(self.blocks) * SHARD

    def std(self) -> float:
        """Standard deviation over the first block, which stands for all."""
        return float(self.blocks[0].astype(np.float32).std())

    def batch(self, indices: NDArray[np.intp]) -> Tensor:
        """float32 [n, channels, cells, cells]."""
        rows = [self.blocks[i // SHARD][i % SHARD] for i in indices]
        return torch.from_numpy(np.stack(rows).astype(np.float32))


@torch.no_grad()
def encode_text(text: CLIPTextModel, tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """The states the UNet sees, [n, MAX_TOKENS, WIDTH]."""
    return text(tokenize(tokenizer, captions).to(text.device)).last_hidden_state


def v_target(latent: Tensor, noise: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """(noisy latent x, v) at cumulative alpha a, [n] (Salimans & Ho, arXiv 2202.00512).

    x = sqrt(a) latent + sqrt(1 - a) noise, v = sqrt(a) noise - sqrt(1 - a) latent.
    """
    a, b = alpha.sqrt()[:, None, None, None], (1 - alpha).sqrt()[:, None, None, None]
    return a * latent + b * noise, a * noise - b * latent


def train(
    run: Run,
    unet: UNet2DConditionModel,
    text: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    on_checkpoint: Callable[[int, Average], None] | None = None,
) -> Average:
    """Train ``unet`` on the run's latents; the text encoder stays as it is."""
    shards = Shards(run.folder / "scenes", run.shards)
    latents = Latents(run.folder / "scenes", run.shards)
    batch, device = run.batch, run.device
    scale = 1.0 / latents.std()
    alphas = scheduler().alphas_cumprod
    text = text.to(device).eval().requires_grad_(False)
    unet = unet.to(memory_format=torch.channels_last)
    maps = grounding.watch(unet)

    def loss(step: Step) -> Loss:
        rng = step.numpy
        indices = rng.integers(len(latents), size=batch)
        flips = mirrored(indices)
        captions = ["" if rng.random() < DROP else describe(shards.scenes[i], rng) for i in indices]
        # one time step from each of ``batch`` equal parts of the schedule: less noise per step
        t = torch.from_numpy(((np.arange(batch) + rng.random(batch)) / batch * 1000).astype(int))
        latent = latents.batch(indices) * scale
        noise = torch.randn(latent.shape, generator=step.torch)
        x, v = v_target(latent, noise, alphas[t])
        x, v, weight = x.to(device), v.to(device), alphas[t].sqrt().to(device)
        masks = torch.from_numpy(np.stack([shards.mask(int(i)) for i in indices]))
        masks = torch.where(torch.from_numpy(flips)[:, None, None], masks.flip(2), masks)
        horizon = torch.tensor([shards.scenes[i].horizon for i in indices])
        maps.clear()
        with run.half():
            states = encode_text(text, tokenizer, captions)
            x = x.contiguous(memory_format=torch.channels_last)
            got = unet(x, t.to(device), states).sample.float()
        mse = F.mse_loss(got, v)
        whole = torch.tensor([not shards.scenes[i].framing for i in indices])
        places = grounding.region_masks(masks, horizon, whole).to(device)
        place = grounding.loss(maps, captions, places, weight)
        maps.clear()
        return mse + GROUNDING * place, {"mse": mse.item(), "grounding": place.item()}

    return loop.train("unet", unet, loss, run, on_checkpoint)


@torch.no_grad()
def sample(
    unet: UNet2DConditionModel,
    states: Tensor,
    empty: Tensor,
    *,
    steps: int = 25,
    guidance: float = 5.0,
    seed: int = 0,
) -> Tensor:
    """Draw latents for ``states`` [n, tokens, width] by DDIM, guided from ``empty`` [1, ...]."""
    schedule = scheduler()
    schedule.set_timesteps(steps)
    generator = torch.Generator().manual_seed(seed)
    channels, side = unet.config.in_channels, unet.config.sample_size
    x = torch.randn((len(states), channels, side, side), generator=generator).to(states.device)
    context = torch.cat([empty.expand_as(states), states])
    for t in schedule.timesteps:
        with loop.half_precision(x.device):
            none, worded = unet(torch.cat([x, x]), t, context).sample.float().chunk(2)
        x = schedule.step(none + guidance * (worded - none), t, x).prev_sample
    return x
