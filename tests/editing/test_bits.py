"""The library's results in float32 on a processor, bit by bit.

``bits.json`` has for each case a few numbers, which every processor must give nearly, and per kind
of processor (torch's version and instruction set) a digest of all bits, which that kind must give
exactly. A change of the method changes both; record them again, and say so in CHANGELOG.md:

    CUSTOMEDIT_RECORD_BITS=1 python -m pytest tests/editing/test_bits.py -k record

What experiments keep of edits and trainings is then no longer what they would make: ``PINNED``.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from customedit.concepts.concept import Concept
from customedit.concepts.prompts import ConceptPrompts
from customedit.concepts.settings import TrainingSettings
from customedit.concepts.training import train_concept
from customedit.diffusion.base import Base
from customedit.diffusion.concept_regions import ConceptRegion
from customedit.diffusion.engine import run
from customedit.diffusion.text import Weighted
from customedit.editing.edit import EditResult
from customedit.editing.editor import Editor, Session
from customedit.editing.inversion import invert
from customedit.experiments.lookbench.editor import EDITS
from customedit.experiments.result_cache import ROWS, TRAININGS
from customedit.mini import samples
from customedit.schemas.methods import P2POptions

pytestmark = pytest.mark.usefixtures("one_thread")

FILE: Final = Path(__file__).with_name("bits.json")
PROCESSOR: Final = f"torch {torch.__version__} {torch.backends.cpu.get_cpu_capability()}"
SAMPLES: Final = 16
NEAR: Final = 2e-3
"""Most that processors differ in a number of a few steps; that a setting changes is far more."""

LOOK = samples.looks()[0]
EXPERT = P2POptions(
    reweight={"patterned": 2.0}, words={"patterned": (0.0, 0.2)}, blend_over="union",
    blend_words=["cup"], subtract=["table"], blend_target_words=["cup"],
)  # fmt: skip


@pytest.fixture(scope="module")
def learn(base: Base) -> Callable[[Any], Concept]:
    references = [Image.open(p).convert("RGB") for p in LOOK.images[:2]]
    prompts = ConceptPrompts(LOOK.token, LOOK.noun, LOOK.attribute)
    concepts: dict[str, Concept] = {}

    def train(way: Any) -> Concept:
        if way not in concepts:
            images = 2 if way == "custom-diffusion" else 0
            settings = TrainingSettings.of(
                base, way=way, steps=4, class_images=images, class_steps=2, crops=2
            )
            concepts[way] = run(base, train_concept(base, references, prompts, settings))
        return concepts[way]

    return train


def trained(concept: Concept) -> Tensor:
    tensors = {**concept.tokens, **concept.weights}
    return torch.cat([tensors[name].flatten() for name in sorted(tensors)])


def edited(session: Session, source: samples.Source, **options: Any) -> Tensor:
    common = {"steps": 5, "strength": 0.4, "preserve": False} | options
    return session.edit(source.target_prompt(LOOK), **common).drawing.latents


def shown(result: EditResult) -> Tensor:
    """The mean level of each of 4 x 4 parts of the picture, in [0, 1]: of every pixel, pasted."""
    pixels = torch.from_numpy(np.asarray(result.image).astype(np.float64)).permute(2, 0, 1)
    return F.adaptive_avg_pool2d(pixels[None], 4).mean(1).float() / 255


@pytest.fixture(scope="module")
def cases(
    base: Base, source: samples.Source, picture: Image.Image, learn: Callable[[Any], Concept]
) -> dict[str, Callable[[], Tensor]]:
    session = Editor(base).open(picture, source.prompt)
    unsaid = Editor(base).open(picture)
    latents = base.encode(picture)
    box = torch.zeros(128, 128)
    box[30:90, 20:100] = 1

    def inverted(kind: Any) -> Tensor:
        method = invert(base, latents, source.prompt, kind=kind, steps=5, guidance=base.guidance)
        inversion = run(base, method)
        return inversion.trajectory if inversion.nulls is None else inversion.nulls

    def p2p(**options: Any) -> Tensor:
        return edited(session, source, concepts=[learn("custom-diffusion")], **options)

    def pasted(target: str, **options: Any) -> EditResult:
        return session.edit(target, steps=5, **options)

    def outlined() -> Tensor:
        result = pasted(source.colour_prompt)
        assert result.plan.outline and result.plan.preserve
        return shown(result)

    def placed() -> Tensor:
        region = ConceptRegion(box=(0.1, 0.2, 0.77, 0.7))
        concepts = [Weighted(learn("custom-diffusion"), region=region)]
        return shown(pasted(source.target_prompt(LOOK), concepts=concepts))

    return {
        "custom-diffusion": lambda: trained(learn("custom-diffusion")),
        "textual-inversion": lambda: trained(learn("textual-inversion")),
        "inversion": lambda: inverted("direct"),
        "null-text": lambda: inverted("null-text"),
        **{
            f"p2p {kind}": lambda kind=kind: p2p(inversion=kind)  # type: ignore[misc]  # bound now
            for kind in ("direct", "ddim", "negative-prompt", "null-text")
        },
        "p2p expert": lambda: edited(
            session, source, concepts=[Weighted(learn("custom-diffusion"), 0.7)], p2p=EXPERT
        ),
        "p2p mask": lambda: p2p(mask=box),
        "p2p change": lambda: p2p(strength=None, change=0.3),
        "sdedit": lambda: edited(
            unsaid, source, concepts=[learn("textual-inversion")], method="sdedit", strength=0.6,
            seed=3,
        ),
        "sdedit everywhere": lambda: edited(
            unsaid, source, concepts=[learn("custom-diffusion")], method="sdedit", strength=0.6,
            seed=3, everywhere=True,
        ),
        "sdedit words": lambda: p2p(method="sdedit", strength=0.6, seed=3),
        "picture outlined": outlined,
        "picture masked": lambda: shown(pasted(source.colour_prompt, mask=box)),
        "picture concept's box": placed,
    }  # fmt: skip


NAMES: Final = (
    "custom-diffusion", "textual-inversion", "inversion", "null-text", "p2p direct", "p2p ddim",
    "p2p negative-prompt", "p2p null-text", "p2p expert", "p2p mask", "p2p change", "sdedit",
    "sdedit everywhere", "sdedit words", "picture outlined", "picture masked",
    "picture concept's box",
)  # fmt: skip

PINNED: Final = {
    "edits": ((3, 3), "908daa507696d903"),
    "trainings": ((1,), "42782b46fbf8ee71"),
}
"""Versions of what experiments keep, and a digest of what is recorded for edits and trainings.

Raise the versions with the digests, so that pictures, concepts and rows of before are not taken for
today's; not where only the bundled base has changed, of which all that is kept names the weights.
"""


def some(values: Tensor) -> list[float]:
    """Numbers that are spread over ``values``."""
    flat = values.detach().flatten()
    step = max(1, len(flat) // SAMPLES)
    return [round(float(x), 6) for x in flat[::step][:SAMPLES]]


def digest(values: Tensor) -> str:
    return hashlib.sha256(values.detach().float().contiguous().numpy().tobytes()).hexdigest()


@pytest.mark.parametrize("name", NAMES)
def test_results_are_what_they_were(name: str, cases: dict[str, Callable[[], Tensor]]) -> None:
    recorded = json.loads(FILE.read_text())[name]
    values = cases[name]()
    assert some(values) == pytest.approx(recorded["some"], abs=NEAR)
    if PROCESSOR in recorded["digests"]:  # of another kind nobody has recorded the bits
        assert digest(values) == recorded["digests"][PROCESSOR]


def test_what_is_kept_of_other_edits_and_trainings_is_not_taken_for_today_s() -> None:
    recorded = json.loads(FILE.read_text())

    def of(names: Sequence[str]) -> str:
        numbers = json.dumps([recorded[name]["some"] for name in names])
        return hashlib.sha256(numbers.encode()).hexdigest()[:16]

    found = {
        "edits": ((EDITS, ROWS), of([n for n in NAMES if n.startswith(("p2p", "sd", "picture"))])),
        "trainings": ((TRAININGS,), of(("custom-diffusion", "textual-inversion"))),
    }
    assert found == PINNED


@pytest.mark.skipif("CUSTOMEDIT_RECORD_BITS" not in os.environ, reason="records, tests nothing")
def test_record(cases: dict[str, Callable[[], Tensor]]) -> None:
    assert set(NAMES) == set(cases)
    old = json.loads(FILE.read_text()) if FILE.exists() else {}
    recorded = {}
    for name, case in cases.items():
        values = case()
        numbers, kept = some(values), old.get(name, {"some": None, "digests": {}})
        bits = digest(values)
        # what changed here changed on other kinds of processor as well, be it by little
        same = (
            kept["some"] is not None
            and numbers == pytest.approx(kept["some"], abs=NEAR)
            and kept["digests"].get(PROCESSOR, bits) == bits
        )
        recorded[name] = {
            "some": kept["some"] if same else numbers,
            "digests": (kept["digests"] if same else {}) | {PROCESSOR: bits},
        }
    FILE.write_text(json.dumps(recorded, indent=1) + "\n")
