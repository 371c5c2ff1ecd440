"""From a picture to the noise that draws it: DDIM, null-text, negative-prompt and direct inversion.

An inversion depends on picture, source prompt, base and schedule, and on no concept: it is kept
under its key (``EditPlan.inversion_key``) and used by every concept and strength.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from customedit.diffusion.base import Base
from customedit.diffusion.gradients import gradients
from customedit.diffusion.guided import ask_guided, combine
from customedit.diffusion.method import Answer, Denoise, Method, Progress, Request, Turn, ask
from customedit.diffusion.text import TextContext, Weighted
from customedit.editing.guidance import Guidance
from customedit.editing.settings import INVERSIONS
from customedit.errors import InputError
from customedit.files import replacing
from customedit.schemas.methods import InversionKind

INNER_STEPS: Final = 10
"""Most Adam steps on the null-text of one time step (arXiv 2211.09794)."""


@dataclass(frozen=True)
class Inversion:
    """A picture's way into noise.

    trajectory: latents float32 [steps + 1, C, h, w], from the picture (0) to the noise (steps);
    nulls: optimised unconditional states [steps, tokens, width] from the noisiest step down, for
    null-text inversion; kind, prompt, steps: how it was made.
    """

    trajectory: Tensor
    kind: InversionKind
    prompt: str
    steps: int
    nulls: Tensor | None = None

    @property
    def noise(self) -> Tensor:
        """Where editing starts, [1, C, h, w]."""
        return self.trajectory[-1:]

    @property
    def picture(self) -> Tensor:
        """The source's latents, [1, C, h, w]."""
        return self.trajectory[:1]

    def at(self, step: int) -> Tensor:
        """The source's latents after ``step`` downward steps from the noise, [1, C, h, w]."""
        index = self.steps - step
        return self.trajectory[index : index + 1]

    def to(self, device: torch.device) -> Inversion:
        """The same on ``device``."""
        nulls = None if self.nulls is None else self.nulls.to(device)
        return dataclasses.replace(self, trajectory=self.trajectory.to(device), nulls=nulls)

    def save(self, path: Path) -> None:
        """Write it as safetensors, whole or not at all."""
        tensors = {"trajectory": self.trajectory.cpu().contiguous()}
        if self.nulls is not None:
            tensors["nulls"] = self.nulls.cpu().contiguous()
        note = {"kind": self.kind, "prompt": self.prompt, "steps": self.steps}
        with replacing(path) as draft:
            save_file(tensors, draft, {"inversion": json.dumps(note)})

    @classmethod
    def load(cls, path: Path) -> Inversion:
        """Read what ``save`` wrote. Raises InputError for anything else."""
        try:
            with safe_open(path, framework="pt") as file:
                note = json.loads((file.metadata() or {})["inversion"])
                tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118  # no mapping
            if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
                raise ValueError("holds numbers that are not finite")
            return cls(
                tensors["trajectory"],
                note["kind"],
                note["prompt"],
                note["steps"],
                tensors.get("nulls"),
            )
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            raise InputError(
                "inversion",
                f"{path} is not an inversion ({error})",
                "delete it; it will be made again",
            ) from None


def trajectory(base: Base, latents: Tensor, text: TextContext, steps: int) -> Method[Tensor]:
    """DDIM inversion at guidance 1: latents [1, C, h, w] to [steps + 1, C, h, w].

    As in null-text inversion's code, the model is asked at the time that is being reached.
    """
    x = latents.float().to(base.device)
    path = [x]
    schedule = base.schedule.sized(*x.shape[-2:])
    for k, (low, high) in enumerate(schedule.upwards(steps)):
        prediction = yield from ask(Denoise(x, high, [text]))
        x = schedule.step(x, prediction.noise, low, high)
        path.append(x)
        yield Progress("invert", k + 1, steps)
    return torch.cat(path)


def null_text(
    base: Base,
    path: Tensor,
    text: TextContext,
    steps: int,
    guidance: Guidance | float,
    inner: int = INNER_STEPS,
) -> Method[Tensor]:
    """Optimise the unconditional states so that guided sampling goes back along ``path``.

    Null-text inversion (arXiv 2211.09794, algorithm 1): at each step Adam at 1e-2 (1 - i / 2 steps)
    on the states, at most ``inner`` steps, until the loss is under 1e-5 + 2e-5 i; each step starts
    from the last one's result. States, gradients and DDIM arithmetic are float32, whatever the base
    computes in. A step without guidance has nothing to optimise, and the next one makes up for it.
    Returns [steps, tokens, width].
    """
    guidance = Guidance.of(guidance)
    states = base.text("").states.float()
    x = path[-1:]
    optimised: list[Tensor] = []
    schedule = base.schedule.sized(*x.shape[-2:])
    for i, (time, to) in enumerate(schedule.downwards(steps)):
        wanted = path[steps - i - 1 : steps - i]
        worded = (yield from ask(Denoise(x, time, [text]))).noise
        if not guidance.acts(i, steps):
            optimised.append(states)
            x = schedule.step(x, worded, time, to)
            yield Progress("null-text", i + 1, steps)
            continue
        states = states.detach().clone().requires_grad_(True)
        rate = 1e-2 * (1 - i / (2 * steps))
        optimizer = torch.optim.Adam([states], lr=rate)
        for _ in range(inner):
            with torch.enable_grad():
                empty = base.predict(x, time, [base.context(states)]).noise
                noise = combine(torch.cat([empty, worded]), 2, guidance.scale)
                loss = F.mse_loss(schedule.step(x, noise, time, to), wanted)
            (states.grad,) = gradients(loss, [states], base.dtype)
            del empty, noise  # what the gradient needed is not held while others have their turn
            loss = loss.detach()
            optimizer.step()
            yield Turn()
            if loss.item() < 1e-5 + 2e-5 * i:
                break
        states = states.detach()
        optimised.append(states)
        empty = (yield from ask(Denoise(x, time, [base.context(states)]))).noise
        noise = combine(torch.cat([empty, worded]), 2, guidance.scale)
        x = schedule.step(x, noise, time, to)
        yield Progress("null-text", i + 1, steps, {"loss": loss.item()})
    return torch.stack(optimised)


def invert(
    base: Base,
    latents: Tensor,
    prompt: str,
    *,
    kind: InversionKind = "direct",
    steps: int = 50,
    guidance: Guidance | float = 7.5,
) -> Method[Inversion]:
    """Invert the picture whose latents [1, C, h, w] are given.

    guidance: of the sampling that null-texts are optimised for; the other kinds do not read it.
    Raises InputError for an unknown kind, steps out of range and a prompt that is too long,
    NumericalError for latents that are not finite: such an inversion must not be kept.
    """
    if kind not in INVERSIONS:
        raise InputError("inversion", f"is {kind!r}", f"use one of {', '.join(INVERSIONS)}")
    base.family.require(kind, "inversion")
    base.schedule.sized(*latents.shape[-2:]).times(steps)  # refuses steps out of range
    text = base.text(prompt, field="source_prompt")
    path = yield from trajectory(base, latents, text, steps)
    base.check_finite("the inversion's latents", path)
    nulls = None
    if kind == "null-text":
        nulls = yield from null_text(base, path, text, steps, guidance)
        base.check_finite("the inversion's null texts", nulls)
    return Inversion(path, kind, prompt, steps, nulls)


def unconditional(
    base: Base,
    inversion: Inversion,
    step: int,
    empty: TextContext,
    everywhere: Sequence[Weighted] = (),
) -> TextContext:
    """What the unconditional rows read at downward step ``step`` of an inversion on the device.

    everywhere: concepts whose weights read the optimised states of null-text inversion, too;
    ``empty`` has them already. Those of text encoders have nothing to act on there: the states are
    no prompt's.
    """
    if inversion.nulls is not None:
        return base.context(inversion.nulls[step], adapted=everywhere)
    return empty


def empty_text(
    base: Base, inversion: Inversion, everywhere: Sequence[Weighted] = ()
) -> TextContext:
    """The unconditional text: the source prompt for negative-prompt (arXiv 2305.16807).

    everywhere: concepts whose weights read it, too.
    """
    words = inversion.prompt if inversion.kind == "negative-prompt" else ""
    return base.text(words, everywhere, "source_prompt", everywhere=bool(everywhere))


def reconstruct(
    base: Base, inversion: Inversion, guidance: float = 7.5
) -> Generator[Request, Answer, Tensor]:
    """Sample the source again, guided: latents [1, C, h, w]. Direct inversion is its own answer."""
    inversion = inversion.to(base.device)
    if inversion.kind == "direct":
        return inversion.picture
    text = base.text(inversion.prompt, field="source_prompt")
    empty = empty_text(base, inversion)
    x = inversion.noise
    schedule = base.schedule.sized(*x.shape[-2:])
    for k, (time, to) in enumerate(schedule.downwards(inversion.steps)):
        none = unconditional(base, inversion, k, empty)
        predicted = yield from ask_guided(base, x, time, text, none, guidance)
        x = schedule.step(x, predicted, time, to)
        yield Progress("reconstruct", k + 1, inversion.steps)
    return x
