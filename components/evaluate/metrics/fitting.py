"""Which metric fits a set of questions, read from the form of its references: the default where none is chosen."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from components.evaluate.metrics.boxes import only_boxes, only_spans
from components.evaluate.metrics.exact_match import normalised
from components.evaluate.metrics.metric import check_references
from components.evaluate.metrics.short_answers import as_number

LETTER = re.compile(r"\W*[A-Za-z]\W*")
OPTION = re.compile(r"(?:^|[\s(])([A-Ja-j])[).:](?=\s)")  # A. cat, (B) dog, c) bird
SHORT = 4  # words: a longer reference is a sentence
ANNOTATORS = 4  # with fewer references the accuracy of VQAv2 cannot reach 1
LABELS = 20  # distinct labels at most, and each seen twice on average
DIGITS = {str(digit) for digit in range(10)}


@dataclass(frozen=True)
class Fit:
    """A metric of the table, and in one line why it fits."""

    metric: str
    why: str


def fitting(questions: Sequence[str], references: Sequence[tuple[str, ...]]) -> Fit:
    """The metric for these questions and their references; the same set gives the same metric on machines that both have
    Java or both have none. A set without questions, or a question without references, is a ValueError.
    """
    if not questions or len(questions) != len(references):
        raise ValueError(f"{len(questions)} questions and {len(references)} sets of references")
    check_references(references)
    texts = [text for of_question in references for text in of_question]
    return _by_form(questions, texts) or _by_length(references, texts) or _by_values(references)


def _by_form(questions: Sequence[str], texts: Sequence[str]) -> Fit | None:
    if all(LETTER.fullmatch(text) for text in texts) and all(shows_options(question) for question in questions):
        return Fit("choice", "every reference is the letter of an option that its question shows")
    if all(only_boxes(text) for text in texts):
        return Fit("iou_box", "every reference is made of boxes")
    if all(only_spans(text) for text in texts):
        return Fit("iou_time", "every reference is made of time spans")
    return None


def shows_options(question: str) -> bool:
    """Whether a question lists lettered options, at least A and B."""
    return {"a", "b"} <= {letter.lower() for letter in OPTION.findall(question)}


def _by_length(references: Sequence[tuple[str, ...]], texts: Sequence[str]) -> Fit | None:
    words = median(len(text.split()) for text in texts)
    if words > SHORT:
        if shutil.which("java"):
            return Fit("cider", f"references are sentences, {words:g} words in the middle")
        return Fit("cider_simple", f"references are sentences, {words:g} words in the middle, and no java is installed")
    several = median(len(of_question) for of_question in references)
    if several >= ANNOTATORS:
        return Fit("vqa_accuracy", f"questions have {several:g} short references in the middle")
    return None


def _by_values(references: Sequence[tuple[str, ...]]) -> Fit:
    firsts = [of_question[0] for of_question in references]
    distinct = {normalised(text) for text in firsts}
    if distinct <= DIGITS or (len(distinct) <= LABELS and 2 * len(distinct) <= len(firsts)):
        return Fit("exact_match", f"references are {len(distinct)} short labels that repeat")
    numbers = sum(as_number(text) is not None for text in firsts)
    if 2 * numbers >= len(firsts):
        return Fit("relaxed_accuracy", f"{numbers} of {len(firsts)} references are numbers, of many values")
    return Fit("exact_match", "references are short texts")
