"""Problems of a request, field by field, in the same words over HTTP and on the CLI."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from customedit.errors import InputError
from customedit.schemas.answers import FieldProblem
from customedit.schemas.patterns import IN_WORDS

MAX_PROBLEMS: Final = 20
_FIELD_RULE: Final = "field_rule"
_NO_NAMES: Final = (
    "constrained-str",
    "literal['']",
    "literal['auto']",
    "function-before[_change(), constrained-float]",
    "[key]",
)
"""What pydantic adds to locations, for members of unions and keys, that is the name of no field."""
_LIMITS: Final = {
    "missing": "required",
    "extra_forbidden": "no fields but those of the documentation",
    "number_type": "a number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "finite_number": "a finite number",
}
_BOUNDS: Final = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
_MAX_SHOWN: Final = 60
_MAX_NAME: Final = 200


def field_rule(field: str, problem: str, remedy: str) -> PydanticCustomError:
    """The error of a rule over several fields, named after the one that is to be changed.

    field: dotted, as a caller spells it; problem and remedy: as of InputError.
    """
    facts = {"field": field, "problem": problem, "remedy": remedy}
    return PydanticCustomError(_FIELD_RULE, "{field}: {problem}; {remedy}", facts)


def field_problems(errors: Iterable[Mapping[str, Any]]) -> list[FieldProblem]:
    """Pydantic's ``errors`` as field, problem and limit: at most 20 of them."""
    return [_field_problem(error) for _, error in zip(range(MAX_PROBLEMS), errors, strict=False)]


def input_error(error: ValidationError, prefix: str = "") -> InputError:
    """The first problem of ``error``. prefix: of the field's name, such as ``p2p.``."""
    first = field_problems(error.errors(include_url=False))[0]
    remedy = "" if first.limit in first.problem else first.limit
    return InputError(prefix + first.field, first.problem, remedy)


def _field_problem(error: Mapping[str, Any]) -> FieldProblem:
    facts = error.get("ctx", {})
    names = [part for part in error["loc"] if part not in _NO_NAMES]
    if error["type"] == _FIELD_RULE:
        field = dotted([*names, facts["field"]])
        return FieldProblem(field=field, problem=facts["problem"], limit=facts["remedy"])
    problem, limit = str(error["msg"]).removeprefix("Value error, "), _limit(error)
    if (words := IN_WORDS.get(facts.get("pattern", ""))) is not None:
        problem, limit = f"is not {words}", words
    elif facts.keys() & _BOUNDS.keys():
        problem = f"is {error.get('input')!r}"[:_MAX_SHOWN]
    elif "actual_length" in facts and facts["actual_length"] is not None:
        problem = f"has {facts['actual_length']} {_unit(error)}"
    elif "expected" in facts:
        problem = f"is not {limit}"
    return FieldProblem(field=dotted(names) or "body", problem=problem, limit=limit or problem)


def dotted(names: Sequence[str | int]) -> str:
    """("concepts", 0, "id") -> ``concepts[0].id``, at most 200 characters."""
    text = ""
    for name in names:
        text += f"[{name}]" if isinstance(name, int) else f".{name}" if text else str(name)
    return text[:_MAX_NAME]


def _limit(error: Mapping[str, Any]) -> str:
    """What the field must keep to, in a few words; empty if pydantic does not say."""
    facts = error.get("ctx", {})
    kind = str(error["type"])
    if kind in _LIMITS:
        return _LIMITS[kind]
    for name, words in (("max_length", "at most"), ("min_length", "at least")):
        if name in facts:
            return f"{words} {facts[name]} {_unit(error)}"
    if "pattern" in facts:
        return f"pattern {facts['pattern']}"
    if "expected" in facts:
        return f"one of {facts['expected']}"
    for name, words in _BOUNDS.items():
        if name in facts:
            return f"{words} {facts[name]:g}"
    return ""


def _unit(error: Mapping[str, Any]) -> str:
    return "items" if error["type"] in ("too_long", "too_short") else "characters"
