"""A small Stable Diffusion XL and FLUX.1 over REST: import a LoRA, customize, edit, download."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save
from starlette.testclient import TestClient

from api.app import create_app
from customedit.concepts.files.lora import lora_entries
from customedit.diffusion.adapters import LowRank
from customedit.diffusion.base import Base
from customedit.jobs.records import ConceptOutcome
from customedit.tenants.access import ApiKeys

from .. import web
from ..diffusion import flow_folders, xl_folders
from .bench import LOOK, Bench, Workers


@dataclass(frozen=True)
class Family:
    """A folder of the family, an editor, and one that it has not."""

    saved: Callable[[Path], Path]
    method: str
    lacks: str
    name: str


FAMILIES = {
    "xl": Family(xl_folders.saved, "p2p", "flowedit", "Stable Diffusion XL"),
    "flux": Family(
        lambda folder: flow_folders.saved(flow_folders.flux(), folder),
        "flowedit", "masactrl", "FLUX.1",
    ),
}  # fmt: skip
FEW: dict[str, Any] = {"steps": 2, "class_images": 1, "class_steps": 2, "crops": 1, "batch": 1}


def lora(base: Base) -> bytes:
    """Of the denoiser's queries and CLIP's, as other programs write it for the family."""
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
@pytest.mark.parametrize("family", FAMILIES)
def test_import_customize_edit_download(
    family: str, bench: Bench, workers: Workers, tmp_path: Path
) -> None:
    of = FAMILIES[family]
    folder = of.saved(tmp_path / "base")
    file = lora(Base.load(folder))
    references = [bench.image(picture) for picture in LOOK.images[:2]]
    _, key = ApiKeys(bench.jobs.client, bench.settings).create(bench.tenant)
    workers.start(base=str(folder)).ready()
    with TestClient(create_app(bench.settings)) as client:
        client.headers["Authorization"] = f"Bearer {key}"

        def submitted(answer: Any) -> Any:
            assert answer.status_code == 202, answer.text
            return bench.succeeded(answer.json()["id"], 200)

        fields = {"token": "<scales>", "noun": "cup"}
        files = {"file": ("scales.safetensors", file)}
        answer = client.post("/v1/concepts/import", files=files, data=fields)
        imported = ConceptOutcome.model_validate(submitted(answer))
        asked = {
            "references": references, "noun": "cup", "attribute": "patterned", "token": "<plaid>",
            "training": FEW,
        }  # fmt: skip
        learned = ConceptOutcome.model_validate(submitted(client.post("/v1/concepts", json=asked)))
        assert learned.diffusers_key is not None and bench.storage.exists(learned.diffusers_key)
        edit = {
            "image": bench.image(), "source_prompt": "a photo of a cup",
            "target_prompt": "a photo of a <plaid> <scales> cup", "method": of.method, "steps": 3,
            "concepts": [{"id": learned.concept}, {"id": imported.concept, "weight": 0.5}],
        }  # fmt: skip
        answer = client.post("/v1/edits", json=edit)
        submitted(answer)
        job = client.get(f"/v1/jobs/{answer.json()['id']}").json()
        (output,) = job["result"]["outputs"]
        assert len(output["recipe"]["concepts"]) == 2
        assert Image.open(io.BytesIO(web.get(output["url"]).content)).size == (128, 128)
        refused = client.post("/v1/edits", json=edit | {"method": of.lacks})
        error = bench.finished(refused.json()["id"]).error
        assert error is not None and error.field == "method"
        assert f"is not in this family ({of.name})" in error.detail
