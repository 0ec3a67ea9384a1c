"""Captions: the published scorers, the published tokeniser and our own, and what happens without Java."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.errors import UserError
from components.evaluate.metrics.captions import simple_lines, tokenised
from components.evaluate.metrics.known import METRICS
from components.evaluate.metrics.meteor import corpus_meteor, set_and_questions
from components.evaluate.metrics.metric import Answered
from components.evaluate.metrics.ptb_words import ptb_lines
from components.evaluate.metrics.simple_words import simple_words
from tests.components.evaluate.metrics import published
from tests.components.evaluate.metrics.pairs import DESCRIBED
from tests.debian import debian_program

TOKENISERS = {"": ptb_lines, "_simple": simple_lines}
EMPTY = [position for position, one in enumerate(DESCRIBED) if not one.answer.strip(" .")]


@pytest.fixture
def java(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    debian_program("default-jre-headless", "java")
    # METEOR reads 60 MB of paraphrases first; with room from the start, that needs fewer collections.
    monkeypatch.setenv("JDK_JAVA_OPTIONS", "-XX:+UseSerialGC -Xms1g")
    yield


def test_words_without_java() -> None:
    assert simple_words("A dog's 1.5 m\nleash, CAFÉ (3D)!") == ["a", "dog's", "1.5", "m", "leash", "café", "3d"]


def test_the_published_tokeniser_is_pycocoevalcap_s(java: None) -> None:
    captions = tokenised(DESCRIBED, ptb_lines)
    assert len(DESCRIBED) == 30 and len(EMPTY) == 2
    assert (captions.references, captions.answers) == published.ptb(DESCRIBED)


def test_a_text_has_one_line_whatever_newlines_it_has(java: None) -> None:
    texts = ["a\u2028b\x85c\x0bd\r\ne\x1cf", "", "\n", "café"]
    assert ptb_lines(texts) == ["a b c d e f", "", "", "café"] and ptb_lines([]) == []


@pytest.mark.parametrize("name", ["cider", "bleu", "rouge_l"])
def test_captions_score_as_pycocoevalcap_does(name: str, java: None) -> None:
    check_published(name, "")


@pytest.mark.parametrize("name", ["cider", "bleu", "rouge_l"])
def test_only_the_words_differ_without_java(name: str) -> None:
    check_published(name, "_simple")


def check_published(name: str, words: str) -> None:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    captions = tokenised(DESCRIBED, TOKENISERS[words])
    scorer = {"cider": Cider, "bleu": Bleu, "rouge_l": Rouge}[name]()
    value, scores = scorer.compute_score(captions.references, captions.answers)
    if name == "bleu":
        value, scores = value[3], scores[3]
    metric = METRICS[name + words]
    found = metric.scores(DESCRIBED)
    assert found == pytest.approx(list(scores), abs=1e-9)
    assert metric.value(DESCRIBED) == pytest.approx(float(value))
    assert all(0 <= score <= metric.best + 1e-9 for score in found) and not any(found[position] for position in EMPTY)


@pytest.mark.timeout(300)  # METEOR starts twice, and a start takes half a minute on a busy machine
def test_meteor_is_pycocoevalcap_s_and_its_process_ends(java: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from pycocoevalcap.meteor.meteor import Meteor

    started: list[subprocess.Popen[str]] = []
    start = subprocess.Popen.__init__

    def noted(self: subprocess.Popen[str], *arguments: object, **options: object) -> None:
        started.append(self)
        start(self, *arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess.Popen, "__init__", noted)
    of_set, found = set_and_questions(DESCRIBED)
    assert len(started) == 2 and all(process.returncode is not None for process in started)
    captions = tokenised(DESCRIBED, ptb_lines)
    value, scores = Meteor().compute_score(captions.references, captions.answers)
    assert (
        of_set == pytest.approx(value)
        and found == pytest.approx(scores)
        and not any(found[position] for position in EMPTY)
    )
    assert all(0 <= score <= 1 for score in found) and 0 < value < 1


def test_a_process_that_dies_is_an_error_and_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "java"
    program.write_text('#!/bin/sh\ncase "$*" in *PTB*) exec cat;; esac\nread line\nexit 3\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(RuntimeError, match="METEOR ended early with exit status 3"):
        corpus_meteor([Answered("a dog", ("a dog",))])


@pytest.mark.parametrize("name", ["cider", "bleu", "rouge_l", "meteor"])
def test_without_java_the_error_says_what_to_do(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"install Debian's package default-jre-headless, or choose .*_simple"):
        METRICS[name].value([Answered("a", ("a",))])


def test_captions_by_hand() -> None:
    half = [Answered("a b c d x y", ("a b c d",))]
    assert METRICS["rouge_l_simple"].value(half) == pytest.approx((1 + 1.44) * (4 / 6) / (1 + 1.44 * 4 / 6))
    # 1- to 4-grams: 4/6, 3/5, 2/4 and 1/3; an answer longer than its reference is not brief.
    assert METRICS["bleu_simple"].value(half) == pytest.approx((4 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)
    two = [Answered("a b c d e", ("a b c d e",)), Answered("f g h i j", ("f g h i j",))]
    assert METRICS["cider_simple"].scores(two) == pytest.approx([10, 10])
    assert METRICS["cider_simple"].scores(two[:1]) == [0.0]  # every word is in every question's references


def test_a_set_of_empty_captions_is_zero(java: None) -> None:
    for name in ("cider", "bleu", "rouge_l"):
        value = METRICS[name].value([Answered("", ("...",)), Answered("\n", ("",))])
        assert value == pytest.approx(0.0) and math.isfinite(value)
