"""A base from a single-file checkpoint: its kind told by its names, its parts built and filled."""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import diffusers
import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from customedit.diffusion.compatibility import check_folder, first_line, read_json
from customedit.diffusion.families.known import (
    FLUX,
    STABLE_DIFFUSION,
    STABLE_DIFFUSION_3,
    STABLE_DIFFUSION_XL,
    family_of,
)
from customedit.diffusion.families.layout import SUPPORTED, EncoderLayout, Layout
from customedit.diffusion.families.original_names import flux_names, sd3_names
from customedit.diffusion.families.unet_names import original_states
from customedit.diffusion.single_files.names import open_clip_states, vae_names
from customedit.diffusion.single_files.transformers import sd3_config, transformer_states
from customedit.diffusion.single_files.vocabulary import clip_tokenizer
from customedit.errors import InputError

_DENOISER: Final = "model.diffusion_model."
_VAES: Final = ("first_stage_model.", "vae.")
_ENCODERS: Final[Mapping[str, tuple[str, ...]]] = {
    STABLE_DIFFUSION.name: ("cond_stage_model.transformer.",),
    STABLE_DIFFUSION_XL.name: (
        "conditioner.embedders.0.transformer.",
        "conditioner.embedders.1.model.",
    ),
    STABLE_DIFFUSION_3.name: tuple(
        f"text_encoders.{encoder}.transformer." for encoder in ("clip_l", "clip_g", "t5xxl")
    ),
    FLUX.name: tuple(f"text_encoders.{encoder}.transformer." for encoder in ("clip_l", "t5xxl")),
}
_OPEN_CLIP: Final = "conditioner.embedders.1.model."
_BLOCKS: Final[Mapping[str, str]] = {
    STABLE_DIFFUSION.name: "input_blocks.",
    STABLE_DIFFUSION_XL.name: "input_blocks.",
    STABLE_DIFFUSION_3.name: "joint_blocks.",
    FLUX.name: "double_blocks.",
}
"""How names of the denoiser's layers begin."""

_BUNDLED: Final[Mapping[str, str]] = {
    STABLE_DIFFUSION.name: "stable_diffusion.json",
    STABLE_DIFFUSION_XL.name: "stable_diffusion_xl.json",
    STABLE_DIFFUSION_3.name: "stable_diffusion_3.json",
}
_SCALES: Final = (".scale_weight", ".weight_scale", "scaled_fp8")
_WHOLE: Final = "give a checkpoint that has them, or the folder of the base"
_OTHERS: Final = (
    ("conditioner.embedders.0.model.", "the refiner of Stable Diffusion XL", "use the base model"),
    (
        "cond_stage_model.model.",
        "a checkpoint of Stable Diffusion 2.x",
        "convert it once: StableDiffusionPipeline.from_single_file(FILE).save_pretrained(FOLDER)",
    ),
    ("single_stream_modulation.", "a checkpoint of FLUX.2", SUPPORTED),
    ("distilled_guidance_layer.", "a checkpoint of Chroma", SUPPORTED),
    ("joint_blocks.", "a transformer of Stable Diffusion 3 without text encoders or autoencoder",
     _WHOLE),
    ("double_blocks.", "a transformer of FLUX.1 without text encoders or autoencoder", _WHOLE),
    (_DENOISER, "a UNet without its text encoders", _WHOLE),
)  # fmt: skip


def configurations_beside(path: Path) -> Path | None:
    """The folder of the file's name beside it, whose configurations replace the bundled ones."""
    folder = path.with_suffix("")
    return folder if (folder / "model_index.json").is_file() else None


def load_single_file(path: Path, name: str) -> Any:
    """The pipeline in a checkpoint of the original layout, on the CPU, in float32.

    Beside ``model.safetensors`` a folder ``model`` may have the configurations (all but the weights
    of a diffusers folder), for models of other sizes; else they are bundled. No hub is asked.

    Raises:
        InputError: for a file that is damaged, holds more than tensors, is of another kind than
            those in ``_ENCODERS``, or has weights missing or of other shapes.
    """
    states = _read(path, name)
    layout = _layout_of(states, name)
    folder = configurations_beside(path)
    if folder is not None and check_folder(folder, name).pipeline != layout.pipeline:
        raise InputError(
            "base", f"{name} is of another kind than {folder}", "correct its configurations"
        )
    configs = _configurations(layout, folder, states, name)
    _mark_prediction(configs, states)
    with warnings.catch_warnings():  # of the settings that the pipeline corrects
        warnings.simplefilter("ignore")
        kind = getattr(diffusers, configs["scheduler"]["_class_name"])
        parts: dict[str, Any] = {"scheduler": kind.from_config(configs["scheduler"])}
        for encoder, prefix in _encoders(layout, states):
            parts[encoder.part] = _text_encoder(encoder, prefix, configs, states, name)
            parts[encoder.tokenizer] = _tokenizer(encoder, folder)
        parts["vae"] = _vae(configs["vae"], states, name)
        parts[layout.denoiser] = _denoiser(layout, configs[layout.denoiser], states, name)
        options = {n: configs["model_index"].get(n, v) for n, v in layout.options.items()}
        return family_of(layout).assemble(parts, options)


def _encoders(layout: Layout, states: Mapping[str, Tensor]) -> list[tuple[EncoderLayout, str]]:
    """The text encoders that the checkpoint has, and the beginnings of their names."""
    each = zip(layout.encoders, _ENCODERS[layout.name], strict=True)
    return [(e, p) for e, p in each if not e.optional or any(n.startswith(p) for n in states)]


def _read(path: Path, name: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint."""
    try:
        if path.suffix.lower() == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError) as error:
        raise InputError(
            "base", f"{name} is damaged ({first_line(error)})", "download or copy it again"
        ) from None
    except pickle.UnpicklingError:
        raise InputError(
            "base",
            f"{name} is a pickle that holds more than tensors, which is not loaded, since a pickle "
            "can run code",
            "give it as .safetensors",
        ) from None
    content = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(content, dict):
        raise InputError("base", f"{name} holds no named weights", "give a whole checkpoint")
    return {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}


def _layout_of(states: Mapping[str, Tensor], name: str) -> Layout:
    for layout in (STABLE_DIFFUSION, STABLE_DIFFUSION_XL, STABLE_DIFFUSION_3, FLUX):
        prefixes: list[str | tuple[str, ...]] = [_VAES, _DENOISER + _BLOCKS[layout.name]]
        encoders = zip(layout.encoders, _ENCODERS[layout.name], strict=True)
        prefixes += [prefix for encoder, prefix in encoders if not encoder.optional]
        if all(any(n.startswith(p) for n in states) for p in prefixes):
            if scaled := next((n for n in states if n.endswith(_SCALES)), None):
                raise InputError(
                    "base",
                    f"{name} has weights of 8 bits with scales ({scaled})",
                    "give it in float16, bfloat16 or plain float8",
                )
            return layout
    for part, what, remedy in _OTHERS:
        if any(part in n for n in states):
            raise InputError("base", f"{name} is {what}, which is not supported", remedy)
    raise InputError(
        "base",
        f"{name} is no checkpoint of Stable Diffusion or FLUX.1",
        "give one of Stable Diffusion 1.x, XL or 3, or of FLUX.1, or a folder",
    )


def _configurations(
    layout: Layout, folder: Path | None, states: Mapping[str, Tensor], name: str
) -> dict[str, Any]:
    """Of each part; ``model_index`` and ``scheduler`` among them."""
    if folder is None:
        if any(encoder.kinds == ("t5",) for encoder, _ in _encoders(layout, states)):
            raise InputError(
                "base",
                f"{name} has T5, whose vocabulary is not bundled",
                f"put the configurations and tokenizers of its diffusers folder into a folder "
                f"{Path(name).stem} beside it",
            )
        bundled = Path(__file__).with_name(_BUNDLED[layout.name])
        found: dict[str, Any] = json.loads(bundled.read_text("utf-8"))
        if layout == STABLE_DIFFUSION_3:  # medium, 3.5 medium and large differ
            try:
                found["transformer"] = sd3_config(_within(states, _DENOISER))
            except KeyError as error:
                raise InputError(
                    "base",
                    f"{name} has no {error.args[0]} of its transformer",
                    "download or copy it again",
                ) from None
        return found
    layout = layout.with_encoders(lambda part: (folder / part / "config.json").is_file())
    files = {part: folder / part / "config.json" for part in layout.stems}
    files["scheduler"] = folder / "scheduler" / "scheduler_config.json"
    files["model_index"] = folder / "model_index.json"
    return {part: read_json(file, name) for part, file in files.items()}


def _mark_prediction(configs: Mapping[str, Any], states: Mapping[str, Tensor]) -> None:
    """Take over what some checkpoints of XL say of themselves by the names of empty tensors."""
    if "v_pred" in states:
        configs["scheduler"]["prediction_type"] = "v_prediction"
    if "ztsnr" in states:
        configs["scheduler"]["rescale_betas_zero_snr"] = True


def _within(states: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in states.items() if n.startswith(prefix)}


def _text_encoder(
    encoder: EncoderLayout,
    prefix: str,
    configs: Mapping[str, Any],
    states: Mapping[str, Tensor],
    name: str,
) -> nn.Module:
    own = _within(states, prefix)
    if encoder.part not in configs:
        raise InputError(
            "base",
            f"{name} has a {encoder.part}, its configurations have none",
            f"add {encoder.part}/config.json and {encoder.tokenizer}",
        )
    if encoder.kinds == ("t5",):
        return _t5(encoder, configs[encoder.part], own, name)
    config = transformers.CLIPTextConfig.from_dict(configs[encoder.part])
    model: nn.Module = getattr(transformers, encoder.encoder_class)(config)
    if prefix == _OPEN_CLIP:
        own = open_clip_states(own)
    plain = {n.removeprefix("text_model."): tensor for n, tensor in own.items()}
    if prefix.startswith("text_encoders.clip_l"):  # whose pooled text has no projection there
        plain.setdefault("text_projection.weight", torch.eye(config.hidden_size))
    return _filled(model, plain, f"text encoder ({encoder.part})", name)


def _t5(
    encoder: EncoderLayout, config: Mapping[str, Any], own: Mapping[str, Tensor], name: str
) -> nn.Module:
    with torch.device("meta"):
        t5 = transformers.T5EncoderModel(transformers.T5Config.from_dict(dict(config)))
    table = {"encoder.embed_tokens.weight": own["shared.weight"]} if "shared.weight" in own else {}
    filled = _filled(t5, {**table, **own}, f"text encoder ({encoder.part})", name)
    t5.tie_weights()  # the table has two names
    return filled


def _tokenizer(encoder: EncoderLayout, folder: Path | None) -> Any:
    if folder is not None and (folder / encoder.tokenizer).is_dir():
        kind = getattr(transformers, encoder.tokenizer_class)
        return kind.from_pretrained(folder, subfolder=encoder.tokenizer, local_files_only=True)
    return clip_tokenizer("!") if encoder.embedding == "clip_g" else clip_tokenizer()


def _denoiser(
    layout: Layout, config: Mapping[str, Any], states: Mapping[str, Tensor], name: str
) -> nn.Module:
    with torch.device("meta"):
        model: Any = getattr(diffusers, layout.denoiser_class).from_config(config)
    own = _within(states, _DENOISER)
    if layout.denoiser == "unet":
        return _filled(model, original_states(model, model.config, own), "UNet", name)
    names = flux_names(model.config) if layout == FLUX else sd3_names(model.config)
    return _filled(model, transformer_states(own, names, model), "transformer", name)


def _vae(config: Mapping[str, Any], states: Mapping[str, Tensor], name: str) -> nn.Module:
    with torch.device("meta"):
        vae = diffusers.AutoencoderKL.from_config(config)
    own = next(found for prefix in _VAES if (found := _within(states, prefix)))
    found = {
        f"{path}.{kind}": own[f"{original}.{kind}"]
        for original, path in vae_names(vae).items()
        for kind in ("weight", "bias")
        if f"{original}.{kind}" in own
    }
    return _filled(vae, found, "autoencoder", name)


def _filled(model: nn.Module, states: Mapping[str, Tensor], kind: str, name: str) -> nn.Module:
    """``model`` with all its weights from ``states``, in float32.

    A linear layer's weight may be there as a convolution's of one cell.
    """
    found: dict[str, Tensor] = {}
    for path, wanted in model.state_dict().items():
        value = states.get(path, states.get(path.removeprefix("text_model.")))
        if value is None:
            raise InputError(
                "base", f"{name} has no {path} of its {kind}", "download or copy it again"
            )
        if value.ndim == 4 and wanted.ndim == 2 and value.shape[2:] == (1, 1):
            value = value[:, :, 0, 0]
        if value.shape != wanted.shape:
            raise InputError(
                "base",
                f"{name} has {path} of its {kind} as {tuple(value.shape)}, not "
                f"{tuple(wanted.shape)}",
                f"put its configurations into a folder {Path(name).stem} beside it",
            )
        # a copy: tensors begin at any byte of a file, and unaligned ones give other sums
        numbers = torch.float32 if value.is_floating_point() else value.dtype
        found[path] = value.to(numbers, copy=True).contiguous()
    model.load_state_dict(found, assign=True)
    return model.eval()
