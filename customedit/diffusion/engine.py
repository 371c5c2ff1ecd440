"""Runs methods: alone (``run``), or many at once, their calls of the denoiser merged (``Engine``).

What a method asks for and gets is in ``method``.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from customedit.diffusion.attention_control import LastJoin
from customedit.diffusion.base import Base, Prediction
from customedit.diffusion.devices import to_device
from customedit.diffusion.fair_queue import AGED, FairQueue, Share
from customedit.diffusion.gradients import DeterministicStep, joint_gradients
from customedit.diffusion.method import Answer, Denoise, Gradients, Learn, Method, Progress, Turn
from customedit.diffusion.text import TextContext
from customedit.errors import Cancelled, DeadlineExceeded

T = TypeVar("T")

CPU_POSITIONS = 2 * 64 * 64
"""Most latent positions that requests are merged up to on a processor.

Merging pays while one row leaves the machine idle. On two cores rows of 16 x 16 gain up to about 16
in a call; rows of 64 x 64 gain nothing, and 24 of them took up to a fifth longer each than alone.
"""


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
        self.learn: Learn | None = None
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
        self._result, self._error = result, error
        self.open = self.learn = None
        self._finished.set()


class Engine:
    """Many methods, one base: every tick one merged forward, and one step of trainings.

    max_rows: most rows in one forward; on a processor they hold ``CPU_POSITIONS`` at most, too.
    Requests are served by priority (lower first), then fairly by share, then in the order of their
    methods; who was passed over eight times comes first. Steps with gradients are made inside
    ``tick``, one each tick, in rotation within a share, so that none is starved and a forward waits
    for one step at most. A step is a method's own work, or one forward and backward for the rows of
    several trainings. On a processor, where more rows take more time, trainings are not merged
    while a forward waits. New methods start at once: one whose first stretch is heavy yields a Turn
    before it.

    A step that does not fit the memory is made with fewer trainings, and one of a single training
    without keeping activations; checkpointed: latent cells of all rows from which on that is so.

    calls, rows: forwards and their rows so far; steps, step_rows: the same of trainings; observer:
    is told how long each took.
    """

    def __init__(self, base: Base, *, max_rows: int = 32, observer: Observer | None = None) -> None:
        self.base, self.max_rows, self._observer = base, max_rows, observer
        self.max_step_rows = max_rows
        self.checkpointed = math.inf
        self.calls = self.rows = self.steps = self.step_rows = 0
        self._numbers = itertools.count()
        self._tickets: list[Ticket[Any]] = []
        self._lock = threading.Lock()
        self._turns: list[Ticket[Any]] = []
        self._fair_rows, self._fair_turns = FairQueue(), FairQueue()
        self._fresh: list[Ticket[Any]] = []
        self._deterministic_step = DeterministicStep(base.device)
        self._join = LastJoin()

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
        self._take_step(waiting=any(t.open is not None for t in tickets if not t.done))
        with self._lock:
            self._tickets = [t for t in self._tickets if not t.done]
            self._turns = [t for t in self._turns if not t.done]

    def _take_step(self, waiting: bool) -> None:
        """The next method's turn, or one step of the next training and those that go with it.

        waiting: whether a forward waits meanwhile.
        """
        with self._lock:
            self._fair_turns.fill(t for t in self._turns if not t.done)
            chosen = self._together(waiting)
            for ticket in chosen:
                self._turns.remove(ticket)
        if not chosen:
            return
        began = time.monotonic()
        if chosen[0].learn is None:
            self._advance(chosen[0], None)
        else:
            for ticket, answer in zip(chosen, self._gradients(chosen), strict=True):
                ticket.learn = None
                if isinstance(answer, Gradients):
                    self._advance(ticket, answer)
                else:
                    self._end(ticket, answer)
        if self._observer is not None:
            share = (time.monotonic() - began) / len(chosen)
            for ticket in chosen:
                self._observer.turn(ticket.label, share)

    def _together(self, waiting: bool) -> list[Ticket[Any]]:
        """Who takes the next step: one method, or trainings whose rows make one forward."""
        chosen: list[Ticket[Any]] = []
        first: Learn | None = None
        rows = most = 0
        for ticket in self._fair_turns:
            request = ticket.learn
            if not chosen:
                if request is not None:
                    alone = waiting and self.base.device.type == "cpu"
                    positions = request.latents.shape[2] * request.latents.shape[3]
                    most = 0 if alone else min(self.max_step_rows, self._most_rows(positions))
                first = request
            elif first is None or rows >= most:
                break
            elif (
                request is None
                or request.base is not first.base
                or request.latents.shape[1:] != first.latents.shape[1:]
                or rows + request.rows > most
            ):
                continue
            chosen.append(ticket)
            rows += 0 if request is None else request.rows
            self._fair_turns.charge(ticket, 1)
        return chosen

    def _gradients(self, batch: list[Ticket[Any]]) -> list[Gradients | Exception]:
        """One forward and backward for all; if it fails, halves, down to the one to blame."""
        requests = [t.learn for t in batch if t.learn is not None]
        try:
            return list(self._deterministic_step(lambda: self._learn(requests)))
        except Exception as error:
            if isinstance(error, torch.OutOfMemoryError) and self.base.device.type == "cuda":
                torch.cuda.empty_cache()
            if len(batch) == 1:
                cells = _cells(requests)
                if not isinstance(error, torch.OutOfMemoryError) or cells >= self.checkpointed:
                    return [error]
                self.checkpointed = cells
                return self._gradients(batch)
            if isinstance(error, torch.OutOfMemoryError):
                total = sum(r.rows for r in requests)
                self.max_step_rows = max(max(r.rows for r in requests), total // 2)
        half = len(batch) // 2
        return self._gradients(batch[:half]) + self._gradients(batch[half:])

    def _learn(self, requests: Sequence[Learn]) -> list[Gradients]:
        """The requests' rows in one forward and backward: of the sum of their losses.

        Each loss depends on its own rows and leaves alone, so that each gets its own gradient, and
        one that is not finite leaves the others as they are.
        """
        base = requests[0].base
        base.family.keep_activations(_cells(requests) < self.checkpointed)
        with torch.enable_grad():
            context = read_texts(requests)
            latents = torch.cat([r.latents.to(base.device) for r in requests])
            output, _ = base.output(latents, torch.cat([r.times for r in requests]), context)
            parts = output.split([r.rows for r in requests])
            losses, figures = zip(
                *(r.loss(part) for r, part in zip(requests, parts, strict=True)), strict=True
            )
        self.steps += 1
        self.step_rows += len(latents)
        found = joint_gradients(losses, [r.leaves for r in requests], base.family.dtype)
        return [Gradients(own, told) for own, told in zip(found, figures, strict=True)]

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
        control = self._join(
            [r.control for r in requests],
            [r.rows for r in requests],
            self.base.family.mapped_tokens,
        )
        context = [c for r in requests for c in r.context]
        latents = torch.cat([r.latents.to(self.base.device) for r in requests])
        features = [f for r in requests for f in r.features_of_rows]
        found = self.base.predict(latents, times, context, control, features)
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

    def _advance(self, ticket: Ticket[Any], answer: Answer) -> None:
        """Send ``answer`` and go on to the method's next Denoise, Learn or Turn, or its end."""
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
                if isinstance(request, Learn | Turn):
                    ticket.learn = request if isinstance(request, Learn) else None
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


def _cells(requests: Sequence[Learn]) -> int:
    """Latent cells of all rows."""
    return sum(r.rows * r.latents.shape[2] * r.latents.shape[3] for r in requests)


def read_texts(requests: Sequence[Learn]) -> list[TextContext]:
    """The texts of all rows of ``requests``, whose prompts the text encoders read together.

    Raises ValueError for a request that has not one text per row.
    """
    prompts = [list(request.prompts()) for request in requests]
    flat = [prompt for own in prompts for prompt in own]
    encoded = iter(requests[0].base.family.encode(flat) if flat else ())
    texts: list[TextContext] = []
    for request, own in zip(requests, prompts, strict=True):
        found = request.context(own, [next(encoded) for _ in own])
        if len(found) != request.rows:
            raise ValueError(f"{request.rows} rows of latents, {len(found)} of text")
        texts += found
    return texts


def _by_age(ticket: Ticket[Any]) -> tuple[bool, int]:
    """Within a share: who waited so long that its turn has come, then who came first."""
    return ticket.waited < AGED, ticket.number
