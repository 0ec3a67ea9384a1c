"""Text that others wrote, for a terminal: what would move the cursor, set a title or fill the clipboard is shown, not done.

Worked example: an answer with a line feed, an ESC and `]0;title` in it is printed with `\\x1b]0;title` in plain letters. Each
character stands for itself, so that an answer may be shown piece by piece.
"""

from __future__ import annotations

import re

# C0 but tab and line feed, DEL, C1, marks and overrides of the writing direction, and halves of surrogate pairs.
UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def visible(text: str) -> str:
    """The text with every control character spelled out; line feeds and tabs stay."""
    return UNSEEN.sub(lambda found: spelled(found[0]), text)


def one_line(text: str) -> str:
    """The same as a single line."""
    return visible(text.replace("\r\n", " ").replace("\n", " ").replace("\t", " "))


def spelled(character: str) -> str:
    """`\\x1b` for ESC, `\\u202e` for a right-to-left override."""
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
