"""Bases that cannot be driven are refused when they are loaded, in one line that says why."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from typer.testing import CliRunner

from customedit.cli import app
from customedit.diffusion.base import Base
from customedit.diffusion.compatibility import check_folder
from customedit.diffusion.ddim import DDIMSchedule
from customedit.diffusion.families.unet_config import check_channels, check_unet
from customedit.editing.editor import Editor
from customedit.errors import InputError

from . import folders

Broken = tuple[str, Callable[[Path], object], str]


def _unet(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: folders.configure(folder / "unet" / "config.json", changes)


def _index(kind: object) -> Callable[[Path], None]:
    return lambda f: folders.configure(f / "model_index.json", {"_class_name": kind})


def _json(file: str, **changes: Any) -> Callable[[Path], None]:
    return lambda folder: folders.configure(folder / file, changes)


def _content(file: str, content: bytes | str) -> Callable[[Path], None]:
    return lambda folder: folders.replace(folder / file, content)


def _gone(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).unlink()


def _cut(file: str) -> Callable[[Path], None]:
    return lambda f: folders.replace(f / file, (f / file).read_bytes()[: -(10**5)])


def _without(file: str, name: str) -> Callable[[Path], None]:
    def change(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        assert name in tensors
        return {k: t for k, t in tensors.items() if k != name}

    return lambda folder: folders.reweigh(folder / file, change)


def _poisoned(file: str, name: str, value: float) -> Callable[[Path], None]:
    return lambda folder: folders.reweigh(folder / file, folders.poisoned(name, value))


KEY = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
EMBEDDING = "embeddings.token_embedding.weight"
SCHEDULER = "scheduler/scheduler_config.json"
VOCABULARY = json.dumps({"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2})

CONFIGURED: list[Broken] = [
    ("sdxl", _index("StableDiffusionXLPipeline"), "addition_embed_type None, not 'text_time'"),
    ("sd3", _index("StableDiffusion3Pipeline"), "has no transformer/config.json"),
    ("flux", _index("FluxPipeline"), "has no transformer/config.json"),
    ("flux 2", _index("Flux2Pipeline"), "is a FLUX.2 model"),
    ("pixart", _index("PixArtAlphaPipeline"), "is a PixArt model"),
    ("sana", _index("SanaPipeline"), "is a Sana model"),
    ("lcm", _index("LatentConsistencyModelPipeline"), r"is a latent consistency \(LCM\) model"),
    ("no class", _index(None), "names no pipeline"),
    ("9 channels", _unet(in_channels=9), "takes 9 channels, its latents have 8"),
    ("other output", _unet(out_channels=16), "gives 16 channels, its latents have 8"),
    ("class labels", _unet(num_class_embeds=10), "needs class labels"),
    ("class embedding", _unet(class_embed_type="timestep"), "needs class labels"),
    ("sdxl unet", _unet(addition_embed_type="text_time"), "needs more than a prompt"),
    ("image prompt", _unet(encoder_hid_dim_type="ip_image_proj"), "needs more than a prompt"),
    ("lcm unet", _unet(time_cond_proj_dim=256), "needs the guidance weight .*LCM"),
    ("gligen", _unet(attention_type="gated"), "gated attention"),
    ("norm", _unet(cross_attention_norm="layer_norm"), "cross_attention_norm"),
    ("dual", _unet(dual_cross_attention=True), "dual_cross_attention"),
    ("cross only", _unet(only_cross_attention=[True, False]), "only_cross_attention"),
    ("blocks", _unet(down_block_types=["KDownBlock2D", "DownBlock2D"]), "KDownBlock2D blocks"),
    ("middle", _unet(mid_block_type="UNetMidBlock2D"), "UNetMidBlock2D blocks"),
    ("unet class", _unet(_class_name="UNet2DModel"), "has a UNet2DModel"),
    ("vae class", _json("vae/config.json", _class_name="VQModel"), "autoencoder 'VQModel'"),
    ("t5", _json("text_encoder/config.json", model_type="t5"), "text encoder 't5'"),
    ("flow", _json(SCHEDULER, _class_name="FlowMatchEulerDiscreteScheduler"), "no DDIM form"),
    ("lcm scheduler", _json(SCHEDULER, _class_name="LCMScheduler"), "distilled for a few steps"),
    ("not json", _content("unet/config.json", "{"), "unet/config.json cannot be read"),
    ("a list", _content("unet/config.json", "[]"), "unet/config.json is not a JSON object"),
    ("bytes", _content("model_index.json", b"\xff\xfe"), "model_index.json cannot be read"),
    ("no unet", _gone("unet/config.json"), "has no unet/config.json"),
    ("no vae", _gone("vae/config.json"), "has no vae/config.json"),
    ("no scheduler", _gone(SCHEDULER), "has no scheduler_config.json"),
]  # fmt: skip

LOADED: list[Broken] = [
    ("no weights", _gone(folders.UNET), "no weights of its unet"),
    ("pickle", lambda f: folders.as_pickle(f / folders.UNET), "unet as a pickle only"),
    ("pickled text", lambda f: folders.as_pickle(f / folders.TEXT), "text_encoder as a pickle"),
    ("lfs", _content(folders.VAE, "version https://git-lfs.github.com/spec/v1\n"), "Git LFS"),
    ("empty", _content(folders.TEXT, ""), "text_encoder/model.safetensors is empty"),
    ("cut unet", _cut(folders.UNET), "its UNet is damaged or incomplete"),
    ("cut text", _cut(folders.TEXT), "its text encoder is damaged or incomplete"),
    ("cut vae", _cut(folders.VAE), "its autoencoder is damaged or incomplete"),
    ("missing in unet", _without(folders.UNET, KEY), "its UNet is damaged or incomplete"),
    ("missing in text", _without(folders.TEXT, EMBEDDING), "its text encoder is damaged"),
    ("text config", _json("text_encoder/config.json", hidden_size="wide"), "its text encoder is"),
    ("text head", _json("text_encoder/config.json", num_attention_heads=7), "its text encoder is"),
    ("unet config", _unet(block_out_channels=[7, 9]), "its UNet is damaged"),
    ("tokenizer", _content("tokenizer/tokenizer.json", "{"), "its tokenizer is damaged"),
    ("no betas", _json(SCHEDULER, beta_schedule="laplace"), "scheduler"),
    ("thresholding", _json(SCHEDULER, thresholding=True), "its scheduler has thresholding"),
    ("betas of another count", _json(SCHEDULER, trained_betas=[0.1, 0.2]), "2 trained_betas"),
    ("flow prediction", _json(SCHEDULER, prediction_type="flow"), "prediction_type 'flow'"),
    ("nan in unet", _poisoned(folders.UNET, KEY, float("nan")), "not finite in its UNet"),
    ("inf in text", _poisoned(folders.TEXT, EMBEDDING, float("inf")), "not finite in its text"),
    ("nan in vae", _poisoned(folders.VAE, "decoder.layers.0.weight", float("nan")), "autoencoder"),
    ("profile", _content("customedit.json", '{"guidance": -1}'), "not a valid profile: guidance"),
    ("length", _json("tokenizer/tokenizer_config.json", model_max_length=77), "tokenizer for 77"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "says"), [b[1:] for b in CONFIGURED], ids=[b[0] for b in CONFIGURED]
)
def test_configurations_are_refused_before_weights_are_read(
    change: Callable[[Path], object], says: str, tmp_path: Path
) -> None:
    folder = folders.copied(tmp_path / "base")
    change(folder)
    for part in (folders.UNET, folders.TEXT, folders.VAE):  # nothing here reads them
        folders.replace(folder / part, b"")
    with pytest.raises(InputError, match=rf"^base: .*{says}") as refused:
        Base.load(folder)
    assert refused.value.remedy and "\n" not in str(refused.value)
    assert "models check" not in refused.value.remedy


@pytest.mark.parametrize(("change", "says"), [b[1:] for b in LOADED], ids=[b[0] for b in LOADED])
def test_the_command_tells_of_damaged_folders_in_one_line(
    change: Callable[[Path], object], says: str, tmp_path: Path
) -> None:
    folder = folders.copied(tmp_path / "base")
    change(folder)
    ran = CliRunner().invoke(app, ["models", "check", str(folder)])
    assert ran.exit_code == 2, ran.output
    lines = [line for line in ran.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in ran.output
    assert says in lines[0]
    assert "models check" not in lines[0]


@pytest.mark.parametrize(
    ("channels", "use"),
    [(9, "inpainting"), (8, "InstructPix2Pix"), (5, "depth-to-image"), (7, "an upscaler")],
)
def test_stable_diffusion_of_other_tasks_is_named(channels: int, use: str) -> None:
    unet = {"in_channels": channels, "out_channels": 4}
    with pytest.raises(
        InputError, match=rf"takes {channels} channels \({use}\), its latents have 4"
    ):
        check_channels(unet, {"latent_channels": 4}, "x")


def test_the_settings_of_stable_diffusion_pass() -> None:
    """As their folders on the hub have them."""
    common = {
        "in_channels": 4, "out_channels": 4, "sample_size": 64, "layers_per_block": 2,
        "block_out_channels": [320, 640, 1280, 1280],
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    }  # fmt: skip
    check_unet({**common, "cross_attention_dim": 768, "attention_head_dim": 8}, "1.4")
    check_unet(
        {
            **common, "cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20],
            "use_linear_projection": True, "upcast_attention": True, "dual_cross_attention": False,
            "only_cross_attention": False, "num_class_embeds": None, "class_embed_type": None,
            "mid_block_type": "UNetMidBlock2DCrossAttn", "resnet_time_scale_shift": "default",
        },
        "2.1",
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["StableDiffusionImg2ImgPipeline", ["pipeline_own", "Own"]])
def test_pipelines_with_the_parts_of_stable_diffusion_pass(kind: object, tmp_path: Path) -> None:
    folder = folders.copied(tmp_path)
    folders.configure(folder / "model_index.json", {"_class_name": kind})
    check_folder(folder, "x")


def test_text_parts_that_do_not_fit(base: Base, tmp_path: Path) -> None:
    folder = folders.copied(tmp_path)
    words = folder / "tokenizer"
    for file in words.glob("tokenizer.json"):
        found = json.loads(file.read_text())
        found["added_tokens"] += [
            {**found["added_tokens"][0], "id": 694 + k, "content": f"<extra{k}>"} for k in range(3)
        ]
        folders.replace(file, json.dumps(found))
    with pytest.raises(InputError, match="tokenizer with 697 tokens, its text encoder knows 694"):
        Base.load(folder)


def test_a_tokenizer_without_a_length_takes_the_text_encoders(base: Base, tmp_path: Path) -> None:
    folder = folders.copied(tmp_path)
    folders.configure(folder / "tokenizer/tokenizer_config.json", {"model_max_length": ...})
    other = Base.load(folder)
    assert other.length == base.length == 40
    prompt = "a photo of a cup"
    assert torch.equal(other.text(prompt).states, base.text(prompt).states)


def test_weights_beyond_a_dtype_are_told_from_damaged_ones(tmp_path: Path) -> None:
    folder = folders.copied(tmp_path)
    folders.reweigh(folder / folders.UNET, folders.poisoned(KEY, 1e6))
    with pytest.raises(InputError, match=r"dtype: .* has 1e\+06 in its UNet .*use bfloat16"):
        Base.load(folder, dtype=torch.float16)
    Base.load(folder)


def test_a_base_with_zero_terminal_snr_draws_as_diffusers_and_edits(
    base: Base, tmp_path: Path
) -> None:
    folder = folders.copied(tmp_path)
    changes = {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True}
    sampler = {"_class_name": "EulerDiscreteScheduler", **changes}  # settings of another sampler
    folders.configure(folder / SCHEDULER, sampler)
    other = Base.load(folder)
    assert other.fingerprint == base.fingerprint and other.schedule.key != base.schedule.key
    config = {**base.pipeline.scheduler.config, **changes}
    assert isinstance(other.schedule, DDIMSchedule)
    theirs = DDIMScheduler.from_config(config, set_alpha_to_one=other.schedule.final == 1)
    theirs.set_timesteps(5)
    start = torch.randn(1, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    texts = [other.text(""), other.text("a photo of a cup")]
    ours = stock = start
    with torch.no_grad():
        for (time, to), t in zip(other.schedule.downwards(5), theirs.timesteps, strict=True):
            empty, worded = other.predict(ours.expand(2, -1, -1, -1), time, texts).noise.chunk(2)
            ours = other.schedule.step(ours, empty + 4 * (worded - empty), time, to)
            empty, worded = other.output(stock.expand(2, -1, -1, -1), int(t), texts)[0].chunk(2)
            stock = theirs.step(empty + 4 * (worded - empty), t, stock).prev_sample
    assert torch.allclose(ours, stock, atol=2e-3), float((ours - stock).abs().max())
    session = Editor(other).open(other.decode(ours)[0], "a photo of a cup")
    for changed in (
        {"inversion": "direct"}, {"inversion": "null-text"}, {"method": "sdedit", "strength": 1.0}
    ):  # fmt: skip
        result = session.edit("a photo of a red cup", steps=2, **changed)
        assert result.drawing.latents.isfinite().all()


def test_the_bundled_base_passes_the_command() -> None:
    ran = CliRunner().invoke(app, ["models", "check", "--json"])
    assert ran.exit_code == 0, ran.output
    told = json.loads(ran.stdout)
    assert told["latents"] == "8 x 16 x 16" and told["picture"] == "128 x 128"
    assert told["architecture"] == "customedit mini" and told["step"] == "finite"
