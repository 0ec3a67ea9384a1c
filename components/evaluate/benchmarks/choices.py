"""Questions of multiple choice and of yes or no: how they are put, and which choice an answer names."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

LETTERS = string.ascii_uppercase
NAMED = re.compile(r"(?i:answer|option|choice)\s*(?i:is)?\s*:?\s*\(?([A-Z])\)?(?![A-Za-z])")
BRACKETED = re.compile(r"\(([A-Z])\)")
LEADING = re.compile(r"^\W*([A-Za-z])(?=[).:,;]|$)|^\W*([B-HJ-Z])(?=\s)")  # `A dog` and `I see` begin with words


def choice_question(question: str, options: Sequence[str], kwargs: Mapping[str, Any] | None) -> str:
    """A question, its options behind letters, and the task's instruction."""
    listed = "\n".join(f"({letter}) {option}" for letter, option in zip(LETTERS, options, strict=False))
    return f"{question.strip()}\n{listed}\n{(kwargs or {}).get('post_prompt', '')}".strip()


def chosen(answer: str, options: Sequence[str]) -> str | None:
    """The letter that an answer names, or None.

    In this order: a letter at its beginning, `B`, `(b)`, `B. a cat`; the last one named as the answer, `the answer is C`; the
    last in brackets; an option's text, when the answer is just that.
    """
    text, known = answer.strip(), LETTERS[: len(options)]
    bare = text.strip(".() ").upper()
    leading = LEADING.match(text)
    found = [bare] if len(bare) == 1 else []
    found += [(leading[1] or leading[2]).upper()] if leading else []
    found += [*NAMED.findall(text)[::-1], *BRACKETED.findall(text)[::-1]]
    said = text.strip(". ").casefold()
    found += [letter for letter, option in zip(known, options, strict=False) if option.strip(". ").casefold() == said]
    return next((letter for letter in found if letter in known), None)


def yes_or_no(answer: str) -> bool | None:
    """What an answer says first: yes or true, no or false, or neither (None)."""
    first = re.match(r"\W*([A-Za-z]+)", answer)
    return {"yes": True, "true": True, "no": False, "false": False}.get(first[1].lower()) if first else None
