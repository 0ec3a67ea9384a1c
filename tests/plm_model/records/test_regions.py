from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from PIL import Image

from plm_model.records.regions import BoxError, box_text, corners, draw_box, find_boxes, place_boxes


def test_box_is_said_in_thousandths_of_the_sides() -> None:
    assert box_text([19.5, 309, 34.7, 60], 480, 640) == "[040,482,112,576]"


@pytest.mark.parametrize(
    ("box", "text"),
    [
        ([0, 0, 100, 200], "[000,000,999,999]"),
        ([29, 57, 1, 1], "[290,285,300,290]"),
        ([-0.4, 0, 100.9, 200.9], "[000,000,999,999]"),
    ],
)
def test_shares_are_cut_not_rounded_and_end_at_999(box: list[float], text: str) -> None:
    assert box_text(box, 100, 200) == text


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([100, 0, 20, 5], r"from \(100, 0\) to \(120, 5\) is outside the image of 100x200"),
        ([0, -30, 20, 20], "outside the image"),
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


@pytest.mark.case("D17")
@pytest.mark.parametrize(
    ("box", "text"),
    [
        ([90, 0, 20, 5], "[900,000,999,025]"),
        ([0, -9, 20, 20], "[000,000,200,055]"),
        ([0, 0, 20, 300], "[000,000,200,999]"),
    ],
)
def test_box_that_sticks_out_is_cut_at_the_edge(box: list[float], text: str) -> None:
    assert box_text(box, 100, 200) == text


@pytest.mark.case("D16")
@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([80, 60, 160, 120], r"sticks out of the image of 160x120; it seems to be \[x1, y1, x2, y2\]"),
        ([0.1, 0.1, 0.5, 0.5], "between 0 and 1; they must be pixels"),
        ([0, 0, 1, 1], "between 0 and 1; they must be pixels"),
        ([10, 10, 0, 0], "has no area"),
        ([10, 10, 5, 0], "has no area"),
        (["10", "10", "20", "20"], "must be four numbers, not "),
    ],
)
def test_box_that_is_none_in_pixels_is_refused(box: list[Any], message: str) -> None:
    with pytest.raises(BoxError, match=message):
        box_text(box, 160, 120)


def test_box_of_corners_that_fits_cannot_be_told_from_one_with_a_size() -> None:
    assert box_text([10, 10, 100, 100], 160, 120) == "[062,083,687,916]"


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


@pytest.mark.case("D17")
def test_rectangle_over_the_edge_is_drawn_as_the_original_draws_it() -> None:
    """Without its sides that lie outside, as Pillow draws it."""
    image = Image.new("RGB", (40, 30), (9, 9, 9))
    draw_box(image, (20, 10, 60, 50))
    red = (np.asarray(image) == (255, 0, 0)).all(-1)
    assert red[10:, 20:24].all() and red[10:14, 20:].all()
    assert red.sum() == 20 * 20 - 16 * 16


def test_rectangle_outside_the_image_is_refused() -> None:
    with pytest.raises(BoxError, match=r"from \(50, 0\) to \(60, 9\) is outside the image of 40x30"):
        draw_box(Image.new("RGB", (40, 30)), (50, 0, 60, 9))
