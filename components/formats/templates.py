"""The answer's template and the choice of a question, both checked when the config is read, not in the middle of a file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any

from components.errors import Unusable, UserError


@dataclass(frozen=True)
class Template:
    """Text with {column} in it; `pieces` are (literal, column or None)."""

    pieces: tuple[tuple[str, str | None], ...]

    @property
    def columns(self) -> list[str]:
        return [column for _, column in self.pieces if column is not None]

    def fill(self, values: Mapping[str, Any]) -> str:
        """The text with the row's values in it. Raises Unusable."""
        return "".join(text + ("" if column is None else value_of(values, column)) for text, column in self.pieces)


def parse_template(text: str, aliases: Mapping[str, str], key: str) -> Template:
    """Read a template; {alias} stands for the column it maps to. UserError naming the config key when it is malformed."""
    try:
        parsed = list(Formatter().parse(text))
    except ValueError as error:
        raise UserError(f"{key}: {text!r}: {error}; write {{{{ and }}}} for braces") from None
    for _, column, layout, conversion in parsed:
        if column == "" or layout or conversion:
            raise UserError(f"{key}: {text!r}: only {{answer}} and {{column}} stand in braces")
    return Template(tuple((literal, column and aliases.get(column, column)) for literal, column, _, _ in parsed))


def value_of(values: Mapping[str, Any], column: str) -> str:
    """A row's value as text: a non-blank string, or a number. Raises Unusable."""
    value = values.get(column)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise Unusable(f"no text in column {column!r}")
    return value.strip()


def choose_question(questions: Sequence[str], id: str) -> str:
    """One of the questions, always the same for the same id."""
    return questions[int.from_bytes(hashlib.sha256(id.encode()).digest()[:8], "big") % len(questions)]
