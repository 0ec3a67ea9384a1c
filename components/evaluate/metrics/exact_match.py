"""When an answer counts as right: it says the same as the target, whatever the case, spacing and punctuation around it."""

from __future__ import annotations

OPENING = "\"'`*([{<«“‘"
CLOSING = OPENING + ")]}>»”’.,;:!?…"


def normalised(text: str) -> str:
    """The part of a text that is compared.

    `" The Cat. "` -> `the cat`; `(7)` -> `7`. Punctuation inside, a sign or a unit is kept: `1.5`, `-3` and `5%` stay as
    they are, and a text of nothing but punctuation is compared as it is.
    """
    words = " ".join(text.casefold().split())
    bare = words.lstrip(OPENING + " ").rstrip(CLOSING + " ")
    return bare or words


def exact_match(answer: str, target: str) -> float:
    """1.0 when the two say the same, else 0.0."""
    return float(normalised(answer) == normalised(target))
