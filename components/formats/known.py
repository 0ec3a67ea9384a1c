"""The formats that are known; of a row the first one that takes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.formats import columns, conversations, texts
from components.formats.format import Format

FORMATS: tuple[Format, ...] = (conversations, texts, columns)


def format_of(values: Mapping[str, Any]) -> Format:
    """The format in which a row with these values is written."""
    return next(format for format in FORMATS if format.takes(values))
