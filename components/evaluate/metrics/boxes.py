"""Boxes and time spans read from text, and how well those of an answer cover those of a reference (IoU)."""

from __future__ import annotations

import re
from math import prod

NUMBER = r"\s*(-?\d+(?:\.\d+)?)\s*"
SECONDS = r"s(?:ec(?:ond)?s?)?\b"
BOX = re.compile(r"[\[(]" + ",".join([NUMBER] * 4) + r"[\])]")
SPAN = re.compile(
    r"[\[(]" + ",".join([NUMBER] * 2) + r"[\])]"
    # Without brackets only a unit tells a span of time from a range of years: 12.5 - 20.0 seconds.
    r"|(\d+(?:\.\d+)?)\s*(?:" + SECONDS + r")?\s*(?:-|–|—|to\b|and\b)\s*(\d+(?:\.\d+)?)\s*" + SECONDS,
    re.IGNORECASE,
)
BETWEEN = re.compile(r"\W*(?:\b(?:from|between|and)\b\W*)*", re.IGNORECASE)

Region = tuple[float, ...]
"""The low ends, then the high ends: a box is x1, y1, x2, y2 in the text's own units, a span start and end in seconds."""


def boxes(text: str) -> list[Region]:
    """`[040,482,112,576]` -> (40, 482, 112, 576); every box of the text, in order."""
    return _regions(BOX, text)


def spans(text: str) -> list[Region]:
    """`[12.5, 20.0]` and `12.5 - 20.0 seconds` -> (12.5, 20); every time span of the text, in order."""
    return _regions(SPAN, text)


def only_boxes(text: str) -> bool:
    """Whether the text is one box or several and nothing else."""
    return bool(boxes(text)) and bool(BETWEEN.fullmatch(BOX.sub(" ", text)))


def only_spans(text: str) -> bool:
    """Whether the text is one time span or several and nothing else, but for words like `from`."""
    return bool(spans(text)) and bool(BETWEEN.fullmatch(SPAN.sub(" ", text)))


def _regions(pattern: re.Pattern[str], text: str) -> list[Region]:
    return [tuple(float(number) for number in found.groups() if number) for found in pattern.finditer(text)]


def overlap(first: Region, second: Region) -> float:
    """Intersection over union. Ends in the wrong order cover nothing; equal regions have 1, even a point in time.

    (0, 0, 10, 10) and (5, 0, 15, 10): 50 / 150 = 1/3.
    """
    if first == second:
        return 1.0
    half = len(first) // 2
    low = map(max, first[:half], second[:half])
    high = map(min, first[half:], second[half:])
    shared = prod(max(0.0, end - start) for start, end in zip(low, high, strict=True))
    union = _size(first) + _size(second) - shared
    return shared / union if union else 0.0


def _size(region: Region) -> float:
    half = len(region) // 2
    return prod(max(0.0, end - start) for start, end in zip(region[:half], region[half:], strict=True))


def matched(found: list[Region], wanted: list[Region]) -> float:
    """Regions paired greedily, the best overlap first; the sum over the larger count, so that a missing and a surplus
    region cost alike.

    Two boxes wanted, one of them found exactly -> 1/2. Where nothing can be read, 0.
    """
    pairs = [(overlap(one, other), i, j) for i, one in enumerate(found) for j, other in enumerate(wanted)]
    total, used, covered = 0.0, set[int](), set[int]()
    for iou, i, j in sorted(pairs, key=lambda pair: -pair[0]):
        if i not in used and j not in covered:
            total += iou
            used.add(i)
            covered.add(j)
    return total / max(len(found), len(wanted), 1)


def iou_box(answer: str, reference: str) -> float:
    """How well the answer's boxes cover the reference's, 0..1."""
    return matched(boxes(answer), boxes(reference))


def iou_time(answer: str, reference: str) -> float:
    """How well the answer's time spans cover the reference's, 0..1."""
    return matched(spans(answer), spans(reference))
