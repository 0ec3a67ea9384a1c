"""The letter that an answer to a multiple-choice question chooses, however the answer is worded."""

from __future__ import annotations

import re

from components.evaluate.metrics.exact_match import exact_match

NO_OTHER = r"(?!\W*(?:or|and)\W+[A-Za-z]\b)"  # `(A) or (B)` chooses neither
ALONE = re.compile(r"\W*([A-Za-z])\W*")  # B, (b), **B**, B.
# (B) a cat, B. a cat, b) a cat, **B** a cat
FIRST = re.compile(r"\W*(?:\(([A-Za-z])\)|([A-Za-z])\s?[).:\]*](?=\s|\*|$))" + NO_OTHER)
# A bare small letter after `answer is` is mostly the article: only a capital, or a letter in brackets or before ) . : counts.
STATED = re.compile(
    r"(?:(?i:\b(?:answer|option|choice)\b(?:\s+(?:is|would\s+be))?(?:\s+(?:option|choice))?)[\s:=\"'*`>]*|\\boxed\{\s*)"
    r"(?:\(([A-Za-z])\)|([A-Za-z])(?=[).:}]|\W*$)|([A-Z])\b)(?!\W*\s(?:is|was)\s+(?:wrong|incorrect|false|not)\b)"
    + NO_OTHER
)
BRACKETED = re.compile(r"\(([A-Za-z])\)")
LEADING = re.compile(r"\W*([B-HJ-Z])\b(?!['’.-]\w)" + NO_OTHER)  # B because ...; A and I are mostly words there


def chosen_letter(text: str) -> str | None:
    """The chosen letter as a capital, or None where the text names none, or several.

    `B`, `(B)`, `B.`, `b) a cat`, `Answer: B` and `The answer is (b) a cat` -> B. Of several statements the last counts.
    """
    if alone := ALONE.fullmatch(text.strip().partition("\n")[0]):  # a letter, and below it perhaps a reason
        return alone[1].upper()
    if stated := list(STATED.finditer(text)):
        return next(letter for letter in stated[-1].groups() if letter).upper()
    if first := FIRST.match(text):
        return (first[1] or first[2]).upper()
    bracketed = {letter.upper() for letter in BRACKETED.findall(text)}
    if bracketed:
        return bracketed.pop() if len(bracketed) == 1 else None
    leading = LEADING.match(text)
    return leading[1] if leading else None


def choice(answer: str, reference: str) -> float:
    """1.0 when the answer chooses the reference's letter; a reference without a letter is compared as `exact_match` does."""
    right = chosen_letter(reference)
    if right is None:
        return exact_match(answer, reference)
    return float(chosen_letter(answer) == right)
