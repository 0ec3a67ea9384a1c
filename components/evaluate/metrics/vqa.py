"""The accuracy of VQAv2: an answer is right as far as three of the other annotators gave it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from statistics import fmean
from typing import Any

from components.evaluate.metrics.metric import Answered, check_references

ENOUGH = 3  # annotators who agree with a fully right answer


def vqa_accuracy(answered: Sequence[Answered]) -> list[float]:
    """The official score of each question, averaged over leaving out each reference: min(1, matches / 3).

    Ten references of which three say `cat`: `cat` has (7 * 1 + 3 * 2/3) / 10 = 0.9. The answer and the references are
    processed first (articles, number words, punctuation). A single reference gives 1 or 0; with two or three the most is
    1/3 or 2/3. https://visualqa.org/evaluation.html
    """
    check_references([one.references for one in answered])
    processor = _answer_processor()
    return [_accuracy(one, processor) if one.answer.strip() else 0.0 for one in answered]


def _answer_processor() -> Any:
    """lmms-eval's `EvalAIAnswerProcessor`, from its file alone: importing its package costs a quarter of a minute for torch
    and a registry of tasks, and the class needs neither.
    """
    package = find_spec("lmms_eval")
    assert package and package.submodule_search_locations
    file = Path(package.submodule_search_locations[0]) / "tasks" / "_task_utils" / "vqa_eval_metric.py"
    spec = spec_from_file_location("vqa_eval_metric", file)
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.EvalAIAnswerProcessor()


def _accuracy(one: Answered, processor: Any) -> float:
    answer = _processed(one.answer, processor)
    matches = [_processed(reference, processor) == answer for reference in one.references]
    if len(matches) == 1:
        return float(matches[0])
    return fmean(min(1.0, (sum(matches) - left_out) / ENOUGH) for left_out in matches)


def _processed(text: str, processor: Any) -> str:
    line = text.replace("\n", " ").replace("\t", " ").strip()
    processed: str = processor.process_digit_article(processor.process_punctuation(line))
    return processed
