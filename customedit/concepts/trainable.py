"""A concept under training: the tensors that are trained, and how its rows read their words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import torch
from torch import Tensor, nn

from customedit.concepts.prompts import ConceptPrompts
from customedit.concepts.settings import TrainingSettings
from customedit.diffusion.adapters import Adapter, LowRank
from customedit.diffusion.base import Base
from customedit.diffusion.text import Columns, Encoded, PromptRow, TextContext, Weighted

KEPT_PROMPTS: Final = 64
"""Most prompts whose states a training keeps: 15 MB of Stable Diffusion 1.x, 41 MB of SDXL."""
_ATTENTION: Final = re.compile(r"\.attn\d?\.")


@dataclass
class TrainableConcept:
    """A concept under training: its tensors are float32 leaves.

    It can be used in prompts meanwhile, as a ``text.Customization``.

    tokens: embeddings; keys, values: whole weights by layer; adapters: changes of low rank, by
    path; columns: as in ``Concept``; whole_rows: whether the adapters are a LoRA's, which acts on
    all that a row computes, the text encoders included; kept: what the text encoders made of
    prompts in which nothing is trained, as those of class images are, which is the same at every
    step.
    """

    tokens: dict[str, Tensor]
    keys: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, Tensor] = field(default_factory=dict)
    adapters: dict[str, Adapter] = field(default_factory=dict)
    columns: Columns = "prompt"
    whole_rows: bool = False
    kept: dict[str, Encoded] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of_base(
        cls, base: Base, prompts: Sequence[ConceptPrompts], settings: TrainingSettings
    ) -> TrainableConcept:
        """From the base's own weights and, for each token, the embedding of a word."""
        found = cls(
            {
                p.token: initial_vector(base, p, settings.initial).requires_grad_(True)
                for p in prompts
            },
            columns=settings.columns,
            whole_rows=settings.way == "lora",
        )
        if settings.way == "custom-diffusion":
            changes = base.family.new_changes(settings.rank, settings.seed)
            found.keys, found.values = changes.keys, changes.values
            found.adapters = changes.adapters
        elif settings.way == "lora":
            generator = torch.Generator().manual_seed(settings.seed)
            found.adapters = {
                path: untrained(module.weight, settings.rank, settings.lora_scale, generator)
                for path, module in lora_layers(base, settings).items()
            }
        return found

    def snapshot(self) -> TrainableConcept:
        """A copy that training does not change."""

        def copied(part: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {k: v.detach().clone() for k, v in part.items()}

        adapters: dict[str, Adapter] = {}
        for path, adapter in self.adapters.items():
            factors: dict[str, Any] = copied(adapter.factors)
            adapters[path] = type(adapter)(**factors, scale=adapter.scale)
        return TrainableConcept(
            copied(self.tokens),
            copied(self.keys),
            copied(self.values),
            adapters,
            self.columns,
            self.whole_rows,
        )

    @property
    def leaves(self) -> dict[str, Tensor]:
        """Every leaf by a name of its own, in a fixed order."""
        return {
            **{f"token.{k}": v for k, v in self.tokens.items()},
            **{f"{k}.to_k": v for k, v in self.keys.items()},
            **{f"{k}.to_v": v for k, v in self.values.items()},
            **{
                f"adapter.{path}.{name}": factor
                for path, adapter in self.adapters.items()
                for name, factor in adapter.factors.items()
            },
        }


def untrained(weight: Tensor, rank: int, scale: float, generator: torch.Generator) -> LowRank:
    """Leaves of a change of ``weight`` [out, in] or with a kernel that is 0: LoRA's beginning.

    down is uniform as ``nn.Linear`` begins, up is 0 (arXiv 2106.09685, section 4.1). A layer with
    less than ``rank`` inputs or outputs gets no more factors than it can use.
    """
    out, inner = weight.shape[0], weight[0].numel()
    rank, bound = min(rank, out, inner), inner**-0.5
    down = torch.empty(rank, *weight.shape[1:]).uniform_(-bound, bound, generator=generator)
    up = torch.zeros(out, rank, device=weight.device)
    return LowRank(
        up.requires_grad_(True), down.to(weight.device).requires_grad_(True), scale=scale
    )


def lora_layers(base: Base, settings: TrainingSettings) -> dict[str, nn.Linear | nn.Conv2d]:
    """The layers that a LoRA of these settings changes, by path."""
    denoiser = f"{base.family.layout.denoiser}."
    reading = {f"{denoiser}{layer}" for layer in base.layers}  # modules, or layers themselves
    encoders = tuple(encoder.prefix for encoder in base.family.encoders)

    def chosen(path: str) -> bool:
        if path.startswith(encoders):
            return settings.train_text_encoder and ".self_attn." in path
        if settings.lora_layers == "cross-attention":
            return path in reading or path.rpartition(".to_")[0] in reading
        return settings.lora_layers == "all" or _ATTENTION.search(path) is not None

    return {path: layer for path, layer in base.family.adaptable.items() if chosen(path)}


def initial_vector(base: Base, prompts: ConceptPrompts, word: str | None) -> Tensor:
    """The embedding [width] that V* starts from, a copy.

    word: whose it is; None for the profile's rare word, or for the attribute (else the noun) where
    the base's vocabulary lacks it. Of a word of several tokens the first is used.
    """
    encoders = base.family.encoders
    candidates = [word] if word else [base.profile.rare_word, prompts.attribute or prompts.noun]
    for candidate in candidates:
        ids = [e.tokenizer(candidate, add_special_tokens=False).input_ids for e in encoders]
        if len(ids[0]) == 1 or candidate == candidates[-1]:
            tables = (encoder.model.get_input_embeddings().weight for encoder in encoders)
            first = [e.first_token(own) for e, own in zip(encoders, ids, strict=True)]
            rows = [table[token] for table, token in zip(tables, first, strict=True)]
            return torch.cat(rows).detach().float().clone()
    raise AssertionError("the last candidate always serves")


def trained_prompt(base: Base, trained: TrainableConcept, prompt: str) -> PromptRow:
    """``prompt`` for the text encoders, with gradients into ``trained``.

    A LoRA acts on every row, as it does in use on those of its edit.

    Raises InputError for tokens that ``trained`` does not have.
    """
    adapted = (Weighted(trained),) if trained.whole_rows else ()
    return PromptRow(base.tokens(prompt, trained.tokens), trained.tokens, adapted)


def is_trained(trained: TrainableConcept, prompt: str) -> bool:
    """Whether what the text encoders make of ``prompt`` changes as ``trained`` does."""
    return trained.whole_rows or any(token in prompt for token in trained.tokens)


@torch.no_grad()
def untrained_states(base: Base, trained: TrainableConcept, prompt: str) -> Encoded:
    """What the text encoders make of a ``prompt`` in which nothing is trained; made once.

    By itself, so that it has the same bits whatever is encoded beside it.
    """
    encoded = trained.kept.get(prompt)
    if encoded is None:
        row = trained_prompt(base, trained, prompt)
        encoded = replace(base.family.encode([row])[0], tokens=row.tokens)
        if len(trained.kept) < KEPT_PROMPTS:
            trained.kept[prompt] = encoded
    return encoded


def trained_text(
    base: Base, trained: TrainableConcept, prompt: str, row: PromptRow, encoded: Encoded
) -> TextContext:
    """What a row reads of ``prompt``, with gradients into ``trained``.

    row: of ``trained_prompt``; encoded: what the text encoders made of it.
    """
    if trained.whole_rows:
        return base.family.row(prompt, encoded, row.adapted, row.tokens)
    return base.family.trained_row(prompt, replace(encoded, tokens=row.tokens), trained)


class Averages:
    """Exponential moving averages of leaves; after n steps the decay is at most (1 + n)/(10 + n).

    So that the average is not held by where the training began.
    """

    def __init__(self, leaves: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.values = {name: leaf.detach().clone() for name, leaf in leaves.items()}

    @torch.no_grad()
    def update(self, leaves: Mapping[str, Tensor], done: int) -> None:
        """Take in ``leaves`` after ``done`` steps."""
        decay = min(self.decay, (1 + done) / (10 + done))
        for name, leaf in leaves.items():
            self.values[name].lerp_(leaf.detach(), 1 - decay)

    @torch.no_grad()
    def swap(self, leaves: Mapping[str, Tensor]) -> None:
        """Put the averages into the leaves, and the leaves here."""
        for name, leaf in leaves.items():
            held = leaf.detach().clone()
            leaf.copy_(self.values[name])
            self.values[name] = held
