"""A real worker process from the queue to the bucket: learn a look, paint it, fail in words."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load, save

from customedit.config.settings import Settings
from customedit.estimates.work import PHASES
from customedit.jobs.records import ConceptOutcome, ConceptRecord, EditOutcome
from customedit.schemas import ids
from customedit.schemas.change import AUTO_CHANGES
from customedit.storage import object_keys

from .bench import LOOK, ROOT, SOURCE, Bench, Process, Workers, free_port, until

LEARN: dict[str, Any] = {
    "steps": 20, "rate": 5e-4, "crops": 3, "class_images": 2, "class_steps": 4, "preview_every": 10,
}  # fmt: skip


@pytest.fixture
def process(settings: Settings, bench: Bench, tmp_path: Path) -> Iterator[Process]:
    """``python -m worker``, as it is started in production."""
    port, log = free_port(), tmp_path / "worker.log"
    env = os.environ | {
        "PYTHONPATH": str(ROOT),
        "CUSTOMEDIT_METRICS_PORT": str(port),
        "CUSTOMEDIT_SCRATCH_DIR": str(tmp_path / "scratch"),
    }
    with (
        log.open("wb") as out,
        subprocess.Popen(
            [sys.executable, "-m", "worker"], env=env, stdout=out, stderr=out, cwd=tmp_path
        ) as child,
    ):
        yield Process(child.pid, port, log)
        child.kill()


def picture(bench: Bench, key: str | None) -> Image.Image:
    assert key is not None
    return Image.open(io.BytesIO(bench.storage.get(key)))


def test_a_look_is_learned_and_painted(bench: Bench, process: Process, tmp_path: Path) -> None:
    from customedit.concepts.concept import Concept, concept_digest
    from customedit.diffusion.base import Base

    learning = bench.customize(**LEARN)
    process.ready()
    learned = ConceptOutcome.model_validate(bench.succeeded(learning))
    concept = bench.catalogue.concept(bench.tenant, learned.concept)
    assert concept is not None and concept.state == "ready"
    assert concept.weights_key == learned.weights_key and concept.warnings == []
    assert bench.storage.head(learned.weights_key).bytes == learned.bytes
    assert learned.diffusers_key is not None and bench.storage.exists(learned.diffusers_key)
    assert picture(bench, learned.preview_key).size == (128, 128)
    told = bench.jobs.events(bench.tenant, learning)
    phases = [e.data["phase"] for e in told if e.kind != "state"]
    assert "train" in phases and set(phases) <= set(PHASES["customize"])
    shown = [e.data for e in told if e.kind == "preview"]
    assert shown and all(d["preview_key"] and d["step"] for d in shown if d["phase"] == "train")

    words = SOURCE.target_prompt(LOOK)
    blend = {"blend_words": [LOOK.noun]}
    common = {"steps": 10, "strengths": [0.3], "p2p": blend}
    references = [bench.image(p) for p in LOOK.images[:3]]
    asked = [
        bench.edit(target_prompt=words, concepts=[{"id": learned.concept}], maps=True, **common),
        bench.edit(
            target_prompt=" ".join(words.replace(LOOK.token, "").split()),
            references=references,
            **common,
        ),
    ]
    with_, without = (EditOutcome.model_validate(bench.succeeded(j)) for j in asked)
    shown, plain = with_.outputs[0], without.outputs[0]
    assert shown.similarities.reference is not None and plain.similarities.reference is not None
    assert shown.similarities.reference > plain.similarities.reference + 0.1
    assert shown.best and shown.recipe["steps"] == 10 and with_.region_words == [LOOK.noun]
    (used,) = shown.recipe["concepts"]
    assert (used["tokens"], used["weight"]) == ([LOOK.token], 1.0)
    weights = tmp_path / "weights.safetensors"
    bench.storage.download(learned.weights_key, weights)
    assert used["digest"] == concept_digest(Concept.load(weights, Base.load().weights))
    assert picture(bench, shown.image_key).size == picture(bench, with_.source_key).size
    assert picture(bench, with_.mask_key).mode == "L"
    assert picture(bench, with_.sheet_key).width > 128
    assert with_.maps_key is not None
    assert load(bench.storage.get(with_.maps_key))["0"].shape[0] == 2
    assert without.maps_key is None  # the words' maps alone, since the region is read from them
    assert without.word_maps is not None and with_.word_maps is not None
    tiles, names = picture(bench, with_.word_maps.key), with_.word_maps.words
    assert names == words.split() and tiles.size == (16 * len(names), 16)
    told = bench.jobs.events(bench.tenant, asked[0])
    assert any(e.kind == "preview" for e in told)
    assert {e.data["phase"] for e in told if e.kind != "state"} <= set(PHASES["edit"])
    assert not [n for n in bench.names(learning) if n.startswith("checkpoints/")]  # tidied up
    assert bench.states(learning) == ["queued", "running", "succeeded"]
    process.kill(signal.SIGTERM)
    process.gone()
    assert "Traceback" not in process.said()


def test_a_result_is_edited_further(bench: Bench, workers: Workers) -> None:
    """The second edit starts from the first one's picture, and its inversion goes with the job."""
    workers.start().ready()
    first = bench.edit()
    (made,) = EditOutcome.model_validate(bench.succeeded(first)).outputs
    assert (made.width, made.height) == picture(bench, made.image_key).size
    again = [
        bench.edit(image=ids.of_output(first, 0), change=change, target_prompt="a photo of a cup")
        for change in (0, 0.5)
    ]
    same, changed = (EditOutcome.model_validate(bench.succeeded(job)) for job in again)
    assert same.source_key == changed.source_key == made.image_key
    assert picture(bench, same.outputs[0].image_key) == picture(bench, made.image_key)
    assert any(name.startswith("inversions/0/") for name in bench.names(first))
    gone = bench.edit(image=ids.of_output(first, 1))
    error = bench.finished(gone).error
    assert error is not None and error.type == "input-missing"
    assert bench.jobs.delete(bench.tenant, first)
    until(lambda: not bench.names(first), "the folder is removed")


def test_what_cannot_be_used_fails_in_words(bench: Bench, workers: Workers) -> None:
    lost = bench.image(LOOK.images[4])  # which the training does not need
    gone = bench.edit(image=lost)
    bench.storage.delete(object_keys.image(bench.tenant, lost, "1", object_keys.PICTURE))
    workers.start(job_timeout_seconds=8).ready()
    diverging = bench.customize(steps=3, rate=1.0, class_images=0, crops=1, batch=1, prior_weight=0)
    asked = {
        "token": bench.edit(target_prompt="a photo of a <nobody> cup"),
        "blend": bench.edit(p2p={"blend_words": ["zebra"]}),
        "image": gone,
        "late": bench.edit(steps=200, strengths=[k / 10 for k in range(1, 10)]),
    }
    failed = {}
    for name, job_id in asked.items():
        record = bench.finished(job_id)
        assert record.state == "failed" and record.error is not None, (name, record)
        failed[name] = (record.error.type, record.error.field)
        assert "Traceback" not in record.error.detail
        assert not [n for n in bench.names(job_id) if n.startswith("attempts/")]
    assert failed == {
        "token": ("input-error", "target_prompt"),
        "blend": ("input-error", "source_prompt"),
        "image": ("input-missing", None),
        "late": ("deadline-exceeded", None),
    }
    assert bench.finished(diverging).state in ("succeeded", "failed")


def test_a_base_that_overflows_gives_no_picture(
    bench: Bench, workers: Workers, tmp_path: Path
) -> None:
    """Every kind of job fails with the cause, and shows and keeps nothing of what it computed."""
    from safetensors.torch import save_file

    good = ROOT / "customedit" / "mini" / "weights"
    folder = shutil.copytree(good, tmp_path / "broken")
    unet = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load(unet.read_bytes())
    weights["conv_out.bias"] = weights["conv_out.bias"].float()
    weights["conv_out.bias"][0] = 3e38  # finite, as a base must be; its steps are not
    save_file(weights, unet)
    width = json.loads((good / "text_encoder" / "config.json").read_text())["hidden_size"]
    concept = ConceptRecord(
        id=ids.new("con"), tenant=bench.tenant, job=ids.new("job"), token="<x>", created_at=0
    )
    data = save({"<x>": torch.ones(width)})
    given = object_keys.given(bench.tenant, concept.job)
    bench.storage.put(given, data)
    image = bench.image()
    asked = {
        "p2p": bench.edit(image=image, steps=10),
        "sdedit": bench.edit(image=image, steps=10, method="sdedit"),
        "import": bench.submit("import", {"file": given, "bytes": len(data)}, concept),
        "training": bench.customize(**LEARN | {"class_images": 2}),
    }
    workers.start(base=folder).ready()
    for name, job_id in asked.items():
        record = bench.finished(job_id)
        assert record.state == "failed" and record.error is not None, (name, record)
        of_loss = record.error.type == "training-diverged" and name == "training"
        assert of_loss or record.error.type == "numerical-error", (name, record.error)
        assert of_loss or "not finite" in record.error.detail
        kept = [n for n in bench.names(job_id) if n.startswith(("attempts/", "checkpoint"))]
        assert not kept, name
    assert not list(bench.storage.list(object_keys.inversion(bench.tenant, image, "")))


def test_a_worker_chooses_how_much_changes(bench: Bench, workers: Workers) -> None:
    references = [bench.image(path) for path in LOOK.images[:2]]
    asked = bench.edit(change="auto", references=references)
    several = bench.edit(method="ddpm", strengths=[0.2, 0.8], seeds=[1, 2])
    workers.start().ready()
    outcome = EditOutcome.model_validate(bench.succeeded(asked))
    (output,) = outcome.outputs
    assert outcome.change_curve is not None
    assert outcome.change_curve.values == AUTO_CHANGES
    assert output.change == outcome.change_curve.chosen == output.recipe["change"]
    assert output.recipe["auto"]["chosen"] == output.change and output.best
    drawn = EditOutcome.model_validate(bench.succeeded(several)).outputs
    assert [(o.strength, o.seed) for o in drawn] == [(0.2, 1), (0.2, 2), (0.8, 1), (0.8, 2)]
    assert len({bench.storage.get(o.image_key) for o in drawn}) == 4


def test_masks_are_read_by_the_one_rule(bench: Bench, workers: Workers, tmp_path: Path) -> None:
    def mask(name: str, size: tuple[int, int], inside: int) -> str:
        image = Image.new("L", size)
        image.paste(inside, (0, 0, size[0] // 2, size[1]))
        image.save(tmp_path / name)
        return bench.image(tmp_path / name)

    workers.start().ready()
    labels = bench.edit(mask=mask("labels.png", (64, 64), 1))
    asked = {
        "aspect": bench.edit(mask=mask("aspect.png", (96, 64), 255)),
        "empty": bench.edit(mask=mask("empty.png", (64, 64), 0)),
    }
    outcome = EditOutcome.model_validate(bench.succeeded(labels))
    assert outcome.warnings == [
        "The mask holds labels 0 and 1, which are read as outside and inside."
    ]
    shown = picture(bench, outcome.mask_key).convert("L")
    assert shown.getpixel((8, 64)) == 255 and shown.getpixel((120, 64)) == 0
    for job_id in asked.values():
        record = bench.finished(job_id)
        assert record.error is not None
        assert (record.error.type, record.error.field) == ("input-error", "mask")


@pytest.mark.parametrize("form", ["own", "diffusers"])
def test_a_concept_goes_out_and_comes_in_again(
    form: str, bench: Bench, workers: Workers, tmp_path: Path
) -> None:
    import torch

    from customedit.concepts.concept import Concept
    from customedit.concepts.files.diffusers import save_diffusers
    from customedit.diffusion.base import Base

    base = Base.load()
    layer = base.layers[0]
    own = {layer: base.weights[f"{layer}.to_k.weight"] * 1.5}
    made = Concept({"<old>": torch.ones(base.width)}, own, own, base=base.concept_fingerprint)
    if form == "own":
        path = tmp_path / "own.safetensors"
        made.save(path)
        data = path.read_bytes()
    else:
        import zipfile

        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            for path in save_diffusers(made, tmp_path / "out", layers=base.layers):
                archive.write(path, f"folder/{path.name}")
        data = stream.getvalue()
    concept = ConceptRecord(
        id=ids.new("con"), tenant=bench.tenant, job=ids.new("job"), token="<new>", created_at=0
    )
    given = object_keys.given(bench.tenant, concept.job)
    bench.storage.put(given, data)
    request = {"file": given, "bytes": len(data), "token": "<new>", "noun": "cup"}
    job_id = bench.submit("import", request, concept)
    workers.start().ready()
    outcome = ConceptOutcome.model_validate(bench.succeeded(job_id))
    assert (outcome.token, outcome.noun, outcome.base) == ("<new>", "cup", base.concept_fingerprint)
    (tmp_path / "back").write_bytes(bench.storage.get(outcome.weights_key))
    back = Concept.load(tmp_path / "back")
    assert torch.equal(back.keys[layer], made.keys[layer])
    assert torch.equal(back.tokens["<new>"].flatten(), made.tokens["<old>"])
    until(lambda: not bench.storage.exists(given), "the file that was given gone")


def test_a_lora_is_imported_and_edited_with(bench: Bench, workers: Workers, tmp_path: Path) -> None:
    """Adapters alone: its token takes no column, and the exported files are a LoRA again."""
    import zipfile

    import torch
    from safetensors.torch import save_file

    from customedit.concepts.concept import Concept

    name = "lora_unet_mid_block_resnets_0_conv1"
    save_file(
        {
            f"{name}.lora_down.weight": torch.randn(4, 192, 3, 3) * 0.1,
            f"{name}.lora_up.weight": torch.randn(192, 4, 1, 1) * 0.1,
        },
        tmp_path / "lora",
    )
    data = (tmp_path / "lora").read_bytes()
    concept = ConceptRecord(
        id=ids.new("con"), tenant=bench.tenant, job=ids.new("job"), token="<soft>", created_at=0
    )
    given = object_keys.given(bench.tenant, concept.job)
    bench.storage.put(given, data)
    request = {"file": given, "bytes": len(data), "token": "<soft>"}
    job_id = bench.submit("import", request, concept)
    workers.start().ready()
    outcome = ConceptOutcome.model_validate(bench.succeeded(job_id))
    told = outcome.recipe["imported"]
    assert (told["kind"], told["layers_used"], told["layers"]) == ("LoCon (kohya)", 1, 1)
    assert told["effect"] > 1e-4
    (tmp_path / "back").write_bytes(bench.storage.get(outcome.weights_key))
    back = Concept.load(tmp_path / "back")
    assert list(back.adapters) == ["unet.mid_block.resnets.0.conv1"] and list(back.tokens) == [
        "<soft>"
    ]
    assert outcome.diffusers_key is not None
    with zipfile.ZipFile(io.BytesIO(bench.storage.get(outcome.diffusers_key))) as archive:
        assert archive.namelist() == ["pytorch_lora_weights.safetensors"]
    prompts = {"source_prompt": "a cup", "target_prompt": "a <soft> cup"}
    use = {"concepts": [{"id": concept.id, "weight": 1.0}]}
    edited = EditOutcome.model_validate(bench.succeeded(bench.edit(**prompts, **use)))
    assert edited.outputs


def test_a_file_that_is_no_concept_fails_in_words(bench: Bench, workers: Workers) -> None:
    """Without telling where the worker keeps it."""
    concept = ConceptRecord(
        id=ids.new("con"), tenant=bench.tenant, job=ids.new("job"), token="<x>", created_at=0
    )
    given = object_keys.given(bench.tenant, concept.job)
    bench.storage.put(given, b"<!DOCTYPE html><html>please sign in</html>")
    job_id = bench.submit("import", {"file": given, "bytes": 9, "name": "Tea pot"}, concept)
    workers.start().ready()
    job = bench.finished(job_id)
    assert job.state == "failed" and job.error is not None
    assert job.error.field == "file"
    assert job.error.detail.startswith("tea-pot is an HTML page, which a site gave")
    assert "/" not in job.error.detail.split(";")[0]


def test_a_file_that_came_over_rest_is_found_by_the_worker(
    bench: Bench, workers: Workers, tmp_path: Path
) -> None:
    import torch
    from starlette.testclient import TestClient

    from api.app import create_app
    from customedit.concepts.concept import Concept
    from customedit.diffusion.base import Base
    from customedit.tenants.access import ApiKeys

    base = Base.load()
    own = {name: base.weights[f"{name}.to_k.weight"] for name in base.layers[:1]}
    path = tmp_path / "own.safetensors"
    Concept({"<old>": torch.ones(base.width)}, own, own, base=base.concept_fingerprint).save(path)
    _, key = ApiKeys(bench.jobs.client, bench.settings).create(bench.tenant)
    with TestClient(create_app(bench.settings)) as client, path.open("rb") as file:
        answer = client.post(
            "/v1/concepts/import",
            headers={"Authorization": f"Bearer {key}"},
            files={"file": file},
            data={"token": "<new>", "noun": "cup"},
        )
    assert answer.status_code == 202, answer.text
    workers.start().ready()
    outcome = ConceptOutcome.model_validate(bench.succeeded(answer.json()["id"]))
    assert outcome.token == "<new>" and bench.storage.exists(outcome.weights_key)
    given = object_keys.given(bench.tenant, answer.json()["id"])
    until(lambda: not bench.storage.exists(given), "the file that was given gone")
