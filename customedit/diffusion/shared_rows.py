"""Several methods of one job as one: requests for the same time are one, with equal rows once.

With direct inversion the source row of every strength, seed and concept on one picture is the same
at each step: nine strengths ask for 19 rows, not 27. Rows are recognised by their names
(``Denoise.names``), which mean something within one job alone: nothing is shared between jobs.
"""

from __future__ import annotations

from collections.abc import Generator, Hashable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from customedit.diffusion.attention_control import AttentionControl
from customedit.diffusion.base import Base, Prediction
from customedit.diffusion.devices import DeviceRows
from customedit.diffusion.engine import most_rows
from customedit.diffusion.method import Denoise, Method, Progress, Request, ask

T = TypeVar("T")


def together(base: Base, methods: Sequence[Method[T]], *, max_rows: int = 32) -> Method[list[T]]:
    """Runs ``methods`` side by side and returns their results; progress is of all together.

    Those at the noisiest time go first, so that methods that begin later wait for the others and
    share rows with them from there on. max_rows: most rows of one request, on a processor fewer
    (``engine.most_rows``); a method's own request may have more.
    """
    results: list[Any] = [None] * len(methods)
    open_: dict[int, Denoise] = {}
    done: dict[int, Progress] = {}
    join = JoinedControls()

    def advance(number: int, answer: Prediction | None) -> Generator[Request, Any, None]:
        """On to the method's next ``Denoise``, or its result."""
        try:
            while True:
                request = methods[number].send(answer)
                answer = None
                if isinstance(request, Denoise):
                    open_[number] = request
                    return
                yield _counted(request, number, done, len(methods))
        except StopIteration as end:
            results[number] = end.value

    try:
        for number in range(len(methods)):
            yield from advance(number, None)
        while open_:
            chosen = _chosen(base, open_, max_rows)
            parts = [open_.pop(number) for number in chosen]
            request = joined(parts, join)
            answer = yield from ask(request)
            if len(parts) == 1:
                yield from advance(chosen[0], answer)
                continue
            shares = [
                request.part(answer, part, places, join.rows) for part, places in request.parts
            ]
            for number, share in zip(chosen, shares, strict=True):
                yield from advance(number, share)
        return results
    finally:
        for method in methods:
            method.close()


def _counted(request: Request, number: int, done: dict[int, Progress], count: int) -> Request:
    """A method's ``request``, where it is progress as that of all."""
    if not isinstance(request, Progress):
        return request
    done[number] = request
    known = done.values()
    steps = sum(p.steps for p in known) + (count - len(known)) * request.steps
    step = sum(p.step for p in known)
    return Progress(request.phase, step, steps, request.facts, request.preview)


def _chosen(base: Base, open_: dict[int, Denoise], max_rows: int) -> list[int]:
    """The methods whose requests are joined next: of the noisiest time, as many as fit."""
    time = max(request.time for request in open_.values())
    chosen: list[int] = []
    names = set[Hashable]()
    rows = 0
    for number in sorted(number for number, request in open_.items() if request.time == time):
        request = open_[number]
        shape = request.latents.shape[1:]
        if chosen and shape != open_[chosen[0]].latents.shape[1:]:
            continue
        named = {name for name in request.names if name is not None}
        more = request.rows - len(named & names)
        if chosen and rows + more > most_rows(base, shape[1] * shape[2], max_rows):
            break
        chosen.append(number)
        names |= named
        rows += more
    return chosen


class JoinedControls:
    """Joins the controls of requests, or gives what it gave last for the same controls and rows.

    What follows from a control is worked out once for as long as it is the same object. rows: the
    lists of rows that are on the device.
    """

    def __init__(self) -> None:
        self.rows = DeviceRows()
        self._last: tuple[list[AttentionControl | None], list[list[int]]] = ([], [])
        self._joined: AttentionControl | None = None

    def __call__(
        self, requests: Sequence[Denoise], kept: Sequence[Tensor], places: Sequence[Tensor]
    ) -> AttentionControl | None:
        """The control of all rows; kept, places: as in ``joined``. None if nobody has any."""
        controls = [request.control for request in requests]
        rows = [part.tolist() for part in (*kept, *places)]
        known, known_rows = self._last
        same = len(controls) == len(known) and all(
            a is b for a, b in zip(controls, known, strict=True)
        )
        if not same or rows != known_rows:
            self._last = controls, rows
            self._joined = _joined_control(requests, kept, places)
        return self._joined


def joined(requests: Sequence[Denoise], join: JoinedControls | None = None) -> Denoise:
    """Requests for one time and of one shape as one, rows of equal names once.

    join: of the requests of earlier steps.

    A row that several have is recorded if one of them asks for it; what else its control says is
    that of the first. One request alone is itself.
    """
    if len(requests) == 1:
        return requests[0]
    place_of: dict[Hashable, int] = {}
    kept: list[Tensor] = []  # of each request the rows that none before it has
    places: list[Tensor] = []  # of each request where its rows stand
    count = 0
    for request in requests:
        own, where = [], []
        for row, name in enumerate(request.names or [None] * request.rows):
            if name is None or name not in place_of:
                own.append(row)
                where.append(count)
                if name is not None:
                    place_of[name] = count
                count += 1
            else:
                where.append(place_of[name])
        kept.append(torch.tensor(own, dtype=torch.long))
        places.append(torch.tensor(where))
    pairs = list(zip(requests, kept, strict=True))
    join = join or JoinedControls()
    return Denoise(
        torch.cat([_rows(request.latents, own, join.rows) for request, own in pairs]),
        requests[0].time,
        [r.context[row] for r, own in pairs for row in own.tolist()],
        join(requests, kept, places),
        parts=list(zip(requests, places, strict=True)),
        features=[r.features_of_rows[row] for r, own in pairs for row in own.tolist()],
    )


def _rows(latents: Tensor, rows: Tensor, moved: DeviceRows) -> Tensor:
    if len(rows) == len(latents):
        return latents
    return latents[moved(rows.tolist(), latents.device)]


def _joined_control(
    requests: Sequence[Denoise], kept: Sequence[Tensor], places: Sequence[Tensor]
) -> AttentionControl | None:
    controls = [r.control for r in requests]
    tokens = next((c.mapper.shape[-1] for c in controls if c is not None), None)
    if tokens is None:
        return None
    whole = [
        AttentionControl.none(r.rows, tokens) if c is None else c
        for r, c in zip(requests, controls, strict=True)
    ]
    out = AttentionControl.concatenated(
        [c.at(where).select(own) for c, own, where in zip(whole, kept, places, strict=True)]
    )
    for c, where in zip(whole, places, strict=True):
        out.record[where[c.record]] = True
    return out
