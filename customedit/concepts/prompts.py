"""The sentences that a concept is trained with: modifier token, attribute word, class noun.

Custom-Edit's augmented prompts, "photo of a V* patterned teapot": the attribute says *what* of the
references to learn, the noun what they show.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from customedit.errors import InputError
from customedit.prompt_syntax import CONCEPT, article

FRAMINGS: Final = ("", "far away", "very small", "zoomed in", "close up")
"""What a prompt says of how a reference is framed: see ``ConceptPrompts.instance``."""

_WORDS = re.compile(r"[^\W_][\w' -]*")


Form: TypeAlias = tuple[str, str]
"""What a prompt calls the picture, and the word before the thing."""

PLAIN: Final[Form] = ("photo", "a")
FORMS: Final[tuple[Form, ...]] = tuple(
    itertools.product(("photo", "picture", "image"), ("a", "the"))
)
"""Of varied sentences, as Textual Inversion trains with (arXiv 2208.01618, section 4)."""


@dataclass(frozen=True)
class ConceptPrompts:
    """The words of one concept.

    token: like "<plaid>"; noun: what the references show; attribute: what to learn of them,
    empty for no augmentation (the ablation).

    Raises InputError for a token or words that are ill spelt.
    """

    token: str
    noun: str
    attribute: str = ""

    def __post_init__(self) -> None:
        if not CONCEPT.fullmatch(self.token):
            raise InputError(
                "token",
                f"{self.token!r} is not a concept token",
                "write < >, and between them up to 63 of a-z, 0-9, _ and -, like <plaid>",
            )
        if not _WORDS.fullmatch(self.noun):
            raise InputError("noun", f"{self.noun!r} is not a word", "use a noun like teapot")
        if self.attribute and not _WORDS.fullmatch(self.attribute):
            raise InputError(
                "attribute", f"{self.attribute!r} is not a word", "use one like patterned"
            )

    def thing(self) -> str:
        """How the thing is called: <plaid> patterned teapot."""
        return " ".join(w for w in (self.token, self.attribute, self.noun) if w)

    def instance(self, prefix: str = "", form: Form = PLAIN) -> str:
        """The prompt of a reference image; ``prefix`` as crop augmentation has it."""
        medium, determiner = form
        if prefix == "very small":
            return f"{article(medium)} of {determiner} very small {self.thing()}"
        return f"{article(f'{prefix} {medium}'.lstrip())} of {determiner} {self.thing()}"

    def check(self, check: Callable[[str, str], object]) -> None:
        """Call ``check`` with each prompt of a reference and the field to be shortened."""
        field = "noun" if len(self.noun) >= len(self.attribute) else "attribute"
        for prefix in FRAMINGS:
            check(self.instance(prefix), field)
