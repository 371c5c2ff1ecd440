"""Kinds of values that settings have, and what is wrong with one that is none."""

from __future__ import annotations

import re
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator


def _address(*schemes: str) -> AfterValidator:
    def check(value: str | None) -> str | None:
        if value is not None:
            parts = urlsplit(value)
            if parts.scheme not in schemes or not (parts.hostname or parts.path):
                raise ValueError(f"is no address; it starts with {' or '.join(schemes)}")
        return value

    return AfterValidator(check)


WebAddress = Annotated[str | None, _address("http", "https")]
RedisAddress = Annotated[str, _address("redis", "rediss", "unix")]

_HOST: Final = r"([a-z0-9.-]+|\[[0-9a-f:]+\])"
_ORIGIN: Final = re.compile(rf"(http://{_HOST}(?!:80$)|https://{_HOST}(?!:443$))(:[0-9]{{1,5}})?")


def _origins(value: str) -> str:
    """Origins as browsers send them in ``Origin``: they are compared letter by letter."""
    for number, origin in enumerate(value.split(",") if value else [], 1):
        if origin.strip() == "*":
            raise ValueError("* is refused, it would let every page in; name each origin")
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(
                f"entry {number} is no origin as browsers send it: https://host or "
                "https://host:port in small letters, no path, no usual port, no spaces"
            )
    return value


Origins = Annotated[str, AfterValidator(_origins)]
