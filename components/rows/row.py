"""A line of an annotation file as a row, or why it is none."""

from __future__ import annotations

import codecs
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.errors import UserError

SHOWN_CHARACTERS = 200  # of a line that cannot be read, in reports
SHOWN_ROW = 10_000  # characters of a row in the list of rejects
SHOWN_KEYS = 12
BYTE_ORDERS = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16", codecs.BOM_UTF32_BE: "UTF-32"}


@dataclass(frozen=True)
class Row:
    """One annotation: the line it begins on (from 1) and its values; CSV values are strings."""

    line: int
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Rejected:
    """A line that cannot be used, and why; `row` is what was read, or the text of the line."""

    file: str
    line: int
    reason: str
    row: Any

    def json_line(self) -> str:
        """The line of a list of rejects; a row that is very long, or nested too deeply to be written, is cut."""
        try:
            text = json.dumps(self.row, ensure_ascii=False, default=str)
            text.encode("utf-8")  # half a surrogate pair is none
        except (RecursionError, UnicodeEncodeError):
            text = json.dumps(cut(f"{type(self.row).__name__} that cannot be shown"))
        if len(text) > SHOWN_ROW:
            text = json.dumps(cut(text), ensure_ascii=False)
        place = json.dumps({"file": self.file, "line": self.line, "reason": self.reason}, ensure_ascii=False)
        return f'{place[:-1]}, "row": {text}}}\n'


def cut(text: str, length: int = SHOWN_CHARACTERS) -> str:
    """A text, or its beginning with how long it was, without what cannot be written."""
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= length else f"{text[:length]}… ({len(text):,} characters)"


def keys_of(values: Mapping[str, Any]) -> str:
    """`its keys are 'conversations', 'picture'`."""
    shown = ", ".join(repr(key[:40]) for key in list(values)[:SHOWN_KEYS])
    return f"its keys are {shown}" + (", …" if len(values) > SHOWN_KEYS else "")


def require_text_file(start: bytes, name: str) -> None:
    """UserError when a file that begins with these bytes is not text in UTF-8."""
    code = next((code for mark, code in BYTE_ORDERS.items() if start.startswith(mark)), None)
    if code is None and b"\0" in start[:4]:
        code = "UTF-16"
    if code is not None:
        raise UserError(f"{name}: {code} text; save it as UTF-8")
    if b"\0" in start[:1000] or start.startswith(b"PK\x03\x04"):
        raise UserError(f"{name}: not text; save it as UTF-8")
    try:
        start.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{name}:1: not UTF-8 text (byte 0x{start[error.start]:02x}); save it as UTF-8") from None
