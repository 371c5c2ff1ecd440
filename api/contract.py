"""The contract as a file: ``python -m api.contract > docs/openapi.json``.

It is committed, so that a change of the API shows in review, and so that clients can compare two
versions.
"""

from __future__ import annotations

import json

from api.app import create_app
from customedit.config.settings import Settings


def text() -> str:
    """The OpenAPI document as it is served, laid out for reading and comparing."""
    return json.dumps(create_app(Settings()).openapi(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(text(), end="")
