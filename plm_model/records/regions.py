"""Regions in words and in pixels: the box text that a model reads and writes, the red box on a frame, and the axis of frames.

A box [x, y, w, h] in pixels is said as its two corners in thousandths of the image's sides, `[x1,y1,x2,y2]`. Worked
example: [19.5, 309, 34.7, 60] on an image of 480 x 640 is `[040,482,112,576]`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

Box = tuple[float, float, float, float]

PLACEHOLDER = re.compile(r"<\|bbox(\d+)\|>")
BOX_TEXT = re.compile(r"\[\s*(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})\s*\]")
RED = (255, 0, 0)
LINE_WIDTH = 4
SLACK = 1.0  # pixels by which annotated boxes may stick out and sizes may be off, from rounding
FAR = 0.05  # of the shorter side: a box that sticks out by more is looked at twice


class BoxError(ValueError):
    """A box that is no box, or lies outside its image; the message says which and why."""


def box_text(box: Sequence[float], width: float, height: float) -> str:
    """The text of a box [x, y, w, h] in pixels on an image of that size; what sticks out of the image is cut off.

    BoxError when it cannot be such a box: it has no area on the image, is given in shares of the sides, or sticks far out
    where its numbers read as [x1, y1, x2, y2] do not.
    """
    x, y, w, h = numbers_of(box)
    if w < 0 or h < 0:
        raise BoxError(f"the box {list(box)} has a negative width or height")
    if w == 0 or h == 0:
        raise BoxError(f"the box {list(box)} has no area; its last two numbers must be its width and height")
    if in_shares((x, y, w, h)):
        raise BoxError(f"the numbers of the box {list(box)} lie between 0 and 1; they must be pixels")
    require_on_image((x, y, x + w, y + h), width, height)
    fits_as_corners = 0 <= x < w <= width + SLACK and 0 <= y < h <= height + SLACK
    if fits_as_corners and overhang(box, width, height) > FAR * min(width, height):
        raise BoxError(
            f"the box {list(box)} sticks out of the image of {width:g}x{height:g}; it seems to be [x1, y1, x2, y2], but "
            "must be [x, y, w, h]"
        )
    shares = (x / width, y / height, (x + w) / width, (y + h) / height)
    return "[" + ",".join(f"{int(min(max(share, 0.0), 0.999) * 1000):03d}" for share in shares) + "]"


def overhang(box: Sequence[float], width: float, height: float) -> float:
    """By how many pixels a box [x, y, w, h] sticks out of an image of that size, at most; 0 where it does not."""
    x, y, w, h = box
    return max(-x, -y, x + w - width, y + h - height, 0.0)


def in_shares(box: Box) -> bool:
    """Whether a box seems to be in shares of its image's sides instead of pixels."""
    return max(box) <= 1


def place_boxes(text: str, boxes: Sequence[str]) -> str:
    """The text with each `<|bboxK|>` replaced by the K-th of `boxes`; BoxError when there is no such box."""

    def box(found: re.Match[str]) -> str:
        if int(found[1]) >= len(boxes):
            raise BoxError(f"{found[0]} stands in the text, but `bbox` has {len(boxes)} boxes")
        return boxes[int(found[1])]

    return PLACEHOLDER.sub(box, text)


def find_boxes(text: str, width: float, height: float) -> list[Box]:
    """The boxes in a model's answer, in pixels of an image of that size: (x1, y1, x2, y2) each."""
    found = [[int(number) / 1000 for number in match.groups()] for match in BOX_TEXT.finditer(text)]
    return [(x1 * width, y1 * height, x2 * width, y2 * height) for x1, y1, x2, y2 in found]


def corners(box: Any) -> Box:
    """A box (x1, y1, x2, y2), checked to be four finite numbers in that order."""
    x1, y1, x2, y2 = numbers_of(box)
    if x2 < x1 or y2 < y1:
        raise BoxError(f"the box {list(box)} must be [x1, y1, x2, y2] with x1 <= x2 and y1 <= y2")
    return x1, y1, x2, y2


def draw_box(image: Image.Image, box: Box) -> None:
    """Draw a red rectangle, 4 pixels wide, inside the box (x1, y1, x2, y2); of what lies outside the image nothing is seen.

    BoxError when all of it lies outside.
    """
    from PIL import ImageDraw

    require_on_image(box, image.width, image.height)
    ImageDraw.Draw(image).rectangle(box, outline=RED, width=LINE_WIDTH)


def numbers_of(box: Any) -> Box:
    """Four finite numbers."""
    values = list(box) if isinstance(box, (list, tuple)) else []
    real = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if len(values) != 4 or len(real) != 4 or not all(map(math.isfinite, real)):
        raise BoxError(f"a box must be four numbers, not {box!r}")
    return real[0], real[1], real[2], real[3]


def require_on_image(box: Box, width: float, height: float) -> None:
    """BoxError when nothing of a box (x1, y1, x2, y2) lies on an image of that size."""
    x1, y1, x2, y2 = box
    if x2 < 0 or y2 < 0 or x1 >= width or y1 >= height:
        raise BoxError(
            f"the box from ({x1:g}, {y1:g}) to ({x2:g}, {y2:g}) is outside the image of {width:g}x{height:g}"
        )
