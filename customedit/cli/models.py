"""``customedit models``: which bases are known, download one, check one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from customedit.cli import console, outputs
from customedit.errors import InputError

if TYPE_CHECKING:  # seconds to import
    from customedit.diffusion.base import Base

app = typer.Typer(help="Bases: list, fetch, check.", no_args_is_help=True)


@app.command("list")
def list_command(as_json: console.JsonOption = False) -> None:
    """List bases of every family that edits can be made with."""
    from customedit.diffusion.folder import KNOWN

    lines = [f"{name:<46} {about}" for name, about in KNOWN.items()]
    console.say({"models": dict(KNOWN)}, lines, as_json)


@app.command("fetch")
def fetch_command(
    name: Annotated[str, typer.Argument(help="A hub name.")],
    to: Annotated[
        Path | None,
        typer.Option(help="A folder instead of the hub's cache, to copy to other machines."),
    ] = None,
    as_json: console.JsonOption = False,
) -> None:
    """Download the files of a base that loading reads, from the hub onto this machine."""
    if to is not None:
        outputs.check_folder(to, force=True, field="to")  # a download goes on where it stopped
    from customedit.diffusion.folder import fetch

    with _download_bars(as_json):
        path = fetch(name, to=to)
    console.say({"model": name, "path": str(path)}, [f"{name} is in {path}"], as_json)


@app.command("check")
def check_command(
    name: Annotated[str, typer.Argument(help="A folder, a hub name, or mini.")] = "mini",
    device: console.DeviceOption = "cpu",
    dtype: console.DtypeOption = "float32",
    as_json: console.JsonOption = False,
) -> None:
    """Load a base, run one step and the autoencoder, and report what it is."""
    base = console.load_base(name, device, dtype)
    ran = check_forward(base)
    about = {
        "name": base.name,
        "architecture": base.profile.architecture or "other",
        "fingerprint": base.fingerprint,
        "concept_fingerprint": base.concept_fingerprint,
        **base.schedule.about,
        "guidance": base.guidance,
        "side": base.side,
        "multiple": base.multiple,
        "tokens": base.length,
        "width": base.width,
        "cross_attention_layers": len(base.layers),
        "parameters": sum(p.numel() for p in base.denoiser.parameters()),
        **ran,
    }
    console.say(about, [f"{k:<23} {v}" for k, v in about.items()], as_json)


@contextmanager
def _download_bars(quiet: bool) -> Iterator[None]:
    """Progress bars of the hub's client on standard error, none if ``quiet``."""
    from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

    if quiet:
        disable_progress_bars()
    try:
        yield
    finally:
        if quiet:
            enable_progress_bars()


def check_forward(base: Base) -> dict[str, Any]:
    """Run one step of the denoiser and the autoencoder both ways; the sizes of their outputs.

    Raises InputError if the base does not run, NumericalError for numbers that are not finite.
    """
    import torch
    from PIL import Image

    from customedit.errors import NumericalError

    problem = f"{base.name} loads, but one step fails"
    try:
        with torch.no_grad():
            grey = Image.new("RGB", (base.side, base.side), "gray")
            latents = base.encode(grey)
            noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
            time = base.schedule.time_at(0.5)
            noisy = base.schedule.add_noise(latents, noise.to(latents.device), time)
            predicted = base.predict(noisy, time, [base.text("a photo of a cup")]).noise
            if not bool(predicted.isfinite().all()):
                raise NumericalError(f"{base.name} predicts numbers that are not finite")
            (decoded,) = base.decode(latents)
    except (InputError, NumericalError):
        raise
    except Exception as error:  # whatever a strange model raises
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError("base", f"{problem} ({reason})", "use another base") from None
    return {
        "latents": " x ".join(map(str, latents.shape[1:])),
        "picture": " x ".join(map(str, decoded.size)),
        "step": "finite",
    }
