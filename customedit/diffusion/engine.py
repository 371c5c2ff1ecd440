"""Runs methods: alone (``run``), or many at once, their calls of the denoiser merged (``Engine``).

A method is a generator that yields requests: ``Denoise`` (rows to predict the noise of), ``Turn``
(a step of work that needed gradients is done; let others have theirs) and ``Progress``. It is sent
a ``Prediction`` for the first and None for the others, and returns its result. It knows of no
batching, queue or neighbour; cancelling, deadlines and progress live at the yields.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import torch
from PIL import Image
from torch import Tensor

from customedit.diffusion.attention import AttentionControl
from customedit.diffusion.base import Base, Prediction
from customedit.diffusion.devices import to_device
from customedit.diffusion.fair_queue import AGED, FairQueue, Share
from customedit.diffusion.schedule import Time
from customedit.diffusion.text import TextContext
from customedit.errors import Cancelled, DeadlineExceeded

T = TypeVar("T")

CPU_POSITIONS = 2 * 64 * 64
"""Most latent positions that requests are merged up to on a processor.

Merging pays while one row leaves the machine idle. On two cores rows of 16 x 16 gain up to about 16
in a call; rows of 64 x 64 gain nothing, and 24 of them took up to a fifth longer each than alone.
"""


@dataclass(frozen=True)
class Denoise:
    """Asks for the noise in ``latents`` [rows, C, h, w] at ``time``; one context per row.

    control: over the request's own rows; None changes nothing. names: of each row, None for a row
    like no other: rows of one job with equal names have equal latents and contexts, so that one of
    them suffices (``shared_rows``); empty for no names. shown: the row of what is drawn.
    parts: the requests that it was made of, with the places of their rows, which can be asked one
    by one where all together take too much memory.
    """

    latents: Tensor
    time: Time
    context: Sequence[TextContext]
    control: AttentionControl | None = None
    names: Sequence[Hashable] = ()
    shown: int = -1
    parts: Sequence[tuple[Denoise, Tensor]] = ()

    @property
    def rows(self) -> int:
        """How many rows it asks for."""
        return len(self.latents)

    def part(self, answer: Prediction, part: Denoise, places: Tensor) -> Prediction:
        """What of the ``answer`` to this request is for ``part``, whose rows are at ``places``."""
        noise = answer.noise[to_device(places, answer.noise.device)]
        if answer.maps is None or part.control is None or not part.control.record.any():
            return Prediction(noise)
        assert self.control is not None
        rank = self.control.record.cumsum(0) - 1
        recorded = to_device(rank[places[part.control.record]], noise.device)
        return Prediction(noise, answer.maps[recorded])


@dataclass(frozen=True)
class Turn:
    """One step of work with gradients is done."""


@dataclass(frozen=True)
class Progress:
    """How far a method is: ``step`` of ``steps`` in ``phase``; facts: figures such as a loss."""

    phase: str
    step: int
    steps: int
    facts: dict[str, float] = field(default_factory=dict)
    preview: Image.Image | None = None


Request: TypeAlias = Denoise | Turn | Progress
Method: TypeAlias = Generator[Request, Prediction | None, T]


def ask(request: Denoise) -> Generator[Request, Prediction | None, Prediction]:
    """The prediction for ``request``, to be had with ``yield from``."""
    found = yield request
    assert found is not None, "the engine answers every Denoise with a prediction"
    return found


def run(base: Base, method: Method[T], on_progress: Callable[[Progress], None] | None = None) -> T:
    """Drive one method to its end and return what it returns."""
    engine = Engine(base)
    ticket = engine.submit(method, on_progress=on_progress)
    while not ticket.done:
        engine.tick()
    return ticket.result()


class Observer(Protocol):
    """Is told how long the engine's work took; called in its thread, so it takes no time itself."""

    def call(self, rows: int, cells: int, seconds: float) -> None:
        """A call with ``rows`` of ``cells`` latent cells, and what its methods did with it."""

    def turn(self, label: str, seconds: float) -> None:
        """A step with gradients of the method that was submitted with ``label``."""


class Ticket(Generic[T]):
    """A method handed to an engine: wait for it, cancel it, read its result."""

    def __init__(
        self,
        method: Method[T],
        priority: int,
        deadline: float | None,
        on_progress: Callable[[Progress], None] | None,
        number: int,
        share: Share,
        label: str = "",
    ) -> None:
        self.label = label
        self.method, self.priority, self.deadline = method, priority, deadline
        self.on_progress, self.number, self.share = on_progress, number, share
        self.open: Denoise | None = None
        self.waited = 0
        self._stop: Exception | None = None
        self._result: T | None = None
        self._error: BaseException | None = None
        self._finished = threading.Event()

    @property
    def done(self) -> bool:
        """Whether it has a result or an error."""
        return self._finished.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is done, ``timeout`` seconds at most; gives whether it is."""
        return self._finished.wait(timeout)

    def cancel(self) -> None:
        """Stop it at its next yield; safe from any thread."""
        self._stop = Cancelled("cancelled by its caller")

    def result(self, timeout: float | None = None) -> T:
        """Wait and return what the method returned, or raise what it raised."""
        if not self._finished.wait(timeout):
            raise TimeoutError(f"not finished after {timeout} s")
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]  # None is T when there was no error

    def due(self) -> Exception | None:
        """Why it must stop now, if it must."""
        if self._stop is not None:
            return self._stop
        if self.deadline is not None and time.monotonic() > self.deadline:
            return DeadlineExceeded("its time was over")
        return None

    def finish(self, result: T | None, error: BaseException | None) -> None:
        """Settle it, once."""
        if self._finished.is_set():
            return
        self._result, self._error, self.open = result, error, None
        self._finished.set()


class Engine:
    """Many methods, one base: every tick one merged forward, and one turn of one training.

    max_rows: most rows in one forward; on a processor they hold ``CPU_POSITIONS`` at most, too.
    Requests are served by priority (lower first), then fairly by share, then in the order of their
    methods; who was passed over eight times comes first. Methods whose work needs gradients run
    their step inside ``tick``: at most one of them each tick, in rotation within a share, so none
    is starved and a forward waits for one step at most. New methods start at once: one whose first
    stretch is heavy yields a Turn before it. observer: is told how long that took.
    """

    def __init__(self, base: Base, *, max_rows: int = 32, observer: Observer | None = None) -> None:
        self.base, self.max_rows, self._observer = base, max_rows, observer
        self.calls = self.rows = 0
        self._numbers = itertools.count()
        self._tickets: list[Ticket[Any]] = []
        self._lock = threading.Lock()
        self._turns: list[Ticket[Any]] = []
        self._fair_rows, self._fair_turns = FairQueue(), FairQueue()
        self._fresh: list[Ticket[Any]] = []

    def submit(
        self,
        method: Method[T],
        *,
        priority: int = 0,
        timeout: float | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        share: Share = ("",),
        label: str = "",
    ) -> Ticket[T]:
        """Take ``method`` in; safe from any thread.

        timeout: seconds it may take from now; share: for whom it is, from the outside in, such as
        tenant and job; within a priority shares are served alike, however many methods they have;
        label: under which its steps with gradients are observed.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        number = next(self._numbers)
        ticket = Ticket(method, priority, deadline, on_progress, number, share, label)
        with self._lock:
            self._tickets.append(ticket)
            self._fresh.append(ticket)
        return ticket

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        with self._lock:
            return not self._tickets

    def tick(self) -> None:
        """Serve one batch of requests and one turn. Never raises for what a method did."""
        with self._lock:
            tickets, fresh, self._fresh = list(self._tickets), self._fresh, []
        for ticket in tickets:
            if (reason := ticket.due()) is not None:
                self._end(ticket, reason)
        for ticket in fresh:
            if not ticket.done:
                self._advance(ticket, None)
        self._serve([t for t in tickets if t.open is not None and not t.done])
        with self._lock:
            self._fair_turns.fill(t for t in self._turns if not t.done)
            chosen = next(iter(self._fair_turns), None)
            if chosen is not None:
                self._fair_turns.charge(chosen, 1)
                self._turns.remove(chosen)
        if chosen is not None:
            began = time.monotonic()
            self._advance(chosen, None)
            if self._observer is not None:
                self._observer.turn(chosen.label, time.monotonic() - began)
        with self._lock:
            self._tickets = [t for t in self._tickets if not t.done]
            self._turns = [t for t in self._turns if not t.done]

    def _serve(self, tickets: list[Ticket[Any]]) -> None:
        """Answer the most urgent requests of one shape, up to ``max_rows`` rows."""
        batch = self._batch(sorted(tickets, key=_by_age))
        if not batch:
            return
        batch.sort(key=lambda t: (t.priority, *_by_age(t)))  # as if all had fitted: the same bits
        for ticket in tickets:
            ticket.waited += 1
        for ticket in batch:
            ticket.waited = 0
        asked = [ticket.open for ticket in batch if ticket.open is not None]
        began = time.monotonic()
        for ticket, answer in zip(batch, self._answers(batch), strict=True):
            if isinstance(answer, Prediction):
                ticket.open = None
                self._advance(ticket, answer)
            else:
                self._end(ticket, answer)
        if self._observer is not None:
            rows, (height, width) = sum(r.rows for r in asked), asked[0].latents.shape[2:]
            self._observer.call(rows, height * width, time.monotonic() - began)

    def _batch(self, tickets: Sequence[Ticket[Any]]) -> list[Ticket[Any]]:
        """Those whose requests make the next forward: the first one's shape decides."""
        batch: list[Ticket[Any]] = []
        shape, rows, most = torch.Size(), 0, 0
        self._fair_rows.fill(tickets)
        for ticket in self._fair_rows:
            request = ticket.open
            assert request is not None, "only tickets with an open request are served"
            if not batch:
                shape = request.latents.shape[1:]  # C, h, w
                most = max(request.rows, self._most_rows(shape[1] * shape[2]))
            if request.latents.shape[1:] == shape and rows + request.rows <= most:
                batch.append(ticket)
                rows += request.rows
                self._fair_rows.charge(ticket, request.rows * shape[1] * shape[2])
        return batch

    def _most_rows(self, positions: int) -> int:
        return most_rows(self.base, positions, self.max_rows)

    def _answers(self, batch: list[Ticket[Any]]) -> list[Prediction | Exception]:
        """One forward for all; if it fails, halves, down to the one request that is to blame."""
        try:
            return list(self._forward([t.open for t in batch if t.open is not None]))
        except Exception as error:
            if isinstance(error, torch.OutOfMemoryError) and self.base.device.type == "cuda":
                torch.cuda.empty_cache()
            if len(batch) == 1:
                request = batch[0].open
                if isinstance(error, torch.OutOfMemoryError) and request and request.parts:
                    return [self._in_parts(request)]
                return [error]
            if isinstance(error, torch.OutOfMemoryError):
                largest = max(t.open.rows for t in batch if t.open is not None)
                total = sum(t.open.rows for t in batch if t.open is not None)
                self.max_rows = max(largest, total // 2)
        half = len(batch) // 2
        return self._answers(batch[:half]) + self._answers(batch[half:])

    def _in_parts(self, request: Denoise) -> Prediction | Exception:
        """The answer to a joint request whose parts are predicted one after the other."""
        noise: Tensor | None = None
        recorded: dict[int, Tensor] = {}
        try:
            for part, places in request.parts:
                (answer,) = self._forward([part])
                if noise is None:
                    noise = answer.noise.new_empty((request.rows, *answer.noise.shape[1:]))
                noise[to_device(places, noise.device)] = answer.noise
                if answer.maps is not None and part.control is not None:
                    rows = places[part.control.record].tolist()
                    recorded |= dict(zip(rows, answer.maps, strict=True))
        except Exception as error:
            return error
        assert noise is not None
        maps = torch.stack([recorded[row] for row in sorted(recorded)]) if recorded else None
        return Prediction(noise, maps)

    @torch.no_grad()
    def _forward(self, requests: Sequence[Denoise]) -> list[Prediction]:
        """The requests' rows in one call of the denoiser."""
        times = torch.cat([torch.full((r.rows,), r.time) for r in requests])
        control = None
        if any(r.control is not None for r in requests):
            columns = self.base.family.mapped_tokens
            control = AttentionControl.join(
                [r.control or AttentionControl.none(r.rows, columns) for r in requests]
            )
        context = [c for r in requests for c in r.context]
        latents = torch.cat([r.latents.to(self.base.device) for r in requests])
        found = self.base.predict(latents, times, context, control)
        self.calls += 1
        self.rows += len(latents)
        out: list[Prediction] = []
        at = read = 0
        for request in requests:
            maps = None
            if request.control is not None and found.maps is not None:
                count = int(request.control.record.sum())
                maps = found.maps[read : read + count] if count else None
                read += count
            out.append(Prediction(found.noise[at : at + request.rows], maps))
            at += request.rows
        return out

    def _advance(self, ticket: Ticket[Any], answer: Prediction | None) -> None:
        """Send ``answer`` and go on to the method's next Denoise or Turn, or its end."""
        try:
            while True:
                if (reason := ticket.due()) is not None:
                    self._end(ticket, reason)
                    return
                request = ticket.method.send(answer)
                answer = None
                if isinstance(request, Denoise):
                    ticket.open = request
                    return
                if isinstance(request, Turn):
                    with self._lock:
                        self._turns.append(ticket)
                    return
                if ticket.on_progress is not None:
                    ticket.on_progress(request)
        except StopIteration as end:
            ticket.finish(end.value, None)
        except Exception as error:
            ticket.finish(None, error)

    def _end(self, ticket: Ticket[Any], reason: Exception) -> None:
        """Stop a method at its yield: its own ``finally`` runs, then its ticket has ``reason``."""
        try:
            ticket.method.close()
        except Exception as error:
            reason.add_note(f"and while it was stopped: {error!r}")
        ticket.finish(None, reason)


def most_rows(base: Base, positions: int, most: int) -> int:
    """How many rows of so many latent positions, up to ``most``, are merged into one forward."""
    if base.device.type != "cpu":
        return most
    return min(most, max(1, CPU_POSITIONS // positions))


def _by_age(ticket: Ticket[Any]) -> tuple[bool, int]:
    """Within a share: who waited so long that its turn has come, then who came first."""
    return ticket.waited < AGED, ticket.number
