"""Errors whose cause the caller can act on."""

from __future__ import annotations


class InputError(ValueError):
    """Something given is not usable.

    field: the name of what was given, as the caller spells it; problem: what is wrong with it, with
    the value and the limit; remedy: what to do instead. Reads as one line.
    """

    def __init__(self, field: str, problem: str, remedy: str = "") -> None:
        self.field, self.problem, self.remedy = field, problem, remedy
        super().__init__(f"{field}: {problem}" + (f"; {remedy}" if remedy else ""))


class NumericalError(RuntimeError):
    """A computation gave numbers that are not finite. Says where, the likely cause and the remedy.

    No result is made of them: a picture decoded from such latents is black.
    """


class TrainingError(RuntimeError):
    """The loss of a training is not finite. Says the step and the remedy.

    step: its number, from 0.
    """

    def __init__(self, message: str, step: int = 0) -> None:
        self.step = step
        super().__init__(message)


class Cancelled(RuntimeError):
    """A method was stopped at a yield because its caller asked for it."""


class DeadlineExceeded(RuntimeError):
    """A method was stopped at a yield because its deadline passed."""
