"""An answer shown while it grows: each character once, and none that could still change.

A character of several bytes is not whole until its last token came, and the beginning of a stop string may yet be cut off;
both wait. With the stop string `END`, `The E` shows `The `; then `The East` shows `East`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


class TextStream:
    """Gives `write` the settled part of one growing text, piece by piece. Its `update` is `generate`'s `on_text`."""

    def __init__(self, write: Callable[[str], object], stop: Sequence[str] = ()) -> None:
        self.write = write
        self.stop = stop
        self.shown = 0

    def update(self, row: int, text: str, ended: bool) -> None:
        """Take the text so far; `row` is not looked at, one stream shows one row."""
        settled = len(text) if ended else settled_length(text, self.stop)
        if settled > self.shown:
            self.write(text[self.shown : settled])
            self.shown = settled


def settled_length(text: str, stop: Sequence[str]) -> int:
    """How much of a text no later token can change or cut off."""
    whole = text.rstrip(INCOMPLETE)
    starts = [end for word in stop for end in range(1, len(word)) if whole.endswith(word[:end])]
    return len(whole) - max(starts, default=0)
