"""Short answers, letters of a choice, boxes and time spans."""

from __future__ import annotations

import random

import pytest

from components.evaluate.metrics.boxes import boxes, iou_box, iou_time, overlap, spans
from components.evaluate.metrics.choice import choice, chosen_letter
from components.evaluate.metrics.known import METRICS
from components.evaluate.metrics.metric import Answered
from components.evaluate.metrics.short_answers import anls, contains, relaxed_accuracy, token_recall
from tests.components.evaluate.metrics import published
from tests.components.evaluate.metrics.pairs import SHORT, SINGLE


def test_vqa_accuracy_is_lmms_eval_s() -> None:
    assert len(SHORT) == 30
    assert METRICS["vqa_accuracy"].scores(SHORT) == pytest.approx(published.vqa_accuracy(SHORT))


@pytest.mark.parametrize("pairs", [SHORT, SINGLE])
def test_anls_is_lmms_eval_s(pairs: list[Answered]) -> None:
    assert METRICS["anls"].scores(pairs) == published.anls(pairs)


@pytest.mark.parametrize("pairs", [SHORT, SINGLE])
def test_relaxed_accuracy_is_lmms_eval_s(pairs: list[Answered]) -> None:
    assert METRICS["relaxed_accuracy"].scores(pairs) == published.relaxed_accuracy(pairs)


def test_vqa_accuracy_by_hand() -> None:
    three = Answered("A cat", ("cat",) * 3 + ("dog",) * 7)
    one_of_two = Answered("cat", ("cat", "dog"))
    single = Answered("two", ("2",))
    assert METRICS["vqa_accuracy"].scores([three, one_of_two, single]) == pytest.approx([0.9, 1 / 6, 1.0])


def test_anls_and_relaxed_accuracy_by_hand() -> None:
    assert anls("pariss", "Paris") == pytest.approx(5 / 6) and anls("London", "Paris") == 0.0
    assert relaxed_accuracy("10.5", "10") == 1.0 and relaxed_accuracy("10.51", "10") == 0.0


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("It is a black cat.", "Black cat", 1),
        ("It is black.", "lack", 0),
        ("About 1.5 m", "5", 0),
        ("5, I think", "5", 1),
        ("-3", "3", 0),
        ("covid-19", "19", 1),
        ("Un café noir", "café", 1),
        ("(A+B)", "a+b", 1),
        ("anything", "", 0),
    ],
)
def test_contains_looks_for_whole_words(answer: str, reference: str, right: float) -> None:
    assert contains(answer, reference) == right


def test_token_recall_counts_the_reference_s_words() -> None:
    assert token_recall("The lesion is in the left lobe.", "left lung") == 0.5
    assert token_recall("1.5 cm, in the café", "Café 1.5") == 1.0


SAYS_B = ["B", "(B)", "B.", "b", "[B]", "**B**", "Answer: B", "answer is B", "The answer is (b) a cat.", "B. a cat"]
SAYS_B += [
    "b) a cat",
    "(B) a cat",
    "B: a cat",
    "Option B",
    "The correct option is B.",
    "It has to be (B).",
    "B because",
]
SAYS_B += ["The answer is **B**.", "A is wrong. The answer is B", "Answer: A. No, the answer is B.", "Answer: b\n"]
SAYS_B += ["B\n\nExplanation: (A) is wrong", "(B) a cat, since (A) is wrong", "**Answer:** B", "<answer>B</answer>"]
SAYS_B += ["Final Answer: \\boxed{B}", "Option B is correct", "Option A is wrong. Option B is right", "Answer:\nB"]
SAYS_NO_LETTER = [
    "",
    "...",
    "A cat sits here",
    "I think so",
    "The answer is a cat",
    "(A) or (B)",
    "B or C",
    "The answer is B or C",
    "猫",
    "Big",
    "U.S. flag",
]


@pytest.mark.parametrize("text", SAYS_B)
def test_a_letter_is_read_however_it_is_worded(text: str) -> None:
    assert chosen_letter(text) == "B"


@pytest.mark.parametrize("text", SAYS_NO_LETTER)
def test_a_text_that_names_no_letter_chooses_none(text: str) -> None:
    assert chosen_letter(text) is None
    assert choice(text, "B") == 0.0


def test_choice_is_lmms_eval_s_where_an_answer_names_one_letter() -> None:
    forms = ["{}", "({})", "{}.", "Answer: {}", "The answer is ({}).", "{}. 猫", "", "The correct answer is {}"]
    pairs = [Answered(form.format(letter), ("C",)) for form in forms for letter in "ABCD"]
    assert METRICS["choice"].scores(pairs) == published.choice(pairs)


def test_a_reference_may_be_worded_too() -> None:
    assert choice("c", "(C) a bird") == 1.0 and choice("a bird", "A bird.") == 1.0


def test_boxes_and_spans_are_read_from_text() -> None:
    assert boxes("cat [040,482,112,576], dog (1, 2, 3.5, 4)") == [(40, 482, 112, 576), (1, 2, 3.5, 4)]
    assert boxes("[[1,2,3,4]]") == [(1, 2, 3, 4)] and boxes("[1,2,3] [1,2,3,4,5] 1,2,3,4") == []
    assert spans("[12.5, 20.0]") == spans("12.5 - 20.0 seconds") == spans("from 12.5s to 20 s") == [(12.5, 20)]
    assert spans("2010 - 2015") == spans("[1,2,3,4]") == []


def test_the_overlap_is_lmms_eval_s() -> None:
    draw, compute_iou = random.Random(0), published.box_overlap()
    for _ in range(30):
        first, second = ((x, y, x + w, y + h) for x, y, w, h in ([draw.randint(1, 50) for _ in range(4)] for _ in "ab"))
        assert overlap(first, second) == pytest.approx(compute_iou(first, second))


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("[0,0,10,10]", "[5,0,15,10]", 1 / 3),
        ("[0,0,10,10]", "[0,0,10,10][20,20,30,30]", 1 / 2),
        ("[20,20,30,30] [0,0,10,10] [7,7,8,8]", "[0,0,10,10][20,20,30,30]", 2 / 3),
        # The better pair first: the second box takes the reference, and the first is left over.
        ("[0,0,10,10] [0,0,10,20]", "[0,0,10,20]", 1 / 2),
        ("[10,10,0,0]", "[0,0,10,10]", 0),
        ("[5,5,5,5]", "[5,5,5,5]", 1),
        ("no box", "[0,0,10,10]", 0),
        ("[0,0,10,10]", "no box", 0),
    ],
)
def test_iou_of_boxes_by_hand(answer: str, reference: str, score: float) -> None:
    assert iou_box(answer, reference) == pytest.approx(score)


def test_iou_of_time_spans_by_hand() -> None:
    assert iou_time("10 - 20 seconds", "[15, 30]") == pytest.approx(5 / 20)
    assert iou_time("[0, 1]", "[2, 3]") == iou_time("soon", "[2, 3]") == 0.0
