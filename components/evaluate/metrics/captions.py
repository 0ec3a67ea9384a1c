"""Captions against references: CIDEr, BLEU-4 and ROUGE-L of pycocoevalcap, on words split by a tokeniser of choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from components.evaluate.metrics.metric import Answered, check_references
from components.evaluate.metrics.ptb_words import ptb_lines
from components.evaluate.metrics.simple_words import simple_words

Tokeniser = Callable[[Sequence[str]], list[str]]
"""From texts to their words, joined by single spaces: one line a text, in order."""


def simple_lines(texts: Sequence[str]) -> list[str]:
    return [" ".join(simple_words(text)) for text in texts]


@dataclass(frozen=True)
class Tokenised:
    """What pycocoevalcap's scorers read: the position of a question -> its one answer, and its references, as words."""

    answers: dict[int, list[str]]
    references: dict[int, list[str]]

    def has_answer(self, position: int) -> bool:
        return bool(self.answers[position][0])


def tokenised(answered: Sequence[Answered], tokeniser: Tokeniser) -> Tokenised:
    """All texts split in one go: the published tokeniser is a program, and starting it costs most of its time."""
    check_references([one.references for one in answered])
    lines = iter(tokeniser([text for one in answered for text in (one.answer, *one.references)]))
    answers: dict[int, list[str]] = {}
    references: dict[int, list[str]] = {}
    for position, one in enumerate(answered):
        answers[position] = [next(lines)]
        references[position] = [next(lines) for _ in one.references]
    return Tokenised(answers, references)


def _floats(captions: Tokenised, scores: Sequence[Any]) -> list[float]:
    """An answer without a word has 0, whatever its references are."""
    return [float(score) if captions.has_answer(position) else 0.0 for position, score in enumerate(scores)]


def cider(answered: Sequence[Answered], tokeniser: Tokeniser = ptb_lines) -> list[float]:
    """CIDEr of each question, 0..10. Words weigh by how few questions' references have them, so a score depends on the
    whole set, and a set of one question has 0. https://arxiv.org/abs/1411.5726
    """
    from pycocoevalcap.cider.cider import Cider

    captions = tokenised(answered, tokeniser)
    if not any(line for lines in captions.references.values() for line in lines):
        return [0.0] * len(answered)  # no reference has a word, which the scorer does not take
    return _floats(captions, Cider().compute_score(captions.references, captions.answers)[1])


def bleu(answered: Sequence[Answered], tokeniser: Tokeniser = ptb_lines) -> list[float]:
    """BLEU-4 of each question by itself, 0..1."""
    return _bleu(answered, tokeniser)[1]


def corpus_bleu(answered: Sequence[Answered], tokeniser: Tokeniser = ptb_lines) -> float:
    """BLEU-4 of the set, 0..1: n-grams are counted over all answers first. https://aclanthology.org/P02-1040"""
    return _bleu(answered, tokeniser)[0]


def _bleu(answered: Sequence[Answered], tokeniser: Tokeniser) -> tuple[float, list[float]]:
    from pycocoevalcap.bleu.bleu import Bleu

    captions = tokenised(answered, tokeniser)
    if not answered:
        return 0.0, []
    corpus, scores = Bleu(4).compute_score(captions.references, captions.answers, verbose=0)
    return float(corpus[3]), _floats(captions, scores[3])


def rouge_l(answered: Sequence[Answered], tokeniser: Tokeniser = ptb_lines) -> list[float]:
    """ROUGE-L of each question, 0..1: F (beta 1.2) of the longest common subsequence. https://aclanthology.org/W04-1013"""
    from pycocoevalcap.rouge.rouge import Rouge

    captions = tokenised(answered, tokeniser)
    if not answered:
        return []
    return _floats(captions, Rouge().compute_score(captions.references, captions.answers)[1])
