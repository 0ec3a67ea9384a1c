from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from PIL import Image

from plm_model.regions import BoxError, box_text, corners, draw_box, find_boxes, frame_on_axis, place_boxes


def test_box_is_said_in_thousandths_of_the_sides() -> None:
    assert box_text([19.5, 309, 34.7, 60], 480, 640) == "[040,482,112,576]"


@pytest.mark.parametrize(
    ("box", "text"),
    [
        ([0, 0, 100, 200], "[000,000,999,999]"),
        ([29, 57, 1, 1], "[290,285,300,290]"),
        ([-0.4, 0, 100.9, 200.9], "[000,000,999,999]"),
        ([50, 50, 0, 0], "[500,250,500,250]"),
    ],
)
def test_shares_are_cut_not_rounded_and_end_at_999(box: list[float], text: str) -> None:
    assert box_text(box, 100, 200) == text


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([90, 0, 20, 5], r"from \(90, 0\) to \(110, 5\) is outside the image of 100x200"),
        ([0, -9, 20, 20], "outside the image"),
        ([0, 0, 20, 300], "outside the image"),
        ([0, 0, math.nan, 5], "must be four numbers, not .*nan"),
        ([0, 0, math.inf, 5], "must be four numbers"),
        ([0, 0, 5], "must be four numbers"),
        ([0, 0, "5", 5], "must be four numbers"),
        ([0, 0, True, 5], "must be four numbers"),
        ("0,0,5,5", "must be four numbers"),
        ([10, 10, -5, 5], "negative width or height"),
    ],
)
def test_box_outside_the_image_or_no_box_is_refused(box: Any, message: str) -> None:
    with pytest.raises(BoxError, match=message):
        box_text(box, 100, 200)


def test_placeholders_become_their_boxes() -> None:
    assert place_boxes("<|bbox1|> left of <|bbox0|>, <|bbox1|>", ["A", "B"]) == "B left of A, B"


def test_placeholder_without_a_box_is_refused() -> None:
    with pytest.raises(BoxError, match=r"<\|bbox2\|> stands in the text, but `bbox` has 2 boxes"):
        place_boxes("<|bbox2|>", ["A", "B"])


def test_boxes_are_found_in_an_answer_in_pixels() -> None:
    found = find_boxes("It is [040,482,112,576] or [0, 0, 999, 500].", 480, 640)
    assert np.allclose(found, [(19.2, 308.48, 53.76, 368.64), (0, 0, 479.52, 320)])
    assert find_boxes("between [12, 20]", 480, 640) == []


def test_text_and_back_is_within_a_thousandth() -> None:
    (found,) = find_boxes(box_text([10, 20, 30, 40], 100, 200), 100, 200)
    assert np.allclose(found, (10, 20, 40, 60), atol=0.2)


@pytest.mark.parametrize("box", [[5, 0, 4, 9], [0, 9, 4, 5]])
def test_corners_must_be_in_order(box: list[float]) -> None:
    with pytest.raises(BoxError, match=r"must be \[x1, y1, x2, y2\]"):
        corners(box)


def test_rectangle_is_red_and_four_pixels_wide() -> None:
    image = Image.new("RGB", (40, 30), (9, 9, 9))
    draw_box(image, (5, 6, 30, 25))
    pixels = np.asarray(image)
    red = (pixels == (255, 0, 0)).all(-1)
    assert red[6:26, 5:9].all() and red[6:26, 27:31].all() and red[6:10, 5:31].all() and red[22:26, 5:31].all()
    assert red.sum() == 20 * 26 - 12 * 18
    assert (pixels[~red] == 9).all()


def test_frames_are_counted_on_an_axis_of_32() -> None:
    assert [frame_on_axis(frame, 210) for frame in (0, 6, 7, 105, 204, 209)] == [0, 0, 1, 16, 31, 31]
