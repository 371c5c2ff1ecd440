"""How a prompt names concepts, and what looks like syntax but would be read as plain letters.

A concept is named by its token, such as ``<plaid>``. Other programs know more: weights as in
``(cup:1.3)`` and ``cup++``, ``<lora:file:0.8>``, alternatives. Here these would be tokenized letter
by letter and do nothing useful, so they are refused with what to write instead. No torch: the
front end checks prompts at submit with the rules that the library itself keeps to.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Final, NoReturn

from customedit.errors import InputError

CONCEPT: Final = re.compile(r"<[a-z0-9][a-z0-9_-]{0,62}>")
"""How a concept's token is spelt in a prompt."""

_NAME: Final = r"\w[\w. -]{0,62}?"
_OPEN: Final = "(?:[\uff1c\ufe64]|&(?:lt|#0*60|#x0*3c);)"
_CLOSE: Final = "(?:[\uff1e\ufe65]|&(?:gt|#0*62|#x0*3e);)"
_LOOKALIKE: Final = re.compile(
    rf"{_OPEN}\s*({_NAME})\s*(?:{_CLOSE}|>)|<\s*({_NAME})\s*{_CLOSE}", re.IGNORECASE
)
"""A name between brackets that are full-width or HTML-escaped."""

_BRACKETED: Final = re.compile(r"<([^<>]{0,200})>")
_ADAPTER: Final = re.compile(
    r"<\s*(?:lora|lyco|lycoris|hypernet)\s*:|\bembedding:\S", re.IGNORECASE
)
_CONTROL: Final = re.compile(r"<\|[^<>|\s]{1,40}\|>")
_OTHER_BRACKETS: Final = re.compile(
    "[\u00ab\u2039\u27e8\u3008\u300a\\[{]\\s*([\\w-]{1,63})\\s*[\u00bb\u203a\u27e9\u3009\u300b\\]}]"
)
"""A name between quotation marks or other brackets: a token only if a concept has that name."""

_NUMBER = r"[+-]?(?:\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})"
_WEIGHTED: Final = re.compile(
    rf"\([^()]{{0,500}}[^()\d\s]:{_NUMBER}\s*\)"  # (cup:1.3), not (at 10:30) nor (chapter: 3)
    r"|\([^()]{0,500}[^()\d\s]\s?:\s?[+-]?\d{0,9}\.\d{1,9}\s*\)"  # (cup: 1.3)
    r"|\)(?:\+{1,9}|-{2,9}|\d{1,3}\.\d{1,9})(?=[\s,.;)]|$)"  # (red cup)++, (red cup)1.3
    r"|\(\((?=[^()\s])[^()]{0,500}\)\)"  # ((cup))
    rf"|\[[^\[\]]{{0,500}}[^\[\]\d\s]:{_NUMBER}\s*\]"  # [red:blue:0.5], [cup:0.8]
)
_SIGNED: Final = re.compile(r"(?<![\w+-])([^\W\d_]{2,63})(?:\+{2,9}|-{2,9})(?=[\s,.;)]|$)")
"""``cup++`` and ``cup--``; one letter before them (c++, g++) is a name."""

_NAMES_WITH_SIGNS: Final = frozenset({"notepad", "dc", "obj"})
_ALTERNATIVES: Final = re.compile(r"[\[{]\s*[^\[\]{}|]{1,200}\|[^\[\]{}]{0,200}[\]}]")


def tokens_in(text: str) -> list[str]:
    """The concept tokens that ``text`` names, in order, each once."""
    return list(dict.fromkeys(CONCEPT.findall(text)))


_JOINT: Final = " + "


def joined_words(words: Iterable[str]) -> str:
    """The nouns or attributes of several concepts as those of one, each once; empty ones go."""
    return _JOINT.join(dict.fromkeys(word for word in words if word))


def separate_words(words: str) -> list[str]:
    """The nouns or attributes that ``joined_words`` made one of."""
    return [word for word in words.split(_JOINT) if word.strip()]


def check_prompt(text: str, known: Collection[str], field: str = "prompt") -> None:
    """Check the tokens and the syntax of a prompt that may name the concept tokens ``known``.

    Raises:
        InputError: naming ``field``, what stands in the prompt and what to write instead: for a
            token that is not known, a token in other brackets, letters or with spaces, prompt
            weights, LoRA tags, alternatives, and control tokens of the tokenizer.
    """
    for token in tokens_in(text):
        if token not in known:
            given = ", ".join(known) or "none"
            raise InputError(
                field,
                f"names {token}, which is not a concept of this request (given: {given})",
                "give the concept with the request, or correct the token",
            )
    _check_adapters(text, field)
    _check_brackets(text, known, field)
    _check_weights(text, field)


def unknown_words(text: str, known: Collection[str]) -> list[str]:
    """The words of ``text`` that are not among ``known``, in order, each once.

    known: small letters, no punctuation. Concept tokens (``<teapot>``) are not words.
    """
    plain = re.sub(r"<[^<>\s]+>", " ", text.lower())
    return list(dict.fromkeys(w for w in re.findall(r"[a-z]+", plain) if w not in known))


def _check_adapters(text: str, field: str) -> None:
    if match := _ADAPTER.search(text):
        end = text.find(">", match.start())
        tag = text[match.start() : end + 1] if end >= 0 else text[match.start() :].split()[0]
        raise InputError(
            field,
            f"contains {_short(tag)}, a tag of another program, which loads nothing here",
            "give the concept with the request and name it by its token, like <plaid>",
        )
    if match := _CONTROL.search(text):
        raise InputError(
            field, f"contains {match.group()}, a control token of the tokenizer", "leave it out"
        )


def _check_brackets(text: str, known: Collection[str], field: str) -> None:
    """Refuse what is meant as a token but is not spelt like one."""
    if match := _LOOKALIKE.search(text):
        _refuse_spelling(match.group(), match.group(1) or match.group(2), known, field)
    for match in _BRACKETED.finditer(text):
        inner = match.group(1)
        name = inner.strip()
        spaced = inner[:1].isspace() or inner[-1:].isspace()
        comparison = spaced and re.search(r"\s", name) and _token_for(name) not in known
        a_name = re.search(r"\w", name) and not comparison  # not "<->", nor "a < b or c > d"
        if a_name and not CONCEPT.fullmatch(match.group()):
            _refuse_spelling(match.group(), name, known, field)
    for match in _OTHER_BRACKETS.finditer(text):
        if _token_for(match.group(1)) in known:
            _refuse_spelling(match.group(), match.group(1), known, field)
    for token in known:
        halves = rf"{re.escape(token[:-1])}(?![\w>-])|(?<![\w<-]){re.escape(token[1:])}"
        doubled = rf"<{re.escape(token)}>?|{re.escape(token)}>"
        if match := re.search(rf"{doubled}|{halves}", text, re.IGNORECASE):
            _refuse_spelling(match.group(), token[1:-1], known, field)


def _token_for(name: str) -> str:
    """The token that was probably meant by ``name``."""
    return f"<{re.sub(r'[^a-z0-9_-]+', '-', name.strip().lower()).strip('-_')[:63]}>"


def _refuse_spelling(written: str, name: str, known: Collection[str], field: str) -> NoReturn:
    meant = _token_for(name)
    spelling = "< >, and between them small letters, digits, _ and -, without spaces"
    if meant in known:
        remedy = f"write {meant}"
    elif CONCEPT.fullmatch(meant):
        remedy = f"write {meant} and give that concept, or leave the brackets out"
    else:
        remedy = f"leave the brackets out; a token is {spelling}"
    raise InputError(field, f"contains {_short(written)}, which is not a concept token", remedy)


def _check_weights(text: str, field: str) -> None:
    """Refuse the prompt weights of other programs."""
    match = _WEIGHTED.search(text)
    if not match:
        match = next(
            (m for m in _SIGNED.finditer(text) if m.group(1).lower() not in _NAMES_WITH_SIGNS), None
        )
    if match:
        words = re.sub(rf":\s*{_NUMBER}|[()\[\]+]|-{{2,}}|\)\d+\.\d+", " ", match.group())
        plain = " ".join(words.split()) or "the words alone"
        raise InputError(
            field,
            f"contains {_short(match.group())}, a prompt weight, which is not supported",
            f"write {_short(plain)}; Prompt-to-Prompt's reweight setting and a concept's weight "
            "change how much a word counts",
        )
    if match := _ALTERNATIVES.search(text):
        raise InputError(
            field,
            f"contains {_short(match.group())}, alternatives, which are not supported",
            "write one of them",
        )


def _short(text: str) -> str:
    """``text`` in one line of at most 60 characters."""
    line = " ".join(text.split())
    return line if len(line) <= 60 else line[:57] + "..."


def article(phrase: str) -> str:
    """``phrase`` with "a" or "an" before it."""
    return f"{'an' if phrase[:1].lower() in 'aeiou' else 'a'} {phrase}"
