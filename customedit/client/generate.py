"""Makes the parts of the client that follow from others: ``python -m customedit.client.generate``.

``aio_requests.py`` has a method for each request model, with the model's fields as parameters, so
that editors complete them and type checkers check them. The sync client is the asyncio client
without ``async``. Needs ruff; the tests check that the files are current.
"""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from customedit.schemas.concepts import CustomizeRequest, ImportForm
from customedit.schemas.keys import KeyRequest
from customedit.schemas.methods import PRESETS
from customedit.schemas.requests import BatchRequest, EditRequest, PresetSettings, PromptsRequest

FOLDER: Final = Path(__file__).parent
_PRESET_FIELDS: Final = frozenset(name for preset in PRESETS.values() for name in preset)
"""Fields that a preset sets where they are left out: a default that is sent would contradict it."""


@dataclass(frozen=True)
class Request:
    """A method to be made.

    answer: the document it gives; first: a parameter before the model's fields, and what it is;
    title: the first line of its docstring, None for the model's; keyed: whether it takes an
    idempotency key.
    """

    name: str
    model: type[BaseModel]
    answer: str = "Job"
    first: str = ""
    first_is: str = ""
    title: str | None = None
    keyed: bool = True


_DRY: Final = "would do, and how long it would take; nothing is stored."
_REQUESTS: Final = (
    Request("customize", CustomizeRequest),
    Request("edit", EditRequest),
    Request("edit_batch", BatchRequest, "Batch"),
    Request(
        "import_concept",
        ImportForm,
        first="path: Path, ",
        first_is="The file.",
        title="Make a concept from a file of weights.",
    ),
    Request(
        "try_customize",
        CustomizeRequest,
        "DryRun",
        title=f"What ``customize`` {_DRY}",
        keyed=False,
    ),
    Request(
        "save_preset",
        PresetSettings,
        "Preset",
        first="name: str, ",
        first_is="Under which name.",
        keyed=False,
    ),
    Request("make_key", KeyRequest, "NewApiKey", keyed=False),
    Request("read_prompts", PromptsRequest, "PromptReadings", keyed=False),
    Request("try_edit", EditRequest, "DryRun", title=f"What ``edit`` {_DRY}", keyed=False),
)
_HEADER: Final = '''"""Requests as methods. Made by ``python -m customedit.client.generate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from customedit.client import calls
from customedit.client.calls import Answer, Call
from customedit.schemas import answers as d
from customedit.schemas.concepts import TrainingOptions
from customedit.schemas.methods import (
    DdpmOptions, DirectEditOptions, FlowEditOptions, MasaCtrlOptions, P2POptions,
    PlugAndPlayOptions, SDEditOptions,
)
from customedit.schemas.requests import ConceptUse


class AsyncRequests:
    """The requests of the service as methods, with their fields as parameters."""

    async def _do(self, call: Call[Answer]) -> Answer:
        raise NotImplementedError
'''
_SYNC: Final = (
    ("async def ", "def "),
    ("async with ", "with "),
    ("async with`", "with`"),
    ("async for ", "for "),
    ("await ", ""),
    ("import asyncio\n", ""),
    ("asyncio.sleep", "time.sleep"),
    ("AsyncIterator", "Iterator"),
    ("httpx.AsyncClient", "httpx.Client"),
    ("AsyncCustomEdit", "CustomEdit"),
    ("AsyncRequests", "Requests"),
    ("aio_requests", "sync_requests"),
    ("aclose", "close"),
    ("__aenter__", "__enter__"),
    ("__aexit__", "__exit__"),
    ("aiter_lines", "iter_lines"),
    ("aread", "read"),
)
_SYNC_TITLE: Final = (
    '"""The client. Made from ``aio.py`` by ``python -m customedit.client.generate``."""'
)


def files() -> dict[str, str]:
    """The text of each file that is made, by its name in this folder."""
    requests = _HEADER + "".join(map(_method, _REQUESTS))
    sync = _without_async((FOLDER / "aio.py").read_text("utf-8"))
    return {
        "aio_requests.py": _formatted(requests),
        "sync_requests.py": _formatted(_without_async(requests)),
        "sync.py": _formatted(re.sub(r'^""".*?"""', _SYNC_TITLE, sync, flags=re.DOTALL)),
    }


def _without_async(text: str) -> str:
    for before, after in _SYNC:
        text = text.replace(before, after)
    return text


def _method(request: Request) -> str:
    fields = sorted(request.model.model_fields.items(), key=lambda item: not item[1].is_required())
    by_preset = _PRESET_FIELDS if "preset" in request.model.model_fields else frozenset[str]()
    parameters = "".join(
        f"        {key}: {_parameter(field, left_out=key in by_preset)},\n" for key, field in fields
    )
    described = "".join(
        _description(key, field, left_out=key in by_preset) for key, field in fields
    )
    values = "".join(f'            "{key}": {key},\n' for key, _ in fields)
    given = [request.first.partition(":")[0]] if request.first else []
    given += ["values", "idempotency_key"] if request.keyed else ["values"]
    title = request.title or (request.model.__doc__ or "").strip().splitlines()[0]
    if request.keyed:
        parameters += "        idempotency_key: str | None = None,\n"
        described += _argument(
            "idempotency_key",
            "A request that is sent again with it is not done again; left out, a fresh one.",
        )
    return (
        f"\n    async def {request.name}(\n        self, {request.first}*,\n{parameters}"
        f"    ) -> d.{request.answer}:\n"
        f'        """{title}\n\n        Args:\n'
        + (_argument(given[0], request.first_is) if request.first else "")
        + described
        + "\n        Raises:\n            pydantic.ValidationError: a value is not usable; nothing "
        'was sent.\n            ApiError: the service refused.\n        """\n'
        f"        values = {{\n{values}        }}\n"
        f"        return await self._do(calls.{request.name}({', '.join(given)}))\n"
    )


def _description(name: str, field: FieldInfo, *, left_out: bool) -> str:
    text = " ".join((field.description or "").split())
    if left_out and field.default is not None:
        text = f"{text} Left out, `{field.default}`, or what the preset sets."
    return _argument(name, text)


def _argument(name: str, text: str) -> str:
    lines = textwrap.wrap(f"{name}: {text}", 84, subsequent_indent="    ")
    return "".join(f"            {line}\n" for line in lines)


def _parameter(field: FieldInfo, *, left_out: bool) -> str:
    """How the parameter of ``field`` is written; left_out: None by default, as a preset needs."""
    kind = _python_type(field.annotation)
    if field.is_required():
        return kind
    default = None if left_out else field.default
    if default is None or isinstance(default, BaseModel):
        return f"{kind.removesuffix(' | None')} | None = None"
    if isinstance(default, list):
        return f"{kind} = {tuple(default)!r}"
    if isinstance(default, dict):
        return f"{kind} | None = None"
    return f"{kind} = {default!r}"


def _python_type(annotation: Any) -> str:
    """How a parameter of this type is written."""
    origin, members = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _python_type(members[0])
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, members))}]"
    if origin is list:
        return f"Sequence[{_python_type(members[0])}]"
    if origin in (dict, Mapping):
        return f"Mapping[{', '.join(map(_python_type, members))}]"
    if origin is tuple:
        return f"tuple[{', '.join(map(_python_type, members))}]"
    if origin in (Union, types.UnionType):
        parts = list(dict.fromkeys(_python_type(member) for member in members))
        if "str" in parts:  # a Literal beside it adds nothing
            parts = [part for part in parts if not part.startswith("Literal")]
        return " | ".join(parts)
    if annotation is type(None):
        return "None"
    if annotation in (str, int, float, bool) or issubclass(annotation, BaseModel):
        return annotation.__name__
    return "str"  # an address, as pydantic reads it


def _formatted(text: str) -> str:
    """``text`` as ruff formats it, imports in order."""
    for command in (["check", "--select", "I,F401", "--fix", "--quiet"], ["format"]):
        text = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(FOLDER / "x.py"), "-"],
            input=text,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    return text


if __name__ == "__main__":
    for name, content in files().items():
        (FOLDER / name).write_text(content, "utf-8")
