"""A real worker on a small Stable Diffusion XL and FLUX.1: import a LoRA, customize, edit."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save

from customedit.concepts.files.lora import lora_entries
from customedit.diffusion.adapters import LowRank
from customedit.diffusion.base import Base
from customedit.jobs.records import ConceptOutcome, ConceptRecord, EditOutcome
from customedit.schemas import ids
from customedit.storage import object_keys

from ..diffusion import flow_folders, xl_folders
from .bench import LOOK, SOURCE, Bench, Workers

FOLDERS: dict[str, Callable[[Path], Path]] = {
    "xl": xl_folders.saved,
    "flux": lambda folder: flow_folders.saved(flow_folders.flux(), folder),
}
FEW: dict[str, Any] = {"steps": 2, "crops": 1, "class_images": 1, "class_steps": 2}


def lora(base: Base) -> bytes:
    """Of the denoiser's queries and of the text encoders, under kohya's names."""
    generator = torch.Generator().manual_seed(5)
    adapters = {
        path: LowRank(
            torch.randn(layer.weight.shape[0], 2, generator=generator) * 0.2,
            torch.randn(2, layer.weight.shape[1], generator=generator) * 0.2,
        )
        for path, layer in base.family.adaptable.items()
        if path.endswith((".to_q", ".self_attn.q_proj"))
    }
    return save(lora_entries(adapters, len(base.family.encoders)))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("family", FOLDERS)
def test_a_lora_is_imported_a_look_learned_and_both_are_painted(
    family: str, bench: Bench, workers: Workers, tmp_path: Path
) -> None:
    folder = FOLDERS[family](tmp_path / "base")
    workers.start(base=str(folder)).ready()
    learning = bench.customize(1, **FEW)
    soft = ConceptRecord(
        id=ids.new("con"), tenant=bench.tenant, job=ids.new("job"), token="<soft>", created_at=0
    )
    data, given = lora(Base.load(folder)), object_keys.given(bench.tenant, soft.job)
    bench.storage.put(given, data)
    request = {"file": given, "bytes": len(data), "token": "<soft>"}
    imported = bench.submit("import", request, soft)
    concepts = [
        ConceptOutcome.model_validate(bench.succeeded(job, 200)) for job in (imported, learning)
    ]
    assert [c.token for c in concepts] == ["<soft>", LOOK.token]
    editing = bench.edit(
        target_prompt=f"{SOURCE.target_prompt(LOOK)} <soft>",
        concepts=[{"id": c.concept} for c in concepts],
        method="sdedit",
    )
    outcome = EditOutcome.model_validate(bench.succeeded(editing, 200))
    (shown,) = outcome.outputs
    assert len(shown.recipe["concepts"]) == 2
    assert Image.open(io.BytesIO(bench.storage.get(shown.image_key))).size == (128, 128)
