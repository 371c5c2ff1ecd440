"""Every stage trains, stops anywhere and resumes to the same weights; the command's bad input."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from torch import nn
from typer.testing import CliRunner

from customedit import mini
from customedit.mini import assemble, clip, data, judge, text, train, unet, vae
from customedit.mini.loop import Run, Schedule, TimeUp
from customedit.mini.sizes import SIZES, SMALL, Size

SMALL_SHARD = 40


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs folder with one small rendered shard and the tokenizer."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "SHARD", SMALL_SHARD)
        (folder / "scenes").mkdir()
        data.render_shard(folder / "scenes", 0)
    text.write_tokenizer(folder / "tokenizer", captions=50)
    return folder


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "SHARD", SMALL_SHARD)
    monkeypatch.setattr(unet, "SHARD", SMALL_SHARD)


def _stage(name: str, runs: Path, seed: int) -> tuple[nn.Module, Callable[[Run], object]]:
    """A fresh model of the stage, and what trains it."""
    torch.manual_seed(seed)
    tokenizer = text.load_tokenizer(runs / "tokenizer")
    if name == "clip":
        model = clip.build(tokenizer)
        return model, lambda run: clip.train(run, model)
    if name == "vae":
        codec = vae.build(width=16, blocks=(0, 0, 1, 1))
        return codec, lambda run: vae.train(run, codec)
    if name == "decoder":
        torch.manual_seed(0)  # the encoder is given
        codec = vae.build(width=16, blocks=(0, 0, 1, 1))
        return codec, lambda run: vae.train_decoder(run, codec)
    if name == "judge":
        eye = judge.Judge()
        return eye, lambda run: judge.train(run, eye)
    torch.manual_seed(0)  # the text encoder is given, whatever the UNet starts from
    encoder = clip.text_encoder(clip.build(tokenizer))
    torch.manual_seed(seed)
    denoiser = unet.build()
    return denoiser, lambda run: unet.train(run, denoiser, encoder, tokenizer)


@pytest.fixture(scope="module")
def latents(runs: Path) -> None:
    torch.manual_seed(0)
    unet.write_latents(runs, vae.build(width=16, blocks=(0, 0, 1, 1)), batch=7)


@pytest.mark.parametrize("name", ["clip", "vae", "decoder", "judge", "unet"])
@pytest.mark.usefixtures("latents")
def test_a_stopped_stage_resumes_to_the_same_weights(name: str, runs: Path) -> None:
    schedule = Schedule(3, 0.01, warmup=1, adam_only=SMALL.stages[name][0].adam_only)
    straight, go = _stage(name, runs, 0)
    go(Run(runs, schedule, batch=4))
    (runs / f"{name}.pt").unlink()

    stopped, go = _stage(name, runs, 0)
    go(Run(runs, schedule, batch=4, stop_after=2))
    resumed, go = _stage(name, runs, 99)  # other weights: the checkpoint's must win
    go(Run(runs, schedule, batch=4))

    wanted, got = straight.state_dict(), resumed.state_dict()
    assert all(torch.equal(wanted[k], got[k]) for k in wanted)
    assert any(not torch.equal(wanted[k], v) for k, v in stopped.state_dict().items())
    (runs / f"{name}.pt").unlink()


@pytest.mark.usefixtures("latents")
def test_latents_are_written_once_and_mirrored_every_second(runs: Path) -> None:
    path = runs / "scenes" / "latents-00000.npy"
    before = path.stat().st_mtime_ns
    torch.manual_seed(0)
    codec = vae.build(width=16, blocks=(0, 0, 1, 1))
    unet.write_latents(runs, codec)
    assert path.stat().st_mtime_ns == before
    images = np.array(data.Shards(runs / "scenes").images[0][:2])
    images[1] = images[1, :, ::-1]
    with torch.no_grad():
        wanted = codec.eval().encode(vae.to_tensor(images)).latents
    got = unet.Latents(runs / "scenes").batch(np.arange(2))
    assert (got - wanted).abs().max() < 0.05 * wanted.abs().max()  # bfloat16, kept as float16


def test_v_prediction_gives_latent_and_noise_back() -> None:
    """x0 = sqrt(a) x - sqrt(1-a) v and noise = sqrt(1-a) x + sqrt(a) v."""
    latent, noise = torch.randn(2, 4, 8, 16, 16, dtype=torch.float64)
    alpha = torch.rand(4, dtype=torch.float64)
    x, v = unet.v_target(latent, noise, alpha)
    a, b = (s[:, None, None, None] for s in (alpha.sqrt(), (1 - alpha).sqrt()))
    assert torch.allclose(a * x - b * v, latent) and torch.allclose(b * x + a * v, noise)


def test_assembled_folder_holds_the_averages(runs: Path, tmp_path: Path) -> None:
    """Checkpoints in, stock pipeline folder out, with the weights that the checkpoints average."""
    (tmp_path / "scenes").symlink_to(runs / "scenes")
    (tmp_path / "tokenizer").symlink_to(runs / "tokenizer")
    torch.manual_seed(0)
    unet.write_latents(runs, vae.build(width=16, blocks=(0, 0, 1, 1)))
    tokenizer = text.load_tokenizer(runs / "tokenizer")
    models = {
        "clip": clip.build(tokenizer), "decoder": vae.build(),
        "unet": unet.build(), "judge": judge.Judge(),
    }  # fmt: skip
    for name, model in models.items():
        torch.save({"average": model.state_dict(), "step": 7}, tmp_path / f"{name}.pt")
    steps = assemble.assemble(tmp_path, tmp_path / "out")
    assert steps == {"clip": 7, "decoder": 7, "unet": 7, "judge": 7}
    pipe = StableDiffusionPipeline.from_pretrained(tmp_path / "out")
    wanted = {k: v.half() for k, v in models["unet"].state_dict().items()}
    assert all(torch.equal(wanted[k], v.half()) for k, v in pipe.unet.state_dict().items())
    assert pipe.vae.config.scaling_factor == pytest.approx(assemble.latent_scale(tmp_path))


def test_restored_weights_train_on(tmp_path: Path) -> None:
    """Finished parts come back whole; the UNet starts anew from the weights that shipped."""
    assemble.restore(mini.path(), tmp_path)
    encoder = clip.build(text.load_tokenizer(tmp_path / "tokenizer"))
    steps = assemble.load_average(encoder, tmp_path / "clip.pt")
    assert steps > 0
    shipped = load_file(mini.path() / "unet" / "diffusion_pytorch_model.safetensors")
    saved = torch.load(tmp_path / "unet.pt", weights_only=True)
    assert saved["step"] == 0
    assert all(torch.equal(saved["model"][k].half(), v) for k, v in shipped.items())
    (tmp_path / "scenes").mkdir()
    data.render_shard(tmp_path / "scenes", 0)
    before = saved["model"]["mid_block.resnets.0.conv1.weight"]
    run = Run(tmp_path, Schedule(1, 0.01, warmup=1), batch=2)
    codec = assemble.model_of(tmp_path / "vae.pt", vae.build)
    assemble.load_average(codec, tmp_path / "vae.pt")
    unet.write_latents(tmp_path, codec)
    denoiser = assemble.model_of(tmp_path / "unet.pt", unet.build)
    unet.train(
        run, denoiser, clip.text_encoder(encoder), text.load_tokenizer(tmp_path / "tokenizer")
    )
    eye = assemble.model_of(tmp_path / "judge.pt", judge.Judge)
    assert assemble.load_average(eye, tmp_path / "judge.pt") > 0
    moved = (denoiser.state_dict()["mid_block.resnets.0.conv1.weight"] - before).abs().max()
    assert 0 < moved < 0.1


def test_schedules_name_parameters_that_exist(runs: Path) -> None:
    for size in SIZES.values():
        for name, (schedule, _) in size.stages.items():
            model, _go = _stage(name, runs, 0)
            names = [n for n, _ in model.named_parameters()]
            for word in schedule.adam_only:
                assert any(word in n for n in names), (name, word)
            assert schedule.steps >= max(schedule.warmup, schedule.decay)


def test_missing_stage_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"customedit\.mini\.train vae"):
        assemble.load_average(vae.build(width=16, blocks=(0, 0, 1, 1)), tmp_path / "vae.pt")


LARGE_IN_SMALL = Size(
    side=256,
    vae_width=16,
    vae_blocks=(0, 0, 1, 1),
    unet_widths=(32, 64, 64),
    unet_heads=(1, 2, 2),
    unet_layers=1,
    stages={
        name: (dataclasses.replace(schedule, steps=2, warmup=1, decay=1), 2)
        for name, (schedule, _) in SIZES["large"].stages.items()
    },
)
"""The large size's pictures and levels, with few channels and steps."""


def test_a_command_without_time_says_what_is_left_and_given_again_goes_on(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "SIZES", {"large": LARGE_IN_SMALL})
    (tmp_path / "scenes").symlink_to(runs / "scenes")
    app = typer.Typer()
    app.command()(train.main)
    command = ["vae", "--size", "large", "--runs", str(tmp_path), "--minutes", "0"]
    first, second = (CliRunner().invoke(app, command) for _ in range(2))
    assert first.exit_code == train.UNFINISHED, first.output
    assert "vae: at step 1 of 2; give the same command again" in first.output
    assert second.exit_code == 0, second.output
    assert torch.load(tmp_path / "vae.pt", weights_only=True)["step"] == 2


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_all_stages_of_the_large_size_stop_on_time_and_go_on_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without time each call does one piece of work: a shard, a step; given again it gets there."""
    monkeypatch.setattr(train, "SIZES", {"large": LARGE_IN_SMALL})
    monkeypatch.setattr(train, "PROMPTS", train.PROMPTS[:1])
    for module in (data, unet):
        monkeypatch.setattr(module, "SHARD", 8)
    app = typer.Typer()
    app.command()(train.main)
    (tmp_path / "scenes").mkdir()
    data.render_shard(tmp_path / "scenes", 0, side=256)  # other processes would not be patched
    assert np.load(tmp_path / "scenes" / "images-00000.npy").shape == (8, 256, 256, 3)
    command = ["--size", "large", "--runs", str(tmp_path), "--shards", "1", "--minutes", "0"]
    command += ["--out", str(tmp_path / "out")]
    stops = []
    for _ in range(20):
        result = CliRunner().invoke(app, command)
        if result.exit_code == 0:
            break
        assert result.exit_code == train.UNFINISHED, result.output
        stops.append(result.output.splitlines()[-1])
    assert [s.split("; ")[1].split(":")[0] for s in stops] == [
        "clip", "vae", "decoder", "unet", "judge"
    ]  # fmt: skip
    pipe = StableDiffusionPipeline.from_pretrained(tmp_path / "out")
    assert pipe.unet.config.sample_size == 32 and pipe.vae.config.latent_channels == vae.CHANNELS
    assert json.loads((tmp_path / "out" / "customedit.json").read_text())["side"] == 256
    image = pipe("a cup", num_inference_steps=1, output_type="np").images[0]
    assert image.shape == (256, 256, 3)


def test_the_large_unet_is_of_the_size_that_it_may_be() -> None:
    with torch.device("meta"):
        large = unet.build(SIZES["large"])
    assert 30e6 < sum(p.numel() for p in large.parameters()) < 40e6


def test_packed_checkpoints_go_on_where_they_were(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assemble, "PART", 530_000)  # of which half a megabyte is for the header
    (tmp_path / "scenes").symlink_to(runs / "scenes")
    (tmp_path / "tokenizer").symlink_to(runs / "tokenizer")
    torch.manual_seed(0)
    codec = vae.build(width=16, blocks=(0, 0, 1, 1))
    schedule = Schedule(3, 0.01, warmup=1)
    average = vae.train(Run(tmp_path, schedule, batch=2, stop_after=2), codec)
    assert assemble.pack(tmp_path, tmp_path / "packed") == {"vae": 2}
    files = list((tmp_path / "packed").glob("*.safetensors"))
    assert len(files) > 2 and all(p.stat().st_size < 60_000 for p in files)
    numbers = sum(p.numel() for p in codec.parameters())
    assert sum(p.stat().st_size for p in files) < 2 * numbers + 10_000 * len(files)

    assemble.restore(tmp_path / "packed", tmp_path / "anew")
    (tmp_path / "anew" / "scenes").symlink_to(runs / "scenes")
    other = assemble.model_of(tmp_path / "anew" / "vae.pt", vae.build)  # not of the size asked for
    assert assemble.load_average(other, tmp_path / "anew" / "vae.pt") == 2
    for name, weight in other.state_dict().items():
        assert torch.equal(weight.half(), average.shadow[name].half())
    vae.train(Run(tmp_path / "anew", schedule, batch=2), other)
    assert assemble.load_average(other, tmp_path / "anew" / "vae.pt") == 3


def test_a_judge_of_named_patterns_is_not_trained_on_others(runs: Path) -> None:
    eye = judge.Judge(patterns=6)
    with pytest.raises(ValueError, match=r"remove .*judge\.pt and run the stage again"):
        judge.train(Run(runs, Schedule(1, 0.01), batch=2), eye)


def test_a_new_model_starts_from_the_weights_that_fit_it() -> None:
    """Of the shipped UNet all but its ends, which have other channels; of the judge all it has."""
    shipped = load_file(mini.path() / "unet" / "diffusion_pytorch_model.safetensors")
    with torch.random.fork_rng():
        torch.manual_seed(5)
        wider = unet.build(dataclasses.replace(SMALL, unet_widths=(96, 192)))
    ends = {k: v.clone() for k, v in wider.state_dict().items() if shipped[k].shape != v.shape}
    fitting = assemble.start_from(wider, mini.path(), "unet")
    assert fitting == len(shipped) - len(ends)
    for name, weight in wider.state_dict().items():
        assert torch.equal(weight, ends.get(name, shipped[name].float()))
    assert assemble.start_from(vae.build(width=16, blocks=(0, 0, 1, 1)), mini.path(), "vae") < 5


def test_a_stage_whose_time_is_up_keeps_its_step(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "scenes").symlink_to(runs / "scenes")
    codec = vae.build(width=16, blocks=(0, 0, 1, 1))
    schedule = Schedule(3, 0.01, warmup=1)
    run = Run(tmp_path, schedule, batch=2, deadline=time.monotonic())
    with pytest.raises(TimeUp, match="vae: at step 1 of 3"):
        vae.train(run, codec)
    assert torch.load(tmp_path / "vae.pt", weights_only=True)["step"] == 1


def test_command_refuses_an_unknown_stage() -> None:
    app = typer.Typer()
    app.command()(train.main)
    result = CliRunner().invoke(app, ["paint"])
    assert result.exit_code == 2
    assert "unknown stage" in result.output and "assemble" in result.output
