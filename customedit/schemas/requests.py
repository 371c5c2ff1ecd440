"""What can be asked for, as clients send it, as the journal keeps it and as workers read it.

Names, limits and defaults are the library's (``TrainingSettings``, ``EditSettings``,
``P2PSettings``); None takes the library's default. Nothing here imports torch, so that the front
end can refuse bad requests without it; tests hold the two against each other.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AnyHttpUrl, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from customedit.schemas import ids

TOKEN: Final = r"^<[a-z0-9][a-z0-9_-]{0,62}>$"
_IN_PROMPT: Final = re.compile(r"<[a-z0-9][a-z0-9_-]{0,62}>")

ImageId = Annotated[str, StringConstraints(pattern=ids.IMAGE)]
ConceptId = Annotated[str, StringConstraints(pattern=ids.CONCEPT)]
Prompt = Annotated[str, StringConstraints(strip_whitespace=True, max_length=1000)]
Words = Annotated[str, StringConstraints(pattern=r"^[^\W_][\w' -]*$", max_length=100)]
Token = Annotated[str, StringConstraints(pattern=TOKEN)]
Share = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**53)]
_SAID: Final[dict[str, Any]] = {"pattern": r"\S"}


class Asked(BaseModel):
    """Base of all requests: unknown fields are refused, numbers are finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TrainingOptions(Asked):
    """How a concept is trained; None takes the default for the base."""

    way: Literal["custom-diffusion", "textual-inversion"] = "custom-diffusion"
    steps: Annotated[int, Field(ge=1, le=20_000)] | None = None
    rate: Annotated[float, Field(gt=0, le=1)] | None = None
    batch: Annotated[int, Field(ge=1, le=32)] | None = None
    class_images: Annotated[int, Field(ge=0, le=1000)] | None = None
    class_steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    prior_weight: Annotated[float, Field(ge=0, le=100)] | None = None
    crops: Annotated[int, Field(ge=1, le=1000)] | None = None
    augment_crops: bool | None = None
    checkpoint_every: Annotated[int, Field(ge=1, le=20_000)] | None = None
    preview_every: Annotated[int, Field(ge=0, le=20_000)] | None = None
    seed: Seed = 0


class CustomizeRequest(Asked):
    """Learn a concept from 1 to 20 reference images (3 to 6 are best)."""

    references: Annotated[list[ImageId], Field(min_length=1, max_length=20)]
    noun: Words
    attribute: Words | Literal[""] = "patterned"
    token: Token = "<look>"
    name: Annotated[str, StringConstraints(strip_whitespace=True, max_length=200)] = ""
    training: TrainingOptions = TrainingOptions()
    webhook: AnyHttpUrl | None = None


class ImportRequest(Asked):
    """Make a concept of a file: own safetensors, diffusers or adobe. The file was uploaded."""

    file: Annotated[str, StringConstraints(max_length=200)]
    bytes: Annotated[int, Field(ge=1)]
    noun: Words | Literal[""] = ""
    attribute: Words | Literal[""] = ""
    token: Token | None = None
    name: Annotated[str, StringConstraints(strip_whitespace=True, max_length=200)] = ""
    webhook: AnyHttpUrl | None = None


class ConceptUse(Asked):
    """A concept that the target prompt names, and how strongly it acts."""

    id: ConceptId
    weight: Annotated[float, Field(ge=0, le=2)] = 1.0


class P2POptions(Asked):
    """The expert settings of Prompt-to-Prompt; the strength stands in the edit."""

    way: Literal["refine", "replace"] = "refine"
    cross_steps: Share | None = None
    self_steps: Share | None = None
    words: dict[str, tuple[Share, Share]] = Field(default_factory=dict, max_length=40)
    reweight: dict[str, Annotated[float, Field(ge=-10, le=10)]] = Field(
        default_factory=dict, max_length=40
    )
    blend_over: Literal["source", "union", "mask", "none"] | None = None
    blend_words: Annotated[list[str], Field(max_length=40)] = []
    blend_target_words: Annotated[list[str], Field(max_length=40)] | None = None
    subtract: Annotated[list[str], Field(max_length=40)] = []
    threshold: Share | None = None
    blend_start: Share | None = None


def _edit_rules() -> dict[str, Any]:
    """What ``EditRequest`` checks over several fields, as far as a schema can say it."""
    p2p = {"properties": {"method": {"const": "p2p"}}}  # also when it is left out
    rules = [_if(p2p, _with("source_prompt", _SAID))]
    by_mask = {"type": "object"} | _with("blend_over", {"const": "mask"})
    rules += [_if(_with("p2p", by_mask), _with("mask", {"type": "string"}))]
    for strengths, seeds in ((2, 8), (3, 5), (4, 4), (5, 3), (6, 2), (9, 1)):
        many = _with("strengths", {"type": "array", "minItems": strengths})
        rules += [_if(many, {"properties": {"seeds": {"maxItems": seeds}}})]
    return {"allOf": rules}


def _if(condition: dict[str, Any], then: dict[str, Any]) -> dict[str, Any]:
    return {"if": condition, "then": then}


def _with(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of an object whose field ``name`` is there and meets ``schema``."""
    return {"required": [name], "properties": {name: schema}}


class EditRequest(Asked):
    """Edit a picture by prompt, at one or several strengths and seeds."""

    model_config = ConfigDict(json_schema_extra=_edit_rules())

    image: ImageId
    source_prompt: Prompt = ""
    target_prompt: Annotated[Prompt, Field(min_length=1, json_schema_extra=_SAID)]
    concepts: Annotated[
        list[ConceptUse], Field(max_length=8, json_schema_extra={"uniqueItems": True})
    ] = []
    method: Literal["p2p", "sdedit"] = "p2p"
    strengths: Annotated[list[Share], Field(min_length=1, max_length=9)] | None = None
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=9)] = [0]
    steps: Annotated[int, Field(ge=1, le=200)] = 50
    guidance: Annotated[float, Field(ge=0, le=50)] | None = None
    inversion: Literal["direct", "null-text", "negative-prompt", "ddim"] = "direct"
    p2p: P2POptions | None = None
    mask: ImageId | None = None
    preserve: bool = False
    feather: Annotated[float, Field(ge=0, le=256)] = 8.0
    maps: bool = False
    everywhere: bool = False
    references: Annotated[list[ImageId], Field(max_length=20)] = []
    webhook: AnyHttpUrl | None = None

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        if self.method == "p2p" and not self.source_prompt:
            raise ValueError("source_prompt: is empty; p2p needs the picture in words")
        if self.p2p is not None and self.p2p.blend_over == "mask" and self.mask is None:
            raise ValueError("mask: is missing; blend_over mask needs one")
        if len(self.strengths or [0]) * len(self.seeds) > 16:
            raise ValueError("strengths: with seeds make more than 16 edits; ask in two jobs")
        if len({c.id for c in self.concepts}) < len(self.concepts):
            raise ValueError("concepts: one is named twice; give each once")
        return self

    @property
    def tokens(self) -> list[str]:
        """The concept tokens that the target prompt names, in order."""
        return _IN_PROMPT.findall(self.target_prompt)


JobRequest = CustomizeRequest | ImportRequest | EditRequest

KINDS: Final[dict[str, type[Asked]]] = {
    "customize": CustomizeRequest,
    "import": ImportRequest,
    "edit": EditRequest,
}


def of_kind(kind: str, document: dict[str, Any]) -> Any:
    """``document`` as the request of a job of ``kind``."""
    return KINDS[kind].model_validate(document)
