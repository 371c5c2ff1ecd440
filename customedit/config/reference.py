"""The docs of all settings: ``python -m customedit.config.reference > docs/settings.md``."""

from __future__ import annotations

import sys
import types
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from customedit.config.settings import PREFIX, Settings


def document() -> str:
    """``docs/settings.md``: a table of all settings with their limits and defaults."""
    lines = [
        "# Settings",
        "",
        "All settings are environment variables. A value out of its limits stops the process at",
        "start, with the variable's name. Made by `python -m customedit.config.reference`.",
        "",
        "| variable | what | limits | default |",
        "|---|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        cells = [f"`{PREFIX}{name.upper()}`", field.description or "", _limits(field)]
        lines.append(f"| {' | '.join([*cells, _default(field)])} |")
    lines += [
        "",
        f"`{PREFIX}HEARTBEAT_SECONDS` is at most half of `{PREFIX}LEASE_SECONDS`. The two keys of",
        f"S3 are given together or not at all. `{PREFIX}WORKER_CONCURRENCY` is at least 2 for a",
        f"worker that takes edits and other kinds (`{PREFIX}WORKER_QUEUES`): with 1 a training",
        "would keep all edits waiting. A variable that is set but empty counts as unset.",
    ]
    return "\n".join(lines) + "\n"


def _default(field: FieldInfo) -> str:
    value = field.default
    if field.default_factory is not None or value is None:
        return "unset"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`" if value != "" else "empty"


def _limits(field: FieldInfo) -> str:
    if choices := _choices(field.annotation):
        return ", ".join(f"`{c}`" for c in choices)
    limits: dict[str, Any] = {}
    for rule in field.metadata:
        for name in ("ge", "gt", "le", "lt", "pattern"):
            if getattr(rule, name, None) is not None:
                limits[name] = getattr(rule, name)
    parts = []
    if "ge" in limits:
        parts.append(f"from {limits['ge']}")
    if "gt" in limits:
        parts.append(f"above {limits['gt']}")
    if "le" in limits:
        parts.append(f"to {limits['le']}")
    if "pattern" in limits:
        parts.append("`" + limits["pattern"].replace("|", "\\|") + "`")
    return " ".join(parts)


def _choices(annotation: Any) -> tuple[str, ...]:
    if annotation is bool:
        return ("true", "false")
    if get_origin(annotation) is Literal:
        return tuple(str(c) for c in get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        return next((c for a in get_args(annotation) if (c := _choices(a))), ())
    return ()


if __name__ == "__main__":
    sys.stdout.write(document())
