"""Options that several commands share, written once as a dataclass."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints


def taking(kind: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The command takes the fields of ``kind`` as options, before its own; as one object, first.

    kind: a dataclass whose fields are annotated as Typer wants a command's parameters.
    """

    def shared(command: Callable[..., None]) -> Callable[..., None]:
        fields = dataclasses.fields(kind)
        hints = get_type_hints(kind, include_extras=True)
        options = [_parameter(field, hints[field.name]) for field in fields]
        _, *own = inspect.signature(command, eval_str=True).parameters.values()
        own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]

        def called(**given: Any) -> None:
            asked = kind(**{field.name: given.pop(field.name) for field in fields})
            command(asked, **given)

        called.__name__, called.__doc__ = command.__name__, command.__doc__
        called.__annotations__ = {p.name: p.annotation for p in (*options, *own)}
        called.__signature__ = inspect.Signature([*options, *own])  # type: ignore[attr-defined]  # what inspect and Typer read
        return called

    return shared


def _parameter(field: dataclasses.Field[Any], annotation: Any) -> inspect.Parameter:
    required = field.default is dataclasses.MISSING
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if required else field.default,
        annotation=annotation,
    )
