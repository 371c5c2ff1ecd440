"""English that prompts and captions share."""

from __future__ import annotations


def article(phrase: str) -> str:
    """``phrase`` with "a" or "an" before it."""
    return f"{'an' if phrase[:1].lower() in 'aeiou' else 'a'} {phrase}"
