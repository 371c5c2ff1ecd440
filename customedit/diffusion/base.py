"""The base: one frozen latent diffusion model, driven by per-row keys, values and control."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from customedit import images, pixels
from customedit.diffusion import autoencoder, fingerprint, loading
from customedit.diffusion.attention_control import AttentionControl
from customedit.diffusion.devices import CpuCopy, device_of
from customedit.diffusion.facts import check_concept_base
from customedit.diffusion.families.family import Family
from customedit.diffusion.folder import locate
from customedit.diffusion.kept_features import RowFeatures
from customedit.diffusion.profile import Profile, Sizes, by_architecture
from customedit.diffusion.readings import read_by_region
from customedit.diffusion.schedule import Schedule, Time
from customedit.diffusion.text import (
    Encoded,
    PromptRow,
    TextContext,
    Tokens,
    Weighted,
    check_text_finite,
)
from customedit.errors import NumericalError


@dataclass(frozen=True)
class Prediction:
    """What a denoising request gets back.

    noise: [rows, C, h, w] in ``Schedule.dtype``, nearly always float32, what ``Schedule.noise``
    makes of the denoiser's output (a velocity in flow matching); maps: [recording rows, h', w',
    tokens] cross-attention, mean over heads and layers, None if no row records.
    """

    noise: Tensor
    maps: Tensor | None = None


@dataclass(frozen=True)
class Decoding:
    """Pictures that are being decoded. latents: they are of these; decoded: their pixels."""

    base: Base
    latents: CpuCopy
    decoded: CpuCopy

    def pictures(self) -> list[Image.Image]:
        """The pictures; waits for them. Raises NumericalError as ``Base.decode`` does."""
        self.base.check_finite("the result's latents", self.latents.read())
        decoded = self.decoded.read()
        self.base.check_finite("the autoencoder's pixels", decoded)
        return [pixels.to_image(p) for p in decoded]


@dataclass
class Base:
    """A text-to-image model of a known family, frozen. Make it with ``Base.load``.

    family: what is particular to its kind; name: for people; device, dtype: of denoiser and text
    encoders; profile: defaults and facts of this base; folder: where it was loaded from, None if it
    was not.

    Read from the parts (``read_weights``): fingerprint: of all weights; inversions, checkpoints and
    recipes are of it. concept_fingerprint: of what a concept stands on. Both are the same in every
    dtype (``diffusion.fingerprint``).
    """

    family: Family
    name: str
    device: torch.device
    dtype: torch.dtype
    profile: Profile = field(default_factory=Profile)
    folder: Path | None = None
    fingerprint: str = ""
    concept_fingerprint: str = ""
    _sampled: str = ""

    @classmethod
    def load(
        cls,
        name: str | Path | None = None,
        *,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        local: bool = False,
    ) -> Base:
        """Load a diffusers folder, single file or hub name; None or "mini" for the bundled base.

        local: never ask a hub. Raises InputError for files that are missing, incomplete or damaged,
        a model of no known family, and a device that is not available or has too little
        memory.
        """
        device_of(device)
        path, known_as = locate(name, local=local)
        folder: Path | None = path
        if path.is_file():
            from customedit.diffusion.single_files.load import (  # late: folders do without
                configurations_beside,
                load_single_file,
            )

            pipeline = load_single_file(path, known_as)
            folder = configurations_beside(path)
        else:
            pipeline = loading.load_pipeline(path, known_as)
        profile = None if folder is None else Profile.read(folder)
        base = cls.wrap(pipeline, known_as, device=device, dtype=dtype, profile=profile)
        base.folder = folder
        return base

    @classmethod
    def wrap(
        cls,
        pipeline: Any,
        name: str,
        *,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        profile: Profile | None = None,
    ) -> Base:
        """Drive the parts of ``pipeline``, which becomes frozen and takes our processors.

        profile: by architecture if left out. Raises InputError as ``load`` does.
        """
        family = loading.family_of_pipeline(pipeline, name)
        loading.check(family, name, dtype)
        profile = profile or by_architecture(family.denoiser.config)
        base = cls(family, name, device_of(device), dtype, profile)
        Sizes.of(family.denoiser.config, pipeline.vae.config, profile=profile)
        base.read_weights()
        loading.place(family, name, base.device, dtype)
        family.weights = {n: weight.to(base.device) for n, weight in family.weights.items()}
        family.install()
        return base

    def read_weights(self) -> None:
        """Take what concepts change, and the digests, from the parts as they are now."""
        family, layout = self.family, self.family.layout
        family.read_weights()
        self.fingerprint = fingerprint.whole(self.pipeline, layout)
        self.concept_fingerprint = fingerprint.for_concepts(
            self.pipeline, layout, self.layers, family.concept_weights()
        )
        self._sampled = fingerprint.sampled(self.layers, self.weights)

    def check_concept_base(self, named: str) -> None:
        """Check the base that a concept's file names, "" for none.

        Files of earlier versions name a digest of fewer weights, which is recognised.

        Raises:
            InputError: if it is another base.
        """
        check_concept_base(named, self.concept_fingerprints, self.name)

    @property
    def concept_fingerprints(self) -> tuple[str, ...]:
        """What concepts of this base name: today's digest, and that of earlier versions."""
        return self.concept_fingerprint, self._sampled

    # what the parts are

    @property
    def pipeline(self) -> Any:
        """The pipeline of diffusers whose parts are driven."""
        return self.family.pipeline

    @property
    def denoiser(self) -> Any:
        """The UNet or transformer."""
        return self.family.denoiser

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the first text encoder, by whose columns prompts are compared."""
        return self.family.encoders[0].tokenizer

    @cached_property
    def schedule(self) -> Schedule:
        """The noise schedule of the base's scheduler."""
        return self.family.schedule()

    @property
    def layers(self) -> tuple[str, ...]:
        """Paths of the layers that read text, in the denoiser's own order."""
        return self.family.layers

    @property
    def self_layers(self) -> tuple[str, ...]:
        """Paths of the self-attention layers, in the order in which they run."""
        return self.family.self_layers

    @property
    def decoder_blocks(self) -> tuple[Any, ...]:
        """What ``AttentionControl.feature_block`` numbers (``Family.decoder_blocks``)."""
        return self.family.decoder_blocks

    @property
    def weights(self) -> dict[str, Tensor]:
        """What concepts change as whole weights (``Family.weights``)."""
        return self.family.weights

    @property
    def width(self) -> int:
        """Of a concept token's embedding."""
        return self.family.width

    @property
    def channels(self) -> int:
        """Of the latents."""
        return self.family.channels

    @property
    def length(self) -> int:
        """Tokens in a row of text, start, end and padding included."""
        return int(self.tokenizer.model_max_length)

    # pictures

    @cached_property
    def sizes(self) -> Sizes:
        """The sizes of pictures that the base works on."""
        return Sizes.of(self.denoiser.config, self.pipeline.vae.config, profile=self.profile)

    @property
    def factor(self) -> int:
        """Pixels a side per latent cell."""
        return self.sizes.factor

    @property
    def multiple(self) -> int:
        """Sides of pictures are multiples of this, so that the denoiser divides them evenly."""
        return self.sizes.multiple

    @property
    def side(self) -> int:
        """The side of the square pictures that the base was made for, in pixels."""
        return self.sizes.side

    @property
    def guidance(self) -> float:
        """The weight of classifier-free guidance that edits take by default."""
        return self.profile.guidance

    @property
    def clip(self) -> Path | None:
        """The folder of the CLIP that knows this base's pictures, None if there is none."""
        if self.folder is None or not self.profile.clip:
            return None
        return self.folder / self.profile.clip

    @cached_property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Of the key and value weights of each cross-attention layer, (inner, width)."""
        end = ".to_k.weight"
        weights = ((n, w.shape) for n, w in self.weights.items() if n.endswith(end))
        by_layer = {n.removesuffix(end): shape for n, shape in weights}
        return {name: (int(size[0]), int(size[1])) for name, size in by_layer.items()}

    def size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) at which a picture of these sides is worked on."""
        return images.fit((width, height), self.multiple, self.side**2)

    def encode(self, image: Image.Image) -> Tensor:
        """``image`` at its working size as latents, float32 [1, C, h, w]."""
        return self.encode_pixels(self.working_pixels(image))

    def working_pixels(self, image: Image.Image) -> Tensor:
        """``image`` at its working size, float32 [1, 3, H, W] in [-1, 1] on the CPU."""
        return pixels.to_tensor(image, self.size(*image.size))

    def encode_pixels(self, batch: Tensor) -> Tensor:
        """[n, 3, H, W] in [-1, 1] as latents, float32 [n, C, h, w]; the mean, not a draw."""
        return autoencoder.encode(self.pipeline.vae, batch, self.device)

    def check_finite(self, what: str, *tensors: Tensor) -> None:
        """Raise NumericalError, naming ``what``, unless all numbers of the tensors are finite."""
        if not all(bool(tensor.isfinite().all()) for tensor in tensors):
            raise NumericalError(
                f"{what} are not finite (base {self.name} in {self.dtype}); use a smaller "
                "guidance or concept weight, or a wider dtype (float32, bfloat16)"
            )

    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Latents [n, C, h, w] as pictures.

        Raises NumericalError for latents or pixels that are not finite, which would be black.
        """
        return self.decoding(latents).pictures()

    def decoding(self, latents: Tensor) -> Decoding:
        """``decode`` begun: a GPU has it to do, and nothing waits for it yet."""
        decoded = autoencoder.decode(self.pipeline.vae, latents, self.device)
        return Decoding(self, CpuCopy(latents), CpuCopy(decoded))

    # words

    def tokens(self, prompt: str, known: Collection[str] = (), field: str = "prompt") -> Tokens:
        """``prompt`` in tokens, where it may name the concept tokens ``known``.

        A mapping of tokens to their embeddings says how many columns each takes, else it is one.
        """
        return self.family.tokenize(prompt, known, field)

    def states(
        self, tokens: Tokens, vectors: Mapping[str, Tensor], adapted: Sequence[Weighted] = ()
    ) -> Tensor:
        """[length, state width] of the text encoders; differentiable in vectors and adapters."""
        return self.family.encode([PromptRow(tokens, vectors, adapted)])[0].states

    @torch.no_grad()
    def text(
        self,
        prompt: str,
        concepts: Sequence[Weighted] = (),
        field: str = "prompt",
        *,
        everywhere: bool = False,
        size: tuple[int, int] | None = None,
    ) -> TextContext:
        """What a row with ``prompt`` reads.

        Concepts act only if the prompt names a token of theirs; with ``everywhere`` in any case, as
        in a model whose weights were customised. size: (h, w) of the latents, for concepts that
        have regions. Raises InputError, naming ``field``, for unknown concept tokens, too many
        tokens and regions that the family cannot keep a concept to, NumericalError for concepts
        whose numbers are too large.
        """
        vectors = {t: v for entry in concepts for t, v in entry.concept.tokens.items()}
        tokens = self.tokens(prompt, vectors, field)
        named = set(tokens.named)
        acting = [c for c in concepts if everywhere or named & set(c.concept.tokens)]
        if any(entry.region is not None for entry in acting):
            if size is None or everywhere:
                raise ValueError("regions are of latents of a size, and contradict everywhere")
            for entry in acting:
                if entry.region is not None:
                    self.family.check_placed(entry.concept, entry.region.kind)
            return read_by_region(self.family, prompt, tokens, vectors, acting, size, self.dtype)
        (encoded,) = self.family.encode([PromptRow(tokens, vectors, acting)])
        context = self.family.row(prompt, encoded, acting, tokens)
        if acting:
            check_text_finite(context, acting, self.dtype)
        return context

    def unconditional(self, empty: TextContext, target: TextContext) -> TextContext:
        """``empty``, the unconditional text, as the row beside ``target`` reads it.

        Concepts act where they are named, so not on this row, except those whose adapters act while
        a row is predicted: these are trained and used as changes of the whole model, and guidance
        would multiply a change that only one of its two rows has.
        """
        if not target.adapted or empty.adapted:
            return empty
        if empty.tokens is None:  # states of no prompt
            return self.context(empty.states, empty.prompt, target.adapted, empty.pooled)
        return self.text(empty.prompt, target.adapted, everywhere=True)

    def context(
        self,
        states: Tensor,
        prompt: str = "",
        adapted: Sequence[Weighted] = (),
        pooled: Tensor | None = None,
    ) -> TextContext:
        """What a row reads that is given its states [length, width]; differentiable in them.

        adapted: concepts whose adapters, and changed keys and values, the row uses; pooled: where
        the family has one, None for that of the empty prompt.
        """
        return self.family.row(prompt, Encoded(states, pooled), adapted, None)

    # noise

    def predict(
        self,
        latents: Tensor,
        time: Tensor | Time,
        context: Sequence[TextContext],
        control: AttentionControl | None = None,
        features: Sequence[RowFeatures | None] = (),
    ) -> Prediction:
        """The noise in ``latents`` [rows, C, h, w] at ``time``, a number or [rows].

        context: one per row; features: as in ``Denoise``. Differentiable.
        """
        output, maps = self.output(latents, time, context, control, features)
        return Prediction(self.schedule.noise(output, latents.to(output.device), time), maps)

    def output(
        self,
        latents: Tensor,
        time: Tensor | Time,
        context: Sequence[TextContext],
        control: AttentionControl | None = None,
        features: Sequence[RowFeatures | None] = (),
    ) -> tuple[Tensor, Tensor | None]:
        """The denoiser's own output (noise, v, picture or velocity), float32, and the maps."""
        if len(context) != len(latents):
            raise ValueError(f"{len(latents)} rows of latents, {len(context)} of text")
        return self.family.output(latents, time, context, control, self.device, features)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """(rows, columns) of the recorded maps, for latents of ``height`` x ``width``."""
        return self.family.grid(height, width)
