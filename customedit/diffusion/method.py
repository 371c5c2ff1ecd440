"""What methods are: generators that ask for noise predictions and gradients, and what they get.

A method yields requests: ``Denoise`` (rows to predict the noise of), ``Learn`` (rows whose loss it
wants the gradients of), ``Turn`` (a step of other heavy work is done; let others have theirs) and
``Progress``. It is sent a ``Prediction`` for the first, ``Gradients`` for the second and None for
the others, and returns its result. It knows of no batching, queue or neighbour; cancelling,
deadlines and progress live at the yields. ``engine`` runs methods.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from PIL import Image
from torch import Tensor

from customedit.diffusion.attention_control import AttentionControl
from customedit.diffusion.base import Base, Prediction
from customedit.diffusion.devices import DeviceRows
from customedit.diffusion.kept_features import RowFeatures
from customedit.diffusion.schedule import Time
from customedit.diffusion.text import Encoded, PromptRow, TextContext

T = TypeVar("T")


@dataclass(frozen=True)
class Denoise:
    """Asks for the noise in ``latents`` [rows, C, h, w] at ``time``; one context per row.

    control: over the request's own rows; None changes nothing. names: of each row, None for a row
    like no other: rows of one job with equal names have equal latents and contexts, so that one of
    them suffices (``shared_rows``); empty for no names. shown: the row of what is drawn.
    parts: the requests that it was made of, with the places of their rows, which can be asked one
    by one where all together take too much memory. features: of each row None, or where its own are
    put, or, where ``control.kept`` says so, those that it takes instead of another row's; empty for
    no features.
    """

    latents: Tensor
    time: Time
    context: Sequence[TextContext]
    control: AttentionControl | None = None
    names: Sequence[Hashable] = ()
    shown: int = -1
    parts: Sequence[tuple[Denoise, Tensor]] = ()
    features: Sequence[RowFeatures | None] = ()

    @property
    def rows(self) -> int:
        """How many rows it asks for."""
        return len(self.latents)

    @property
    def features_of_rows(self) -> Sequence[RowFeatures | None]:
        """``features``, one entry per row."""
        return self.features or [None] * self.rows

    def part(
        self, answer: Prediction, part: Denoise, places: Tensor, rows: DeviceRows
    ) -> Prediction:
        """What of the ``answer`` to this request is for ``part``, whose rows are at ``places``.

        rows: the lists of rows that earlier steps moved to the device.
        """
        device = answer.noise.device
        noise = answer.noise[rows(places.tolist(), device)]
        if answer.maps is None or part.control is None or not part.control.record.any():
            return Prediction(noise)
        assert self.control is not None
        rank = self.control.record.cumsum(0) - 1
        recorded = rank[places[part.control.record]].tolist()
        return Prediction(noise, answer.maps[rows(recorded, device)])


@dataclass(frozen=True)
class Learn:
    """Asks for the gradients of a loss by one forward and backward, which trainings share.

    base: whose model it is; latents: [rows, C, h, w], noisy; times: [rows]; prompts: makes what the
    text encoders shall read, [] for nothing; context: takes those prompts and what the encoders
    made of them, and makes one text per row, with gradients into ``leaves``; loss: takes the
    model's output, float32 [rows, C, h, w], and gives a scalar and figures to be reported; leaves:
    no other training has them.

    The functions may be called again if a forward of several trainings fails: they change nothing.
    """

    base: Base
    latents: Tensor
    times: Tensor
    prompts: Callable[[], Sequence[PromptRow]]
    context: Callable[[Sequence[PromptRow], Sequence[Encoded]], Sequence[TextContext]]
    loss: Callable[[Tensor], tuple[Tensor, dict[str, Tensor]]]
    leaves: Sequence[Tensor]

    @property
    def rows(self) -> int:
        """How many rows it asks for."""
        return len(self.latents)


@dataclass(frozen=True)
class Gradients:
    """What a ``Learn`` gets back: the loss's gradient in each leaf, and the figures, on the device.

    Neither is looked at: a loss that is not finite has gradients that are not.
    """

    of: list[Tensor]
    figures: dict[str, Tensor]


@dataclass(frozen=True)
class Turn:
    """One step of work that cannot be shared is done."""


@dataclass(frozen=True)
class Progress:
    """How far a method is: ``step`` of ``steps`` in ``phase``; facts: figures such as a loss."""

    phase: str
    step: int
    steps: int
    facts: dict[str, float] = field(default_factory=dict)
    preview: Image.Image | None = None


Request: TypeAlias = Denoise | Learn | Turn | Progress
Answer: TypeAlias = Prediction | Gradients | None
Method: TypeAlias = Generator[Request, Answer, T]


def ask(request: Denoise) -> Generator[Request, Answer, Prediction]:
    """The prediction for ``request``, to be had with ``yield from``."""
    found = yield request
    assert isinstance(found, Prediction), "the engine answers every Denoise with a prediction"
    return found


def learn(request: Learn) -> Generator[Request, Answer, Gradients]:
    """The gradients for ``request``, to be had with ``yield from``."""
    found = yield request
    assert isinstance(found, Gradients), "the engine answers every Learn with gradients"
    return found


def decode(base: Base, latents: Tensor) -> Generator[Request, Answer, Image.Image]:
    """The picture of ``latents`` [1, C, h, w], to be had with ``yield from``.

    In a turn of its own, since several edits end at the same step. On a GPU decoding is launched,
    and its end waited for in a further turn: what others ask for is launched meanwhile. It stays in
    the engine's thread: the flags by which a training's steps repeat to the bit are the process's
    (``gradients.deterministic_algorithms``), and in another thread the picture's last bits would
    depend on whether a training takes its step just then.

    Raises NumericalError as ``Base.decode`` does.
    """
    yield Turn()
    decoding = base.decoding(latents)
    if base.device.type != "cpu":
        yield Turn()
    return decoding.pictures()[0]
