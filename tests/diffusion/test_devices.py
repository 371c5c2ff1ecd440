"""What a GPU would refuse or wait for, found without one; devices that are not there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from customedit.concepts import training
from customedit.concepts.prompts import ConceptPrompts
from customedit.concepts.settings import TrainingSettings
from customedit.concepts.training import train_concept
from customedit.diffusion.base import Base
from customedit.diffusion.devices import CpuCopy, device_of
from customedit.diffusion.engine import Engine, run
from customedit.diffusion.method import Method, Progress, Turn, decode
from customedit.diffusion.text import Weighted
from customedit.editing.edit import EditResult, edit
from customedit.editing.editor import Editor, weighted
from customedit.editing.inversion import Inversion, invert
from customedit.errors import InputError
from customedit.experiments.dreambooth import dreambooth
from customedit.mini import samples
from customedit.schemas.methods import P2POptions

from . import foreign

SOURCE, TARGET = "a photo of a cup on a table", "a photo of a <plaid> patterned cup on a table"
PROMPTS = ConceptPrompts("<plaid>", "cup", "patterned")
UNION = P2POptions(
    blend_over="union", blend_words=["cup"], subtract=["table"], reweight={"cup": 1.5}
)
ONCE = 4
"""Most moves and waits of one place in an edit: some at its beginning and end, none a step."""

FREE = ("devices.to_device",)


def editing(base: Base, picture: Image.Image, concepts: Any, **options: Any) -> Method[EditResult]:
    """An edit with its own inversion."""
    session = Editor(base).open(picture, SOURCE)
    (plan,) = session.plan(TARGET, concepts=concepts, **options)
    return edit(base, plan, session.picture, concepts=weighted(concepts))


@pytest.fixture
def device() -> Iterator[Any]:
    with foreign.device() as mode:
        yield mode


@pytest.fixture
def base(device: Any) -> Base:
    base = Base.load(device=str(foreign.DEVICE))
    assert isinstance(base.denoiser.conv_in.weight, foreign.Foreign)
    device.arrivals.clear()
    return base


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return Image.open(samples.sources()[3].image).convert("RGB")


@pytest.fixture(scope="module")
def references() -> list[Image.Image]:
    return [Image.open(p).convert("RGB") for p in samples.looks()[0].images[:2]]


class Word:
    """A concept on the CPU, as it is loaded: an embedding, one layer's keys and values."""

    def __init__(self, base: Base) -> None:
        layer = base.layers[0]
        self.tokens = {"<plaid>": torch.full((base.width,), 0.01)}
        self.keys = {layer: torch.full(base.weights[f"{layer}.to_k.weight"].shape, 0.01)}
        self.values = {layer: torch.full(base.weights[f"{layer}.to_v.weight"].shape, 0.01)}


def test_the_pretended_device_is_as_strict_as_a_gpu(device: Any) -> None:
    here, there = torch.ones(2, 3), torch.ones(2, 3).to(foreign.DEVICE)
    with pytest.raises(RuntimeError, match=r"aten\.add.*foreign tensor and the CPU's \[\(2, 3\)\]"):
        there + here
    with pytest.raises(RuntimeError, match=r"aten\.index"):
        there[torch.tensor([0])]
    assert not device.waits
    assert (there * torch.tensor(2.0)).sum().item() == 12  # single numbers go along
    assert sum(device.waits.values()) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"p2p": UNION},
        {"inversion": "negative-prompt"},
        {"inversion": "ddim"},
        {"method": "sdedit"},
        {"method": "masactrl"},
        {"method": "pnp", "guidance_end": 0.5},
        {"method": "ddpm"},
        {"method": "directedit"},
    ],
    ids=[
        "direct",
        "union",
        "negative-prompt",
        "ddim",
        "sdedit",
        "masactrl",
        "pnp",
        "ddpm",
        "directedit",
    ],
)
def test_no_step_of_an_edit_mixes_devices_or_waits(
    changes: dict[str, Any], base: Base, device: Any, picture: Image.Image
) -> None:
    steps = 2 * ONCE
    result = run(base, editing(base, picture, [Word(base)], steps=steps, **changes))
    assert isinstance(result.drawing.latents, foreign.Foreign)
    # pictures come to the CPU, each with its latents, which are looked at: are they finite?
    assert set(device.waits) <= {"to the CPU", "aten._local_scalar_dense.default"}
    assert all(count <= ONCE for count in device.waits.values()), device.waits
    # "to_device" does not wait; what the engine moves itself are a forward's time steps
    moved = {k: n for k, n in device.arrivals.items() if k not in FREE}
    assert all(n <= ONCE for n in moved.values()), moved


def test_a_mask_and_a_kept_inversion_come_from_the_cpu(
    base: Base, device: Any, picture: Image.Image, tmp_path: Path
) -> None:
    mask = torch.zeros(64, 64)
    mask[16:48, 16:48] = 1
    made = run(base, invert(base, base.encode(picture), SOURCE, kind="null-text", steps=2))
    made.save(tmp_path / "kept.safetensors")
    kept = Inversion.load(tmp_path / "kept.safetensors")
    assert kept.trajectory.device.type == "cpu"
    assert torch.equal(kept.trajectory, made.trajectory.cpu())
    session = Editor(base).open(picture, SOURCE)
    concepts = [Weighted(Word(base))]
    (plan,) = session.plan(
        TARGET, concepts=concepts, mask=mask, steps=2, inversion="null-text", preserve=True
    )
    method = edit(
        base, plan, session.picture, concepts=concepts, mask=mask, inversion=kept, record=True
    )
    drawing = run(base, method).drawing
    assert drawing.maps is not None and bool(drawing.latents.isfinite().all())


def test_a_training_waits_once_a_step_and_resumes(
    base: Base, device: Any, references: list[Image.Image], tmp_path: Path
) -> None:
    def train(steps: int) -> int:
        settings = TrainingSettings.of(base, steps=steps, class_images=2, class_steps=2, crops=2)
        device.waits.clear()
        concept = run(
            base, train_concept(base, references, PROMPTS, settings, class_cache=tmp_path)
        )
        assert all(isinstance(w, foreign.Foreign) for w in concept.weights.values())
        return sum(device.waits.values())

    train(1)  # draws the class images
    assert train(4) - train(2) == 2

    settings = TrainingSettings.of(base, steps=2, class_images=0, crops=2, checkpoint_every=1)
    file = tmp_path / "checkpoint.safetensors"
    whole = run(base, train_concept(base, references, PROMPTS, settings, resume=file))
    again = run(base, train_concept(base, references, PROMPTS, settings, resume=file))
    assert all(torch.equal(w.cpu(), again.weights[n].cpu()) for n, w in whole.weights.items())


def test_the_losses_of_a_step_are_read_when_the_next_one_is_launched(
    base: Base, references: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    take_step, read = training.take_step, CpuCopy.read

    def taken(*given: Any) -> None:
        told.append("step")
        take_step(*given)

    def waited(copy: CpuCopy) -> Tensor:
        told.append("read")
        return read(copy)

    monkeypatch.setattr(training, "take_step", taken)
    monkeypatch.setattr(CpuCopy, "read", waited)

    def train(**more: Any) -> list[Progress]:
        told.clear()
        progress: list[Progress] = []
        settings = TrainingSettings.of(base, steps=4, class_images=0, crops=2, preview_every=2)
        run(base, train_concept(base, references, PROMPTS, settings, **more), progress.append)
        return [p for p in progress if p.phase == "train"]

    progress = train()
    assert told == ["step", "step", "read", "step", "read", "step", "read", "read"]
    assert [p.step for p in progress] == [1, 2, 3, 4]
    assert len({p.facts["loss"] for p in progress}) == 4
    shown = Image.new("RGB", (1, 1))
    previewed = train(preview=lambda _: shown)  # a preview belongs to its own step
    assert told == ["step", "step", "read", "read", "step", "step", "read", "read"]
    assert [p.preview for p in previewed] == [None, shown, None, shown]
    assert [p.facts for p in previewed] == [p.facts for p in progress]


def test_a_picture_is_waited_for_after_others_had_their_turn(base: Base, device: Any) -> None:
    latents = torch.zeros(1, base.channels, 8, 8).to(foreign.DEVICE)
    method = decode(base, latents)
    assert next(method) == Turn()
    device.waits.clear()
    assert next(method) == Turn()
    assert not device.waits  # it is launched
    with pytest.raises(StopIteration) as end:
        next(method)
    assert device.waits["to the CPU"] == 2  # pixels, and the latents they are of
    assert end.value.value.size == (8 * base.factor, 8 * base.factor)


def test_dreambooth_and_many_jobs_at_once(
    base: Base, picture: Image.Image, references: list[Image.Image]
) -> None:
    settings = TrainingSettings.of(base, way="dreambooth", steps=1, class_images=0, crops=2)
    tuned, word = run(base, dreambooth(base, references, PROMPTS, settings))
    assert isinstance(tuned.denoiser.conv_in.weight, foreign.Foreign)
    run(tuned, editing(tuned, picture, [word], steps=1))
    few = TrainingSettings.of(base, steps=2, class_images=0, crops=2)
    engine = Engine(base)
    tickets: list[Any] = [
        engine.submit(editing(base, picture, [word], steps=2, method=m)) for m in ("p2p", "sdedit")
    ]
    tickets.append(engine.submit(train_concept(base, references, PROMPTS, few), priority=10))
    while not engine.idle:
        engine.tick()
    for ticket in tickets:
        ticket.result()


def test_devices_that_are_none() -> None:
    assert device_of("cpu").type == "cpu"
    with pytest.raises(InputError, match="device: 'gpu' is not a device; use cpu, cuda or cuda:N"):
        device_of("gpu")
    for name in ("xla", "meta", "fpga:1"):
        with pytest.raises(InputError, match=f"device: {name} is not available"):
            device_of(name)
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="device: cuda:1 is not available"):
            device_of("cuda:1")
