"""What was noticed about rows that are not rejected, counted by kind with the first places: nothing is dropped without a word.

Every count of rows closes: rows = used + repaired + rejected. A row is repaired when what is trained on is not what it
says; all other kinds are observations on rows that are used as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

SHOWN_PLACES = 3
# kind -> what it means, as the last line and the page of a step say it. One word of each may be in a row's notes.
REPAIRS: dict[str, str] = {
    "box_clamped": "boxes cut at the edge of their image",
    "drawn_box_clipped": "drawn boxes cut at the edge of their frame",
    "box_frames_ignored": "boxes left out of frames behind the end of the video",
    "number_as_text": "numbers taken as text",
    "answer_first": "answers left out that stand before any question",
    "answer_repeated": "answers left out that follow another answer",
    "question_replaced": "questions left out that another question follows",
    "question_last": "questions left out that nothing answers",
    "cut_to_fit": "dialogues cut to what fits",
    "weight_as_1": "answers of a weight that is neither 0 nor 1, trained as 1",
}
OBSERVATIONS: dict[str, str] = {
    "not_a_number": "with NaN or infinity in a column, read as no value",
    "text_only": "text only, without image or video",
    "unread_path": "text only, though a key seems to name a picture or video",
    "unread_media": "with a further key that names media, which are not shown",
    "repeated_row": "equal to an earlier row",
    "repeated_id": "with the id of an earlier row, told apart by a number behind it",
    "damaged_picture": "with a picture that is damaged, though it can be shown",
    "blank": "with a picture or video of less than 4 % of the range from black to white",
    "dark_16_bit": "with 16-bit grey of less than a tenth of its range: processor.sixteen_bit_white says what is white",
    "huge_picture": "with a picture of more than 89 million pixels",
    "variable_rate": "with a video whose frame rate varies, of which frames are taken by their own times",
    "image_beats_video": "with an image and a video, of which the image is shown",
    "empty_answer": "with an empty answer",
    "weight_0": "with answers of weight 0, which are not trained",
    "tag_in_answer": "with a tag such as <image> in an answer, where it stays text",
    "tag_in_later_turn": "with a tag such as <image> in a later question, where it stays text",
}


@dataclass
class Noted:
    """How many rows each kind was noticed in, and where first (`file:line` as the user knows it)."""

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, list[str]] = field(default_factory=dict)
    repaired: int = 0  # rows with at least one kind of REPAIRS

    def add(self, kinds: Iterable[str], where: str) -> None:
        """Count one row's kinds, each once. KeyError for a kind that has no meaning in the tables above."""
        found = sorted(set(kinds))
        for kind in found:
            if kind not in REPAIRS and kind not in OBSERVATIONS:
                raise KeyError(f"{kind}: not a kind of REPAIRS or OBSERVATIONS")
            self.counts[kind] = self.counts.get(kind, 0) + 1
            places = self.first.setdefault(kind, [])
            if len(places) < SHOWN_PLACES:
                places.append(where)
        self.repaired += any(kind in REPAIRS for kind in found)

    def __add__(self, other: Noted) -> Noted:
        kinds = sorted({*self.counts, *other.counts})
        return Noted(
            {kind: self.counts.get(kind, 0) + other.counts.get(kind, 0) for kind in kinds},
            {kind: [*self.first.get(kind, ()), *other.first.get(kind, ())][:SHOWN_PLACES] for kind in kinds},
            self.repaired + other.repaired,
        )

    def line(self) -> str:
        """One line for the end of a step, empty where nothing was noticed: `12 text only, such as rows.jsonl:4; 1 ...`."""
        return "; ".join(
            f"{count} {meaning(kind)}, such as {self.first[kind][0]}" for kind, count in sorted(self.counts.items())
        )

    def to_json(self) -> dict[str, Mapping[str, Any]]:
        """{kind: {meaning, rows, first}} for a report and a page."""
        return {
            kind: {"meaning": meaning(kind), "rows": count, "first": self.first[kind]}
            for kind, count in sorted(self.counts.items())
        }


def meaning(kind: str) -> str:
    """A kind in words."""
    return REPAIRS.get(kind) or OBSERVATIONS[kind]
