"""A small FLUX.1 folder over REST: import a LoRA, customize, edit with both, download."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import httpx
import torch
from PIL import Image
from safetensors.torch import save_file
from starlette.testclient import TestClient

from api.app import create_app
from customedit.jobs.records import ConceptOutcome
from customedit.tenants.access import ApiKeys

from ..diffusion import flow_folders as folders
from .bench import LOOK, Bench, Workers


def test_import_customize_edit_download(bench: Bench, workers: Workers, tmp_path: Path) -> None:
    folder = folders.saved(folders.flux(), tmp_path / "flux")
    name = "transformer.transformer_blocks.0.attn.add_v_proj"
    generator = torch.Generator().manual_seed(0)
    lora = {
        f"{name}.lora_A.weight": torch.randn(2, 32, generator=generator),
        f"{name}.lora_B.weight": torch.randn(32, 2, generator=generator),
    }
    save_file(lora, tmp_path / "scales.safetensors")
    training = {"steps": 2, "class_images": 1, "class_steps": 2, "crops": 2, "batch": 1}
    references = [bench.image(picture) for picture in LOOK.images[:2]]
    _, key = ApiKeys(bench.jobs.client, bench.settings).create(bench.tenant)
    workers.start(base=folder).ready()
    with TestClient(create_app(bench.settings)) as client:
        client.headers["Authorization"] = f"Bearer {key}"

        def submitted(answer: Any) -> Any:
            assert answer.status_code == 202, answer.text
            return bench.succeeded(answer.json()["id"])

        with (tmp_path / "scales.safetensors").open("rb") as file:
            fields = {"token": "<scales>", "noun": "cup"}
            answer = client.post("/v1/concepts/import", files={"file": file}, data=fields)
        imported = ConceptOutcome.model_validate(submitted(answer))
        asked = {
            "references": references, "noun": "cup", "attribute": "patterned", "token": "<plaid>",
            "training": training,
        }  # fmt: skip
        learned = ConceptOutcome.model_validate(submitted(client.post("/v1/concepts", json=asked)))
        assert learned.diffusers_key is not None and bench.storage.exists(learned.diffusers_key)
        edit = {
            "image": bench.image(), "source_prompt": "a photo of a cup",
            "target_prompt": "a photo of a <plaid> <scales> cup", "method": "flowedit", "steps": 3,
            "concepts": [{"id": learned.concept}, {"id": imported.concept, "weight": 0.5}],
        }  # fmt: skip
        answer = client.post("/v1/edits", json=edit)
        submitted(answer)
        job = client.get(f"/v1/jobs/{answer.json()['id']}").json()
        (output,) = job["result"]["outputs"]
        assert Image.open(io.BytesIO(httpx.get(output["url"]).content)).size == (128, 128)
        refused = client.post("/v1/edits", json=edit | {"method": "masactrl"})
        error = bench.finished(refused.json()["id"]).error
        assert error is not None and error.field == "method"
        assert "is not in this family (FLUX.1)" in error.detail
