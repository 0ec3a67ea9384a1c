"""Names of files in messages."""

from __future__ import annotations

SHOWN_NAME = 80


def short(name: str) -> str:
    """A name for a message, cut where it is longer than any name that people give: a whole picture in base64, say."""
    return name if len(name) <= SHOWN_NAME else f"{name[:SHOWN_NAME]}… ({len(name):,} characters)"
