"""How near inversions come back: ``python -m customedit.experiments.reconstruction``.

Sources are inverted and drawn again with guidance and nothing changed; compared is with what the
autoencoder alone gives back, so that its blur does not count.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image
from rich.console import Console

from customedit.diffusion.base import Base
from customedit.diffusion.engine import run
from customedit.editing.inversion import invert, reconstruct
from customedit.editing.settings import INVERSIONS
from customedit.metrics.similarity import psnr
from customedit.mini import samples
from customedit.schemas.methods import InversionKind


def measure_kind(
    base: Base, kind: InversionKind, sources: list[samples.Source], steps: int, guidance: float
) -> dict[str, Any]:
    """PSNR (dB) of each source's way there and back, and the seconds it took."""
    values, seconds = [], []
    for source in sources:
        latents = base.encode(Image.open(source.image).convert("RGB"))
        start = time.perf_counter()
        made = run(
            base, invert(base, latents, source.prompt, kind=kind, steps=steps, guidance=guidance)
        )
        back = run(base, reconstruct(base, made, guidance))
        seconds.append(time.perf_counter() - start)
        values.append(min(psnr(base.decode(back)[0], base.decode(latents)[0]), 99.0))
    return {
        "psnr_mean": round(statistics.fmean(values), 2),
        "psnr_least": round(min(values), 2),
        "seconds_mean": round(statistics.fmean(seconds), 2),
    }


def main(
    count: Annotated[int, typer.Option(min=1, max=24, help="Sources, evenly taken.")] = 8,
    steps: Annotated[int, typer.Option(min=1, help="DDIM steps.")] = 50,
    guidance: Annotated[
        float | None, typer.Option(min=0, help="When drawing again; the base's own if left out.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the figures here, too.")] = None,
) -> None:
    """Measure every kind of inversion on the sample sources (equal pictures count 99 dB)."""
    base, console = Base.load(), Console()
    guidance = base.guidance if guidance is None else guidance
    sources = list(samples.sources())[:: max(1, 24 // count)][:count]
    told: dict[str, Any] = {"sources": len(sources), "steps": steps, "guidance": guidance}
    for kind in INVERSIONS:
        told[kind] = measure_kind(base, kind, sources, steps, guidance)
        console.print(kind, told[kind])
    if out is not None:
        out.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
