"""METEOR 1.5 of captions: words matched exactly, by stem, by synonym and by paraphrase. The Java program of pycocoevalcap."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from components.evaluate.metrics.captions import Tokenised, tokenised
from components.evaluate.metrics.metric import Answered
from components.evaluate.metrics.ptb_words import java_program, ptb_lines


def meteor(answered: Sequence[Answered]) -> list[float]:
    """METEOR of each question, 0..1. https://aclanthology.org/W14-3348"""
    return set_and_questions(answered)[1]


def corpus_meteor(answered: Sequence[Answered]) -> float:
    """METEOR of the set, 0..1: matches are counted over all answers first."""
    return set_and_questions(answered)[0]


def set_and_questions(answered: Sequence[Answered]) -> tuple[float, list[float]]:
    """METEOR of the set and of each question, from one start of the program, which takes most of the time."""
    java = java_program("choose another metric: meteor has no substitute without Java, cider_simple needs none")
    captions = tokenised(answered, ptb_lines)
    if not answered:
        return 0.0, []
    questions = range(len(answered))
    with _program(java) as program:
        counts = [_asked(program, _line_of(captions, position)) for position in questions]
        first = _asked(program, "EVAL ||| " + " ||| ".join(counts))
        scores = [first, *(_answer(program) for _ in questions[1:])]
        corpus = _number(_answer(program))
    return corpus, [_number(score) if captions.has_answer(position) else 0.0 for position, score in enumerate(scores)]


def _line_of(captions: Tokenised, position: int) -> str:
    texts = [*captions.references[position], captions.answers[position][0]]
    return "SCORE ||| " + " ||| ".join(text.replace("|||", " ") for text in texts)


@contextmanager
def _program(java: str) -> Iterator[subprocess.Popen[str]]:
    """METEOR, asked by lines; however the block ends, the process is gone after it."""
    from pycocoevalcap.meteor import meteor

    jar = Path(meteor.__file__).with_name(meteor.METEOR_JAR)
    options = ["-", "-", "-stdio", "-l", "en", "-norm"]
    with subprocess.Popen(
        [java, "-Dfile.encoding=UTF-8", "-Xmx2G", "-jar", str(jar), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        errors="replace",
    ) as program:
        try:
            yield program
        finally:
            program.kill()


def _asked(program: subprocess.Popen[str], line: str) -> str:
    assert program.stdin
    program.stdin.write(line + "\n")
    program.stdin.flush()
    return _answer(program)


def _answer(program: subprocess.Popen[str]) -> str:
    assert program.stdout
    line = program.stdout.readline()
    if not line:
        raise RuntimeError(f"METEOR ended early with exit status {program.wait()}")
    return line.strip()


def _number(text: str) -> float:
    """A set without a word in common may be 0 / 0, which counts as 0."""
    number = float(text)
    return 0.0 if math.isnan(number) else number
