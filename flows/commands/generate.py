"""`plm generate` on the screen."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from components.terminal_text import one_line, visible


class Screen:
    """The answer on standard output under its heading, as it comes, with a newline at its end.

    A model may have learnt escape sequences: they are shown as text.
    """

    def __init__(self) -> None:
        self.begun = False

    def show(self, piece: str) -> None:
        """Print the next piece."""
        if not self.begun:
            print("Generation:")
            self.begun = True
        print(visible(piece), end="", flush=True)

    def close(self, notes: Sequence[str]) -> None:
        """End the answer, which may be empty; each note is a warning on standard error."""
        self.show("\n")
        for note in notes:
            print(f"warning: {one_line(note)}", file=sys.stderr)
