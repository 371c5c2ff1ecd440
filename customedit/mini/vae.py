"""Stage ``vae``: the autoencoder, trained on crops that favour the thing over the background."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import AutoencoderTiny
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from customedit.mini import loop
from customedit.mini.data import Shards
from customedit.mini.loop import Average, Loss, Run, Step
from customedit.mini.sizes import SMALL

CHANNELS = 16
"""Latent channels."""

NOISE = 0.08
"""Standard deviation of noise put on unit-variance latents, so that near latents decode alike."""

SMALLER = 0.25
"""Share of the steps in which latents of half the size must decode to pictures of half the size."""


def build(
    width: int = SMALL.vae_width, blocks: tuple[int, int, int, int] = SMALL.vae_blocks
) -> AutoencoderTiny:
    """An autoencoder of random weights: 3 x 8h x 8w images in [-1, 1] to CHANNELS x h x w.

    width, blocks: see :class:`customedit.mini.sizes.Size`.
    AutoencoderTiny without blocks at full size: on a CPU nearly all the time of an AutoencoderKL
    goes to normalising full-size maps.
    """
    return AutoencoderTiny(
        encoder_block_out_channels=(width,) * 4,
        decoder_block_out_channels=(width,) * 4,
        num_encoder_blocks=blocks,
        num_decoder_blocks=blocks[::-1],
        latent_channels=CHANNELS,
        scaling_factor=1.0,
    )


def to_tensor(images: NDArray[np.uint8]) -> Tensor:
    """uint8 [n, h, w, 3] -> float [n, 3, h, w] in [-1, 1], channels last in memory."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def crops(shards: Shards, step: Step, count: int) -> NDArray[np.uint8]:
    """``count`` random pieces of half a picture's side, three in four of them around the thing.

    The network is convolutional: pieces teach whole pictures. Half are flipped, a quarter have
    their colour channels exchanged: more colours than the scenes have, for pictures from elsewhere.
    """
    rng, side = step.numpy, shards.side
    crop = side // 2
    out = np.empty((count, crop, crop, 3), np.uint8)
    for k, index in enumerate(rng.integers(len(shards), size=count)):
        top, left = rng.integers(0, side - crop + 1, 2)
        if rng.random() < 0.75:
            scene = shards.scenes[index]
            centre = np.array([scene.foot - 0.45 * scene.scale, scene.x]) * side
            corner = (centre + side * rng.uniform(-0.16, 0.16, 2) - crop / 2).astype(int)
            top, left = np.clip(corner, 0, side - crop)
        piece = shards.image(int(index))[top : top + crop, left : left + crop]
        piece = piece[:, ::-1] if rng.random() < 0.5 else piece
        out[k] = piece[..., rng.permutation(3)] if rng.random() < 0.25 else piece
    return out


def _batch(shards: Shards, step: Step, run: Run) -> Tensor:
    """The step's crops on the run's device, [batch, 3, side / 2, side / 2]."""
    x = to_tensor(crops(shards, step, run.batch)).to(run.device)
    return x.contiguous(memory_format=torch.channels_last)


def _distance(got: Tensor, wanted: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Squared error, which PSNR counts, with a little absolute error for edges; and the PSNR."""
    mse = F.mse_loss(got, wanted)
    return mse + 0.05 * F.l1_loss(got, wanted), {"psnr": -10 * float(np.log10(mse.item() / 4))}


def train(run: Run, vae: AutoencoderTiny) -> Average:
    """Train ``vae`` on crops of the run's scenes.

    The latents are drawn to mean 0 and variance 1 per channel, so that they need little scaling. In
    a share of the steps latents of half the size are decoded, too, and compared with the picture of
    half the size (EQ-VAE, arXiv 2502.09509): latents that scale as pictures do are smooth, and a
    small UNet learns them sooner.
    """
    shards = Shards(run.folder / "scenes", run.shards)
    vae = vae.to(memory_format=torch.channels_last)

    def loss(step: Step) -> Loss:
        x = _batch(shards, step, run)
        with run.half():
            z = vae.encode(x).latents.float()
            mean, var = z.mean((0, 2, 3)), z.var((0, 2, 3))
            z = z + NOISE * torch.randn(z.shape, generator=step.torch).to(run.device)
            y = vae.decode(z).sample.float()
        value, parts = _distance(y, x)
        if step.numpy.random() < SMALLER:
            with run.half():
                small = vae.decode(F.avg_pool2d(z, 2)).sample.float()
            value = value + SMALLER * F.mse_loss(small, F.avg_pool2d(x, 2))
        return value + 0.01 * (mean**2 + (var - 1) ** 2).mean(), parts

    return loop.train("vae", vae, loss, run)


def train_decoder(run: Run, vae: AutoencoderTiny) -> Average:
    """Train the decoder of ``vae`` on, the encoder and so all kept latents staying as they are.

    With half the noise on the latents: less to smooth over, so a sharper picture.
    """
    shards = Shards(run.folder / "scenes", run.shards)
    vae = vae.to(memory_format=torch.channels_last)
    vae.encoder.requires_grad_(False)

    def loss(step: Step) -> Loss:
        x = _batch(shards, step, run)
        with run.half():
            with torch.no_grad():
                z = vae.encode(x).latents.float()
            z = z + NOISE / 2 * torch.randn(z.shape, generator=step.torch).to(run.device)
            y = vae.decode(z).sample.float()
        return _distance(y, x)

    return loop.train("decoder", vae, loss, run)
