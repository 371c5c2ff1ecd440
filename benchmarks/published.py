"""What peers do, on diffusers alone: the published recipes, written again plainly for comparison.

``PublishedEditor``: Prompt-to-Prompt with refinement and a local blend (arXiv 2208.01626) after
direct inversion (arXiv 2310.01506), as their authors' code goes about it: a concept's weights are
loaded into the UNet, an inversion is followed by a pass of both prompts that measures how far each
step leaves the stored trajectory, source and target are drawn with two rows each, and every
attention layer computes its probabilities one by one, which a controller reads and changes. Less
is spent than there: the first two passes have fused attention, and no reconstruction is drawn.

``PublishedTraining``: the loop of diffusers' training script for Custom Diffusion: references are
encoded at each step, the text encoder runs with gradients, and whole key and value weights are
trained, in the attention processors of that script. Less is spent than there: pictures are read and
cropped once.

Both take the parts of a ``Base`` in copies, so that all compared run the same networks.
"""

from __future__ import annotations

import copy
from collections.abc import Generator, Mapping
from typing import Any, Final

import torch
from diffusers import DDIMScheduler
from diffusers.models.attention_processor import AttnProcessor2_0, CustomDiffusionAttnProcessor2_0
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from customedit import pixels
from customedit.diffusion.base import Base
from customedit.editing.prompt_to_prompt import refine

CROSS_SHARE: Final = 0.8
SELF_SHARE: Final = 0.4
SELF_POSITIONS: Final = 16 * 16
THRESHOLD: Final = 0.3


def plain_unet(base: Base) -> Any:
    """A copy of the base's UNet with diffusers' own attention."""
    unet = copy.deepcopy(base.denoiser)
    unet.set_attn_processor(AttnProcessor2_0())
    return unet


def trained_processors(unet: Any) -> list[torch.nn.Parameter]:
    """Give ``unet`` the processors that the script trains; gives what is trained.

    Keys and values of cross-attention are in the processor, and the start token's are not trained
    through.
    """
    processors = {}
    for name in unet.attn_processors:
        layer = unet.get_submodule(name.removesuffix(".processor"))
        cross, key, value = ".attn2." in name, layer.to_k, layer.to_v
        processor = CustomDiffusionAttnProcessor2_0(
            train_kv=cross, train_q_out=False, hidden_size=key.out_features,
            cross_attention_dim=key.in_features if cross else None,
        )  # fmt: skip
        if cross:
            processor.to_k_custom_diffusion.load_state_dict(key.state_dict())
            processor.to_v_custom_diffusion.load_state_dict(value.state_dict())
        processors[name] = processor.to(key.weight.device)
    unet.set_attn_processor(processors)
    return [p for processor in processors.values() for p in processor.parameters()]


class Controller:
    """Changes attention probabilities of the conditional half: rows source, target."""

    def __init__(self, mapper: Tensor, taken: Tensor, steps: int, positions: int) -> None:
        self.mapper, self.taken, self.steps, self.positions = mapper, taken, steps, positions
        self.step = 0
        self.maps: list[Tensor] = []

    def __call__(self, probabilities: Tensor, cross: bool) -> Tensor:
        """probabilities: [4 rows x heads, positions, tokens or positions]."""
        unconditional, conditional = probabilities.chunk(2)
        source, target = conditional.chunk(2)
        if cross:
            if probabilities.shape[1] == self.positions:
                self.maps.append(torch.stack([source.mean(0), target.mean(0)]))
            if self.step < CROSS_SHARE * self.steps:
                moved = source @ self.mapper
                target = moved * self.taken + target * (1 - self.taken)
        elif self.step < SELF_SHARE * self.steps and probabilities.shape[1] <= SELF_POSITIONS:
            target = source
        return torch.cat([unconditional, source, target])


class ControlledAttention:
    """An attention processor that shows its probabilities to a controller."""

    def __init__(self, controller: Controller, cross: bool) -> None:
        self.controller, self.cross = controller, cross

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        """As diffusers calls a processor."""
        text = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))
        key = attn.head_to_batch_dim(attn.to_k(text))
        value = attn.head_to_batch_dim(attn.to_v(text))
        probabilities = self.controller(attn.get_attention_scores(query, key), self.cross)
        mixed = attn.batch_to_head_dim(torch.bmm(probabilities, value))
        return attn.to_out[1](attn.to_out[0](mixed))


class PublishedEditor:
    """Edits one by one; a concept's weights are in the UNet while its edit runs."""

    def __init__(self, base: Base) -> None:
        self.base, self.unet = base, plain_unet(base)
        self.scheduler = DDIMScheduler.from_config(base.pipeline.scheduler.config)
        self._names = {n for n, _ in self.unet.named_parameters()}

    def swap(self, weights: Mapping[str, Tensor]) -> None:
        """Load ``weights`` (``{layer}.to_k.weight`` and the like) into the UNet."""
        self.unet.load_state_dict(dict(weights), strict=False)

    def edit(self, *arguments: Any) -> Image.Image:
        """One edit; arguments: those of ``steps``."""
        steps = self.steps(*arguments)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                result: Image.Image = end.value
                return result

    @torch.no_grad()
    def steps(
        self,
        picture: Image.Image,
        source: str,
        target: str,
        word: int,
        weights: Mapping[str, Tensor],
        steps: int,
        guidance: float,
        offsets: bool = True,
    ) -> Generator[str, None, Image.Image]:
        """One edit, which stops after each call of the UNet and says of which pass it was.

        word: the column of the source's word that the blend keeps to.

        offsets: measure by a pass of four rows a step how far the source leaves its trajectory, as
        the authors' code does; else the source is put on it, which comes to the same picture.
        """
        base, scheduler = self.base, self.scheduler
        self.swap(weights)
        scheduler.set_timesteps(steps)
        trajectory = yield from self._invert(base.encode(picture), source, steps)
        contexts = [base.text(p) for p in ("", "", source, target)]
        states = torch.stack([c.states for c in contexts]).to(base.dtype)
        height, width = trajectory[0].shape[-2:]
        added = _conditions(base, contexts, height, width)
        grid = base.grid(height, width)
        ids, other = (list(base.tokens(p).ids) for p in (source, target))
        found = refine(ids, other, base.length)
        mapper, taken = (t.to(base.device, base.dtype) for t in found)
        away: list[Tensor] | None = None
        if offsets:
            away = yield from self._offsets(trajectory, states, added, steps, guidance)
        controller = Controller(mapper, taken, steps, grid[0] * grid[1])
        self.unet.set_attn_processor(
            {n: ControlledAttention(controller, "attn2" in n) for n in self.unet.attn_processors}
        )
        latents = trajectory[-1].expand(2, -1, -1, -1)
        for step, time in enumerate(scheduler.timesteps):
            controller.step = step
            both = torch.cat([latents] * 2).to(base.dtype)
            empty, full = self.unet(both, time, states, **added).sample.float().chunk(2)
            noise = empty + guidance * (full - empty)
            latents = scheduler.step(noise, time, latents).prev_sample
            if away is None:
                latents[:1] = trajectory[steps - 1 - step]
            else:
                latents[:1] += away[step]
            latents = self._blend(latents, controller, grid, word)
            yield "draw"
        self.unet.set_attn_processor(AttnProcessor2_0())
        return base.decode(latents[1:])[0]

    def _invert(
        self, latents: Tensor, source: str, steps: int
    ) -> Generator[str, None, list[Tensor]]:
        """The picture's latents at each time, from the picture up to the noise."""
        context = self.base.text(source)
        states = context.states[None].to(self.base.dtype)
        added = _conditions(self.base, [context], *latents.shape[-2:])
        alphas = self.scheduler.alphas_cumprod
        path, before = [latents], float(self.scheduler.final_alpha_cumprod)
        for time in reversed(self.scheduler.timesteps):
            after = float(alphas[time])
            noise = self.unet(latents.to(self.base.dtype), time, states, **added).sample.float()
            clean = (latents - (1 - before) ** 0.5 * noise) / before**0.5
            latents = after**0.5 * clean + (1 - after) ** 0.5 * noise
            path.append(latents)
            before = after
            yield "invert"
        return path

    def _offsets(
        self, trajectory: list[Tensor], states: Tensor, added: Any, steps: int, guidance: float
    ) -> Generator[str, None, list[Tensor]]:
        """Of each step, what is missing from the source's latents to the stored ones."""
        found, dtype = [], self.base.dtype
        latents = trajectory[-1].expand(2, -1, -1, -1)
        for step, time in enumerate(self.scheduler.timesteps):
            both = torch.cat([latents] * 2).to(dtype)
            empty, full = self.unet(both, time, states, **added).sample.float().chunk(2)
            drawn = self.scheduler.step(empty + guidance * (full - empty), time, latents)
            wanted = trajectory[steps - 1 - step].expand(2, -1, -1, -1)
            found.append(wanted[:1] - drawn.prev_sample[:1])
            latents = wanted
            yield "offsets"
        return found

    def _blend(
        self, latents: Tensor, controller: Controller, grid: tuple[int, int], word: int
    ) -> Tensor:
        """Outside the word's map, pooled and thresholded, the source's latents."""
        mean = torch.stack(controller.maps).mean(0)[:, :, word].float()
        pooled = F.max_pool2d(mean.view(2, 1, *grid), 3, 1, 1)
        large = F.interpolate(pooled, latents.shape[-2:])
        large = large / large.amax((2, 3), keepdim=True)
        mask = (large > THRESHOLD).any(0, keepdim=True)
        return torch.where(mask, latents, latents[:1])


def _conditions(base: Base, contexts: Any, height: int, width: int) -> dict[str, Any]:
    """What a UNet like SDXL's is told beside the text."""
    conditions: Any = base.family.conditions(contexts, height, width, base.device)  # type: ignore[attr-defined]  # of UNets
    return dict(conditions)


class PublishedTraining:
    """The loop of diffusers' ``train_custom_diffusion.py``, a step at each call.

    references, class_images: pictures; each step takes one of each, as its defaults do.
    """

    def __init__(
        self,
        base: Base,
        references: list[Image.Image],
        class_images: list[Image.Image],
        prompts: tuple[str, str],
        rate: float = 1e-5,
    ) -> None:
        self.base, self.prompts = base, prompts
        self.unet = plain_unet(base).float().requires_grad_(False)
        self.vae = base.pipeline.vae
        self.text = copy.deepcopy(base.pipeline.text_encoder).float().requires_grad_(False)
        self.scheduler = base.pipeline.scheduler
        self.trained = trained = trained_processors(self.unet)
        self.table = self.text.get_input_embeddings().weight.requires_grad_(True)
        self.optimizer = torch.optim.AdamW([*trained, self.table], rate, weight_decay=1e-2)
        size = base.size(base.side, base.side)
        tensors = [
            torch.cat([pixels.to_tensor(p, size) for p in found])
            for found in (references, class_images)
        ]
        self.pictures = [t.to(base.device) for t in tensors]
        self.number = 0

    def step(self) -> float:
        """One optimization step; its loss."""
        base, config = self.base, self.vae.config
        number, self.number = self.number, self.number + 1
        batch = torch.cat([p[number % len(p)][None] for p in self.pictures])
        with torch.no_grad():
            encoded = self.vae.encode(batch.to(self.vae.dtype))
            tiny = not hasattr(encoded, "latent_dist")  # AutoencoderTiny draws nothing
            drawn = encoded.latents if tiny else encoded.latent_dist.sample()
            latents = (drawn * config.scaling_factor).float()
        noise = torch.randn_like(latents)
        times = torch.randint(0, self.scheduler.config.num_train_timesteps, (len(batch),))
        times = times.to(base.device)
        noisy = self.scheduler.add_noise(latents, noise, times)
        ids = torch.tensor([list(base.tokens(p).ids) for p in self.prompts], device=base.device)
        states = self.text(ids)[0]
        output = self.unet(noisy, times, states).sample
        target = noise
        if self.scheduler.config.prediction_type == "v_prediction":
            target = self.scheduler.get_velocity(latents, noise, times)
        instance, prior = output.chunk(2)
        own, kept = target.chunk(2)
        mask = torch.ones_like(instance[:, :1])
        loss = (
            (F.mse_loss(instance, own, reduction="none") * mask).sum((1, 2, 3)) / mask.sum()
        ).mean()
        loss = loss + F.mse_loss(prior, kept)
        loss.backward()
        grads = self.table.grad
        grads[: len(grads) - 1] = 0  # only the new token's row learns
        torch.nn.utils.clip_grad_norm_([*self.trained, self.table], 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss.detach())
