"""Checkpoints in one file against the folder that they hold; the layout is checked by diffusers."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.loaders.single_file_utils import (
    convert_flux_transformer_checkpoint_to_diffusers,
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
    convert_sd3_transformer_checkpoint_to_diffusers,
)
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextModel

from customedit.diffusion.base import Base
from customedit.diffusion.families.known import STABLE_DIFFUSION, STABLE_DIFFUSION_XL
from customedit.diffusion.families.original_names import Stacked, flux_names, sd3_names
from customedit.diffusion.families.unet_names import unet_names
from customedit.diffusion.single_files.load import _configurations
from customedit.diffusion.single_files.names import vae_names
from customedit.diffusion.single_files.transformers import sd3_config, transformer_states
from customedit.diffusion.single_files.vocabulary import clip_tokenizer
from customedit.errors import InputError

from . import flow_folders, xl_folders

ONE, TWO = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."
SD_TEXT = "cond_stage_model.transformer."
UNET = "model.diffusion_model."

NORMS = {  # of queries and keys: as diffusers calls them, and as they were published
    "joint_blocks": {
        "attn.norm_q": "x_block.attn.ln_q.weight", "attn.norm_k": "x_block.attn.ln_k.weight",
        "attn2.norm_q": "x_block.attn2.ln_q.weight", "attn2.norm_k": "x_block.attn2.ln_k.weight",
        "attn.norm_added_q": "context_block.attn.ln_q.weight",
        "attn.norm_added_k": "context_block.attn.ln_k.weight",
    },
    "double_blocks": {
        "attn.norm_q": "img_attn.norm.query_norm.scale",
        "attn.norm_k": "img_attn.norm.key_norm.scale",
        "attn.norm_added_q": "txt_attn.norm.query_norm.scale",
        "attn.norm_added_k": "txt_attn.norm.key_norm.scale",
    },
    "single_blocks": {
        "attn.norm_q": "norm.query_norm.scale", "attn.norm_k": "norm.key_norm.scale",
    },
}  # fmt: skip


def small_sd() -> StableDiffusionPipeline:
    """Stable Diffusion 1.x's form."""
    torch.manual_seed(3)
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=2,
        attention_head_dim=2,
        cross_attention_dim=xl_folders.ONE,
        norm_num_groups=8,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
        clip_sample=False, set_alpha_to_one=False,
    )  # fmt: skip
    return StableDiffusionPipeline(
        vae=xl_folders.vae().eval(),
        text_encoder=CLIPTextModel(xl_folders.text_config(xl_folders.ONE)).eval(),
        tokenizer=xl_folders.tokenizer(),
        unet=unet.eval(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def renamed(model: nn.Module, names: Mapping[str, str], prefix: str) -> dict[str, Tensor]:
    state = model.state_dict()
    return {
        f"{prefix}{original}.{kind}": state[f"{path}.{kind}"]
        for original, path in names.items()
        for kind in ("weight", "bias")
        if f"{path}.{kind}" in state
    }


def clip(model: nn.Module, prefix: str) -> dict[str, Tensor]:
    plain = {n.removeprefix("text_model."): t for n, t in model.state_dict().items()}
    return {f"{prefix}text_model.{n}": t for n, t in plain.items()}


def open_clip(model: nn.Module, prefix: str) -> dict[str, Tensor]:
    """The second text encoder as OpenCLIP has it."""
    s = {n.removeprefix("text_model."): t for n, t in model.state_dict().items()}
    out = {
        "positional_embedding": s["embeddings.position_embedding.weight"],
        "token_embedding.weight": s["embeddings.token_embedding.weight"],
        "text_projection": s["text_projection.weight"].T.contiguous(),
        "logit_scale": torch.tensor(4.6),
    }
    for kind in ("weight", "bias"):
        out[f"ln_final.{kind}"] = s[f"final_layer_norm.{kind}"]
        for k in range(3):
            ours, theirs = f"encoder.layers.{k}", f"transformer.resblocks.{k}"
            parts = [s[f"{ours}.self_attn.{p}_proj.{kind}"] for p in "qkv"]
            out[f"{theirs}.attn.in_proj_{kind}"] = torch.cat(parts)
            for a, b in (
                ("self_attn.out_proj", "attn.out_proj"), ("layer_norm1", "ln_1"),
                ("layer_norm2", "ln_2"), ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"),
            ):  # fmt: skip
                out[f"{theirs}.{b}.{kind}"] = s[f"{ours}.{a}.{kind}"]
    return {prefix + name: tensor for name, tensor in out.items()}


def original(pipe: Any) -> dict[str, Tensor]:
    """The pipeline's weights under their original names."""
    unet, vae = pipe.unet, pipe.vae
    states = renamed(unet, unet_names(unet, unet.config), "model.diffusion_model.")
    for name, tensor in renamed(vae, vae_names(vae), "first_stage_model.").items():
        cells = "attn_1" in name and name.endswith("weight") and tensor.ndim == 2
        states[name] = tensor[:, :, None, None] if cells else tensor
    if hasattr(pipe, "text_encoder_2"):
        states |= clip(pipe.text_encoder, ONE) | open_clip(pipe.text_encoder_2, TWO)
    else:
        states |= clip(pipe.text_encoder, SD_TEXT)
    return {name: tensor.clone().contiguous() for name, tensor in states.items()}


def stacked(
    state: Mapping[str, Tensor], names: Mapping[str, Stacked], joint: bool
) -> dict[str, Tensor]:
    """A transformer's ``state`` under original names. joint: whether it has joint blocks."""
    found: dict[str, Tensor] = {}
    for name, layers in names.items():
        for kind in ("weight", "bias"):
            parts = [state[p] for n in layers.layers if (p := f"{n}.{kind}") in state]
            if parts and not name.endswith("linear1.qkv"):  # a part of linear1
                whole = torch.cat(parts)
                found[f"{name}.{kind}"] = (
                    torch.cat(whole.chunk(2)[::-1]) if layers.swapped else whole
                )
    for path, value in state.items():
        if ".norm_" in path and path.endswith(".weight") and "blocks." in path:
            blocks, number, inner = path.removesuffix(".weight").split(".", 2)
            single = blocks.startswith("single")
            kind = "single_blocks" if single else "joint_blocks" if joint else "double_blocks"
            found[f"{kind}.{number}.{NORMS[kind][inner]}"] = value
        elif path == "pos_embed.pos_embed":
            found["pos_embed"] = value
    return found


def original_flow(pipe: Any) -> dict[str, Tensor]:
    """Of Stable Diffusion 3 or FLUX.1, with text encoders, as ComfyUI and Stability write them."""
    transformer, joint = pipe.transformer, hasattr(pipe, "text_encoder_3")
    names = (sd3_names if joint else flux_names)(transformer.config)
    layers = stacked(transformer.state_dict(), names, joint)
    states = {UNET + name: tensor for name, tensor in layers.items()}
    for name, tensor in renamed(pipe.vae, vae_names(pipe.vae), "first_stage_model.").items():
        cells = "attn_1" in name and name.endswith("weight") and tensor.ndim == 2
        states[name] = tensor[:, :, None, None] if cells else tensor
    encoders = {"clip_l": pipe.text_encoder}
    if joint:
        encoders["clip_g"] = pipe.text_encoder_2
        pipe.text_encoder.text_projection.weight.data.copy_(torch.eye(16))  # not in such files
    for part, encoder in encoders.items():
        own = clip(encoder, f"text_encoders.{part}.transformer.")
        projection = own.pop(
            f"text_encoders.{part}.transformer.text_model.text_projection.weight", None
        )
        states |= own
        if part == "clip_g" and projection is not None:
            states[f"text_encoders.{part}.transformer.text_projection.weight"] = projection
    t5 = pipe.text_encoder_3 if joint else pipe.text_encoder_2
    if t5 is not None:
        own = {n: t for n, t in t5.state_dict().items() if not n.endswith("embed_tokens.weight")}
        states |= {f"text_encoders.t5xxl.transformer.{n}": t for n, t in own.items()}
    return {name: tensor.detach().clone().contiguous() for name, tensor in states.items()}


def written(pipe: Any, folder: Path, suffix: str = ".safetensors") -> tuple[Path, Path]:
    """(a checkpoint with its configurations beside it, the folder that diffusers saves)."""
    pipe.save_pretrained(folder / "saved")
    ignored = shutil.ignore_patterns("*.safetensors")
    shutil.copytree(folder / "saved", folder / "model", ignore=ignored)
    path = folder / f"model{suffix}"
    if suffix == ".ckpt":
        torch.save({"state_dict": original(pipe), "global_step": 7}, path)
    else:
        save_file(original(pipe) if hasattr(pipe, "unet") else original_flow(pipe), path)
    return path, folder / "saved"


FLOWS: dict[str, tuple[Any, dict[str, Any], Any, Any]] = {
    # class, its settings at the widths that were published (few blocks), names, diffusers' own
    "sd3": (
        SD3Transformer2DModel,
        {"num_layers": 3, "num_attention_heads": 24, "attention_head_dim": 64,
         "caption_projection_dim": 1536, "joint_attention_dim": 4096, "qk_norm": "rms_norm",
         "pooled_projection_dim": 2048, "pos_embed_max_size": 384, "sample_size": 128,
         "patch_size": 2, "in_channels": 16, "out_channels": 16, "dual_attention_layers": [0, 1]},
        sd3_names,
        convert_sd3_transformer_checkpoint_to_diffusers,
    ),
    "flux": (
        FluxTransformer2DModel,
        {"num_layers": 2, "num_single_layers": 2, "guidance_embeds": True},
        flux_names,
        convert_flux_transformer_checkpoint_to_diffusers,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FLOWS)
def test_the_transformers_layout_is_the_one_that_diffusers_converts(kind: str) -> None:
    """By the rows, at the published widths: of each matrix one column."""
    made, settings, names_of, convert = FLOWS[kind]
    with torch.device("meta"):
        model = made(**settings)
    names = names_of(model.config)
    g = torch.Generator().manual_seed(0)
    state = {
        path: torch.randn(len(value), *([1] if value.ndim > 1 else []), generator=g)
        for path, value in model.state_dict().items()
    }
    if kind == "sd3":  # kept as it is, but for its name
        state["pos_embed.pos_embed"] = torch.zeros(1, 384**2, 1)
    states = stacked(state, names, joint=kind == "sd3")
    found, wanted = transformer_states(states, names, model), convert(dict(states))
    assert found.keys() == wanted.keys() == state.keys()
    assert all(found[n].equal(value) for n, value in wanted.items())


def test_the_configuration_is_told_by_the_shapes() -> None:
    made, settings, names_of, _ = FLOWS["sd3"]
    with torch.device("meta"):
        model = made(**settings)
    states = stacked(model.state_dict(), names_of(model.config), joint=True)
    found = sd3_config(states)
    assert {k: found[k] for k in settings} == settings


@pytest.mark.parametrize("kind", ["sd3", "sd3 without T5", "flux"])
def test_a_flow_model_gives_what_its_folder_gives(kind: str, tmp_path: Path) -> None:
    pipe = flow_folders.flux() if kind == "flux" else flow_folders.sd3(t5=kind == "sd3")
    original_flow(pipe)  # puts into the pipeline what such files leave out
    path, folder = written(pipe, tmp_path)
    (tmp_path / "model" / "customedit.json").write_text(
        flow_folders.profile(pipe).model_dump_json(by_alias=True)
    )
    ours, theirs = Base.load(path, local=True), Base.load(folder)
    assert ours.fingerprint == theirs.fingerprint
    assert ours.concept_fingerprint == theirs.concept_fingerprint
    x = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = ours.predict(x, 501.0, [ours.text("a photo of a red cup")]).noise
        wanted = theirs.predict(x, 501.0, [theirs.text("a photo of a red cup")]).noise
    # loading a folder maps its files, whose tensors begin at any byte: other sums, equal weights
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)
    shutil.rmtree(tmp_path / "model")
    says = "folder model beside it" if "without" in kind else "has T5, whose vocabulary is not"
    with pytest.raises(InputError, match=says):
        Base.load(path, local=True)


def test_the_layout_is_the_one_that_diffusers_converts() -> None:
    for pipe in (xl_folders.xl(), small_sd()):
        states = original(pipe)
        unet = convert_ldm_unet_checkpoint(dict(states), dict(pipe.unet.config))
        vae = convert_ldm_vae_checkpoint(dict(states), dict(pipe.vae.config))
        for model, found in ((pipe.unet, unet), (pipe.vae, vae)):
            wanted = model.state_dict()
            assert found.keys() == wanted.keys()
            assert all(found[n].reshape(w.shape).equal(w) for n, w in wanted.items())
    pipe = xl_folders.xl()
    two = convert_open_clip_checkpoint(pipe.text_encoder_2, original(pipe), prefix=TWO)
    wanted = {n: t for n, t in pipe.text_encoder_2.state_dict().items() if n in two}
    assert len(wanted) == len(pipe.text_encoder_2.state_dict())
    assert all(two[n].equal(w) for n, w in wanted.items())
    one = convert_ldm_clip_checkpoint(original(pipe), remove_prefix=ONE)
    plain = {n.removeprefix("text_model."): t for n, t in one.items()}
    assert all(plain[n].equal(w) for n, w in pipe.text_encoder.state_dict().items())


@pytest.mark.parametrize("kind", ["xl", "sd"])
def test_it_gives_what_the_folder_gives(kind: str, tmp_path: Path) -> None:
    pipe = xl_folders.xl() if kind == "xl" else small_sd()
    path, folder = written(pipe, tmp_path, ".safetensors" if kind == "xl" else ".ckpt")
    ours, theirs = Base.load(path, local=True), Base.load(folder)
    assert ours.fingerprint == theirs.fingerprint
    assert ours.concept_fingerprint == theirs.concept_fingerprint
    assert (ours.side, ours.profile) == (theirs.side, theirs.profile)
    x = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = ours.predict(x, 501, [ours.text("a photo of a red cup")]).noise
        wanted = theirs.predict(x, 501, [theirs.text("a photo of a red cup")]).noise
    assert found.equal(wanted)


def test_checkpoints_that_say_v_prediction(tmp_path: Path) -> None:
    path, _ = written(xl_folders.xl(), tmp_path)
    marks = {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}
    save_file(original(xl_folders.xl()) | marks, path)
    schedule = Base.load(path).schedule
    assert schedule.about["prediction"] == "v_prediction"
    assert schedule.key != Base.load(tmp_path / "saved").schedule.key


def test_what_cannot_be_loaded_is_called_by_its_name(tmp_path: Path) -> None:
    path, _ = written(small_sd(), tmp_path)
    states = original(small_sd())
    unet = {n: t for n, t in states.items() if n.startswith("model.")}
    x = torch.zeros(1)
    short = dict(states)
    del short["first_stage_model.decoder.conv_in.bias"]
    cases: list[tuple[dict[str, Tensor], str]] = [
        (unet, "a UNet without its text encoders"),
        (unet | {"conditioner.embedders.0.model.ln_final.bias": x}, "the refiner of Stable"),
        (unet | {"cond_stage_model.model.ln_final.bias": x}, "Stable Diffusion 2.x"),
        (
            {"model.diffusion_model.joint_blocks.0.x": x},
            "transformer of Stable Diffusion 3 without",
        ),
        ({"double_blocks.0.img_attn.qkv.weight": x}, "transformer of FLUX.1 without text encoders"),
        ({"single_stream_modulation.lin.weight": x}, "FLUX.2"),
        (states | {"model.diffusion_model.input_blocks.0.0.scale_weight": x}, "8 bits with scales"),
        ({"lora_unet_x.lora_up.weight": x}, "no checkpoint of Stable Diffusion"),
        (short, "has no decoder.conv_in.bias of its autoencoder"),
    ]
    for entries, says in cases:
        save_file(entries, path)
        with pytest.raises(InputError, match=says):
            Base.load(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="is damaged"):
        Base.load(path)
    code = tmp_path / "model.ckpt"
    torch.save({"state_dict": states, "callback": Path("x")}, code)
    with pytest.raises(InputError, match="holds more than tensors"):
        Base.load(code)
    save_file(states, tmp_path / "other.safetensors")  # of other sizes than the bundled ones
    with pytest.raises(InputError, match="put its configurations into a folder other beside it"):
        Base.load(tmp_path / "other.safetensors")


def test_the_bundled_configurations_are_those_of_the_models() -> None:
    """Numbers of parameters and layers as published."""
    for layout, parameters, layers in (
        (STABLE_DIFFUSION, 859_520_964, 16),
        (STABLE_DIFFUSION_XL, 2_567_463_684, 70),
    ):
        configs = _configurations(layout, None, {}, "x")
        layout.check_denoiser(configs["unet"], configs["vae"], "x")
        with torch.device("meta"):
            unet = UNet2DConditionModel.from_config(configs["unet"])
        assert sum(p.numel() for p in unet.parameters()) == parameters
        assert sum(n.endswith("attn2") for n, _ in unet.named_modules()) == layers


def test_the_bundled_vocabulary_is_clips() -> None:
    tokenizer = clip_tokenizer()
    ids = tokenizer("a photo of a cat, Fußball").input_ids
    assert ids[:7] == [49406, 320, 1125, 539, 320, 2368, 267] and ids[-1] == 49407
    assert len(tokenizer) == 49408 and tokenizer.pad_token_id == 49407
    assert clip_tokenizer("!").pad_token_id == 0
