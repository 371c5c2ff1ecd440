"""Options of commands made from the request models, so that the two cannot drift apart."""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import typer
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from customedit.errors import InputError
from customedit.schemas.validation import input_error

_BOUNDS: Final = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
_CONTEXT: Final = "typer_context"
"""The parameter of a command in which Typer tells how each option came to its value."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Which fields of ``model`` become options, and under which names.

    leave_out: fields that keep their default; names: the option of a field, such as
    ``{"strengths": "--strength"}``, where it is not the field's own name with dashes. Fields that
    hold a model or a mapping have no option.
    """

    model: type[BaseModel]
    leave_out: Collection[str] = ()
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def parameters(self) -> dict[str, inspect.Parameter]:
        """The command's parameters, by the model's field names."""
        return {
            name: _parameter(name, field, self.option(name))
            for name, field in self.model.model_fields.items()
            if name not in self.leave_out and _kind(field.annotation) is not None
        }

    def option(self, field: str) -> str:
        """The option of a field."""
        return self.names.get(field, f"--{field.replace('_', '-')}")

    def read(self, values: Mapping[str, Any]) -> BaseModel:
        """The model with ``values`` of the options that were given.

        The others are left out, so that the model sees what was asked for and what was not: a
        preset sets the fields that are left out.

        Raises:
            InputError: the first value that the model refuses; it names the option where that is
                not the field's own name.
        """
        given = {k: v for k, v in values.items() if v is not None and v != []}
        try:
            return self.model(**{k: self._parsed(k, v) for k, v in given.items()})
        except ValidationError as error:
            refused = input_error(error)
            name = self.names.get(refused.field, refused.field).removeprefix("--")
            raise InputError(name, refused.problem, refused.remedy) from None

    def _parsed(self, name: str, value: Any) -> Any:
        """``value`` as a number, where the field takes numbers and words; else as it is."""
        if isinstance(value, str) and _words(self.model.model_fields[name].annotation):
            try:
                return float(value)
            except ValueError:
                return value
        return value


def model_options(**models: type[BaseModel] | Options) -> Callable[[Callable[..., None]], Any]:
    """A decorator: the command takes the fields of each model as options, in the model's place.

    ``@model_options(training=TrainingOptions)`` calls the command with ``training``, a
    TrainingOptions. Help texts, limits, choices and defaults are those of the model; a value that
    it refuses raises InputError, which ``command_errors`` tells in one line. A field that two
    models have needs an option of its own in the second.
    """
    sources = {
        name: source if isinstance(source, Options) else Options(source)
        for name, source in models.items()
    }

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        fields = _named_apart(sources)
        parameters: list[inspect.Parameter] = []
        for parameter in inspect.signature(command, eval_str=True).parameters.values():
            if parameter.name in sources:
                parameters += fields[parameter.name].values()
            else:
                parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

        def run(**values: Any) -> None:
            context: typer.Context = values.pop(_CONTEXT)
            models = {}
            for name, source in sources.items():
                own = {f: (p.name, values.pop(p.name)) for f, p in fields[name].items()}
                models[name] = source.read(
                    {f: value for f, (called, value) in own.items() if _given(context, called)}
                )
            command(**values, **models)

        context = inspect.Parameter(
            _CONTEXT, inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context
        )
        return _with_signature(run, command, [context, *parameters])

    return decorate


def _named_apart(sources: Mapping[str, Options]) -> dict[str, dict[str, inspect.Parameter]]:
    """The parameters of each source by field; the second of one name is named by its option."""
    taken = set[str]()
    found: dict[str, dict[str, inspect.Parameter]] = {}
    for name, source in sources.items():
        found[name] = source.parameters()
        for field, parameter in found[name].items():
            if parameter.name in taken:
                called = source.option(field).removeprefix("--").replace("-", "_")
                found[name][field] = parameter.replace(name=called)
            taken.add(found[name][field].name)
    return found


def dataclass_options(kind: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The command takes the fields of ``kind`` as options, before its own; as one object, first.

    kind: a dataclass whose fields are annotated as Typer wants a command's parameters.
    """

    def shared(command: Callable[..., None]) -> Callable[..., None]:
        fields = dataclasses.fields(kind)
        hints = get_type_hints(kind, include_extras=True)
        options = [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty
                if field.default is dataclasses.MISSING
                else field.default,
                annotation=hints[field.name],
            )
            for field in fields
        ]
        _, *own = inspect.signature(command, eval_str=True).parameters.values()
        own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]

        def run(**values: Any) -> None:
            options = kind(**{field.name: values.pop(field.name) for field in fields})
            command(options, **values)

        return _with_signature(run, command, [*options, *own])

    return shared


def _given(context: typer.Context, name: str) -> bool:
    """Whether the option of the parameter ``name`` was given, not its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _with_signature(
    run: Callable[..., None], command: Callable[..., None], parameters: list[inspect.Parameter]
) -> Callable[..., None]:
    """``run`` under the name of ``command``, with the parameters that Typer shall see."""
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what inspect and Typer read
    return run


def _parameter(name: str, field: FieldInfo, option: str) -> inspect.Parameter:
    kind = _kind(field.annotation)
    assert kind is not None
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    many = get_origin(field.annotation) is list or _list_of(field.annotation) is not None
    value: Any = str if choices else kind
    metavar = "|".join(choices) if choices else None  # the model checks, so that its words tell
    if words := _words(field.annotation):
        value, metavar = str, "|".join(["NUMBER", *words])
    switch = kind is bool and field.default is None
    names = [f"{option}/--no-{option.removeprefix('--')}"] if switch else [option]
    default = inspect.Parameter.empty if field.is_required() else field.default
    if many:
        value, default = list[value], None
    elif default is None:
        value = value | None
    help_text = " ".join((field.description or "").replace("`", "").split())
    if limits := _limits(field):
        help_text = f"{help_text.removesuffix('.')} ({limits})."
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[
            value | None if many else value, typer.Option(*names, help=help_text, metavar=metavar)
        ],
    )


def _kind(annotation: Any) -> Any:
    """int, float, bool, str, or a Literal: what one value of the option is; None for others."""
    if (item := _list_of(annotation)) is not None:
        return _kind(item)
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kind(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        members = [a for a in get_args(annotation) if a is not type(None)]
        kinds = [k for k in map(_kind, members) if k is not None]
        plain = [k for k in kinds if get_origin(k) is not Literal]
        return next(iter(plain or kinds), None)
    if origin is Literal or annotation in (int, float, bool, str):
        return annotation
    return None


def _words(annotation: Any) -> tuple[str, ...]:
    """The words that a field takes beside numbers, such as ``auto``."""
    if get_origin(annotation) is Annotated:
        return _words(get_args(annotation)[0])
    if get_origin(annotation) not in (Union, types.UnionType) or _kind(annotation) not in (
        int,
        float,
    ):
        return ()
    literals = (m for m in get_args(annotation) if get_origin(m) is Literal)
    return tuple(word for literal in literals for word in get_args(literal))


def _list_of(annotation: Any) -> Any:
    """What a list holds; None for other annotations. Looks through Annotated and ``| None``."""
    origin = get_origin(annotation)
    if origin is list:
        return get_args(annotation)[0]
    if origin is Annotated or origin in (Union, types.UnionType):
        members = get_args(annotation)[:1] if origin is Annotated else get_args(annotation)
        return next((item for a in members if (item := _list_of(a)) is not None), None)
    return None


def _limits(field: FieldInfo) -> str:
    """The bounds of a number, in words."""
    bounds = {
        name: getattr(rule, name)
        for rule in field.metadata
        for name in _BOUNDS
        if getattr(rule, name, None) is not None
    }
    if bounds.keys() >= {"ge", "le"}:
        return f"{bounds['ge']:g} to {bounds['le']:g}"
    return ", ".join(
        f"{words} {bounds[name]:g}" for name, words in _BOUNDS.items() if name in bounds
    )
