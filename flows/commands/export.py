"""`plm export` on the screen."""

from __future__ import annotations

import sys
from typing import Any

from components.terminal_text import one_line


def show_export(result: dict[str, Any]) -> None:
    """One line on standard output, each note as a warning on standard error."""
    for note in result["notes"]:
        print(f"warning: {one_line(note)}", file=sys.stderr)
    said = f"{result['tensors']} tensors  {result['from_format']} {result['from']} -> {result['format']} {result['to']}"
    print(one_line(said))
