"""What fields of requests have in common: kinds of values and their limits.

Nothing here imports torch, so the front end refuses bad requests without it.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    AnyHttpUrl,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    UrlConstraints,
)
from pydantic_core import PydanticCustomError

from customedit.schemas import patterns
from customedit.schemas.file_names import file_name

MAX_REFERENCES: Final = 20

MAX_WORDS: Final = 40
MAX_SEED: Final = 2**53
"""The largest whole number that every JSON parser reads exactly."""


def number(value: Any) -> Any:
    """Refuses texts and booleans, which pydantic would take for numbers."""
    if isinstance(value, bool | str | bytes):
        raise PydanticCustomError("number_type", "is not a number")
    return value


NUMBER: Final = BeforeValidator(number)
ImageId = Annotated[str, StringConstraints(pattern=patterns.IMAGE)]
PictureId = Annotated[str, StringConstraints(pattern=patterns.PICTURE)]
ConceptId = Annotated[str, StringConstraints(pattern=patterns.CONCEPT)]
Prompt = Annotated[str, StringConstraints(strip_whitespace=True, max_length=1000)]
Phrase = Annotated[str, StringConstraints(pattern=patterns.PHRASE, max_length=100)]
Token = Annotated[str, StringConstraints(pattern=patterns.TOKEN)]
Word = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Words = Annotated[list[Word], Field(max_length=MAX_WORDS)]
Name = Annotated[str, StringConstraints(strip_whitespace=True, max_length=200)]
FileName = Annotated[str, AfterValidator(file_name)]
Share = Annotated[float, Field(ge=0, le=1), NUMBER]
Seed = Annotated[int, Field(ge=0, lt=MAX_SEED), NUMBER]
Webhook = Annotated[AnyHttpUrl, UrlConstraints(max_length=2000)]

NOT_BLANK: Final[dict[str, Any]] = {"pattern": r"\S"}
WEBHOOK: Final = "An https address that is called at the job's end, signed with your secret."


class RequestModel(BaseModel):
    """Base of all requests: unknown fields are refused, numbers are numbers and finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
