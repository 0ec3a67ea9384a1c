"""Scores of a short answer against one reference: words found, edit distance, numbers within 5 %."""

from __future__ import annotations

import re

from components.evaluate.metrics.exact_match import normalised
from components.evaluate.metrics.simple_words import simple_words

# A number is a whole word with its sign and decimals: 5 stands neither in 1.5 nor in 5.2, and 3 not in -3.
BEFORE = r"(?<!\w)(?<!\d[.,])(?<!\s-)(?<!^-)"
AFTER = r"(?!\w)(?![.,]\d)"
ANLS_THRESHOLD = 0.5
RELAXED_TOLERANCE = 0.05


def contains(answer: str, reference: str) -> float:
    """1.0 when the reference occurs in the answer as whole words; both are normalised as for `exact_match`.

    `It is a black cat.` contains `Black cat`, not `ack`.
    """
    wanted = normalised(reference)
    return float(bool(wanted and re.search(BEFORE + re.escape(wanted) + AFTER, normalised(answer))))


def token_recall(answer: str, reference: str) -> float:
    """Share of the reference's distinct words found in the answer (0..1), as LLaVA-Med reports open questions of VQA-RAD.

    `left lung` against `The lesion is in the left lobe.` -> 1/2. https://arxiv.org/abs/2306.00890
    """
    wanted = set(simple_words(reference))
    return len(wanted & set(simple_words(answer))) / len(wanted) if wanted else 0.0


def edit_distance(first: str, second: str) -> int:
    """Levenshtein distance: the fewest insertions, deletions and substitutions of one character."""
    row = list(range(len(second) + 1))
    for above, character in enumerate(first, 1):
        diagonal, row[0] = row[0], above
        for column, other in enumerate(second, 1):
            diagonal, row[column] = (
                row[column],
                min(row[column] + 1, row[column - 1] + 1, diagonal + (character != other)),
            )
    return row[-1]


def anls(answer: str, reference: str) -> float:
    """Average Normalised Levenshtein Similarity of DocVQA: 1 - distance / longer length, and 0 below 0.5.

    `pariss` against `Paris` -> 1 - 1/6. Letter case and runs of spaces do not count; as in lmms-eval, the length is that of
    the texts as given. https://arxiv.org/abs/1907.00490
    """
    length = max(len(answer.upper()), len(reference.upper()))
    if not length:
        return 1.0
    distance = edit_distance(" ".join(reference.lower().split()), " ".join(answer.lower().split()))
    similarity = 1 - distance / length
    return similarity if similarity >= ANLS_THRESHOLD else 0.0


def as_number(text: str) -> float | None:
    """`12.5` -> 12.5, `5%` -> 0.05, anything else None."""
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def relaxed_accuracy(answer: str, reference: str) -> float:
    """1.0 for a number within 5 % of the reference, and for other text when the two are equal but for letter case.

    A reference of 0 has no 5 % and is compared as text. ChartQA, https://arxiv.org/abs/2203.10244, end of section 5.1
    """
    number, right = as_number(answer), as_number(reference)
    if number is not None and right:
        return float(abs(number - right) / abs(right) <= RELAXED_TOLERANCE)
    return float(answer.lower() == reference.lower())
