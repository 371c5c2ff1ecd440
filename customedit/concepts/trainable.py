"""A concept under training: the tensors that are trained, and how its rows read their words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from customedit.concepts.prompts import ConceptPrompts
from customedit.concepts.settings import TrainingSettings
from customedit.diffusion.adapters import TEXT_ENCODER, UNET, Adapter, LowRank, layers_of
from customedit.diffusion.base import Base
from customedit.diffusion.text import (
    Columns,
    Customization,
    TextContext,
    Weighted,
    add_columns,
    own_columns,
)


@dataclass
class TrainableConcept:
    """A concept under training: its tensors are float32 leaves.

    tokens: embeddings; keys, values: whole weights by layer; factors: instead of them, changes of
    low rank by ``{layer}.to_k`` and ``{layer}.to_v``; adapters: of a LoRA, by path; columns: as
    in ``Concept``.
    """

    tokens: dict[str, Tensor]
    keys: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, Tensor] = field(default_factory=dict)
    factors: dict[str, LowRank] = field(default_factory=dict)
    adapters: dict[str, Adapter] = field(default_factory=dict)
    columns: Columns = "prompt"

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
        )
        rng = torch.Generator().manual_seed(settings.seed)
        if settings.way == "custom-diffusion":
            for layer in base.layers:
                for part, name in ((found.keys, "to_k"), (found.values, "to_v")):
                    weight = base.weights[f"{layer}.{name}.weight"]
                    if settings.rank:
                        change = untrained(weight, settings.rank, 1.0, rng)
                        found.factors[f"{layer}.{name}"] = change
                    else:
                        part[layer] = weight.clone().requires_grad_(True)
        if settings.way == "lora":
            for path, module in lora_modules(base, settings).items():
                found.adapters[path] = untrained(
                    module.weight, settings.rank, settings.lora_scale, rng
                )
        return found

    @property
    def leaves(self) -> dict[str, Tensor]:
        """Every leaf by a name of its own, in a fixed order."""
        return {
            **{f"token.{k}": v for k, v in self.tokens.items()},
            **{f"{k}.to_k": v for k, v in self.keys.items()},
            **{f"{k}.to_v": v for k, v in self.values.items()},
            **{
                f"{path}.{name}": factor
                for part in (self.factors, self.adapters)
                for path, adapter in part.items()
                for name, factor in adapter.factors.items()
            },
        }

    def whole(self, base: Base, layer: str, part: str) -> Tensor:
        """The weight [inner, width] of ``{layer}.to_k`` or ``to_v``, with gradients."""
        kept = (self.keys if part == "to_k" else self.values).get(layer)
        if kept is not None:
            return kept
        weight = base.weights[f"{layer}.{part}.weight"]
        change = self.factors.get(f"{layer}.{part}")
        return weight if change is None else weight + change.delta()

    def snapshot(self, base: Base) -> TrainableConcept:
        """A copy that training does not change, with whole weights: a ``text.Customization``."""
        layers = [*self.keys, *(n[: -len(".to_k")] for n in self.factors if n.endswith(".to_k"))]

        def copied(tensor: Tensor) -> Tensor:
            return tensor.detach().clone()

        with torch.no_grad():
            return TrainableConcept(
                {k: copied(v) for k, v in self.tokens.items()},
                {n: copied(self.whole(base, n, "to_k")) for n in layers},
                {n: copied(self.whole(base, n, "to_v")) for n in layers},
                adapters={
                    path: type(a)(**{n: copied(f) for n, f in a.factors.items()}, scale=a.scale)
                    for path, a in self.adapters.items()
                },
                columns=self.columns,
            )


def untrained(weight: Tensor, rank: int, scale: float, rng: torch.Generator) -> LowRank:
    """Leaves of a change of ``weight`` [out, in] or with a kernel that is 0: LoRA's beginning.

    down is uniform as ``nn.Linear`` begins, up is 0 (arXiv 2106.09685, section 4.1). A layer with
    less than ``rank`` inputs or outputs gets no more factors than it can use.
    """
    out, inner = weight.shape[0], weight[0].numel()
    rank = min(rank, out, inner)
    down = torch.empty(rank, *weight.shape[1:])
    bound = inner**-0.5
    down.uniform_(-bound, bound, generator=rng)
    up = torch.zeros(out, rank, device=weight.device)
    return LowRank(
        up.requires_grad_(True), down.to(weight.device).requires_grad_(True), scale=scale
    )


def lora_modules(base: Base, settings: TrainingSettings) -> dict[str, nn.Module]:
    """The layers that a LoRA of these settings changes, by path."""
    chosen = settings.lora_layers or "attention"
    found: dict[str, nn.Module] = {}
    for path, module in layers_of(base.unet, UNET).items():
        attention = ".attn1." in path or ".attn2." in path
        if chosen == "all" or (attention if chosen == "attention" else ".attn2." in path):
            found[path] = module
    if settings.train_text_encoder:
        text = layers_of(base.pipeline.text_encoder, TEXT_ENCODER)
        found |= {path: module for path, module in text.items() if ".self_attn." in path}
    return found


def initial_vector(base: Base, prompts: ConceptPrompts, word: str | None) -> Tensor:
    """The embedding [width] that V* starts from, a copy.

    word: whose it is; None for the profile's rare word, or for the attribute (else the noun) where
    the base's vocabulary lacks it. Of a word of several tokens the first is used.
    """
    table = base.pipeline.text_encoder.get_input_embeddings().weight
    candidates = [word] if word else [base.profile.rare_word, prompts.attribute or prompts.noun]
    for candidate in candidates:
        ids = base.tokenizer(candidate, add_special_tokens=False).input_ids
        if len(ids) == 1 or candidate == candidates[-1]:
            return table[ids[0]].detach().float().clone()
    raise AssertionError("the last candidate always serves")


def encode_trained_prompt(base: Base, trained: TrainableConcept, prompt: str) -> TextContext:
    """What a row with ``prompt`` reads, with gradients into ``trained``.

    The start token's key and value are not trained through, as in Custom Diffusion's code: its
    state is the same in every prompt, so a change there would act on everything. A LoRA changes it
    all the same, as it does in use.
    """
    tokens = base.tokens(prompt, trained.tokens)
    own: Customization = trained
    if trained.adapters:
        adapted = (Weighted(own),)
        states = base.states(tokens, trained.tokens, adapted)
        return base.context(states, prompt, adapted, tokens)
    states = base.states(tokens, trained.tokens)
    columns = own_columns(own, tokens)

    def projected(part: str) -> tuple[Tensor, ...]:
        out = []
        rows = states.float()
        for layer in base.layers:
            weight = trained.whole(base, layer, part)
            if columns is None:
                found = rows @ weight.T
                found = torch.cat([found[:1].detach(), found[1:]])
            else:
                plain = base.weights[f"{layer}.{part}.weight"]
                found = rows @ plain.T
                if columns and weight is not plain:
                    found = add_columns(found, rows, columns, weight - plain)
            out.append(found.to(base.unet.dtype))
        return tuple(out)

    return TextContext(prompt, states, projected("to_k"), projected("to_v"))


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
