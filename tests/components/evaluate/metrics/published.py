"""Scorers that others published, from lmms-eval's own files and from pycocoevalcap."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from components.evaluate.metrics.metric import Answered


@contextmanager
def lmms_eval_without_its_start() -> Iterator[None]:
    """lmms-eval's packages without what they load at import: torch and data sets, a quarter of a minute."""
    tasks, registry = ModuleType("lmms_eval.tasks"), ModuleType("lmms_eval.api.registry")
    tasks.__path__ = [str(lmms_eval_root() / "tasks")]
    for name in ("register_aggregation", "register_metric"):
        setattr(registry, name, lambda *names, **options: lambda function: function)
    datasets, sacrebleu = ModuleType("datasets"), ModuleType("sacrebleu")
    vars(datasets)["Dataset"] = object  # named in an annotation only
    stubs = {module.__name__: module for module in (tasks, registry, datasets, sacrebleu)}
    before = dict(sys.modules)
    sys.modules.update(stubs)
    try:
        yield
    finally:  # what else was imported meanwhile stays: numpy cannot be loaded twice
        for name in [name for name in sys.modules if name in stubs or name.partition(".")[0] == "lmms_eval"]:
            del sys.modules[name]
        sys.modules.update({name: module for name, module in before.items() if name not in sys.modules})


def lmms_eval_root() -> Path:
    package = find_spec("lmms_eval")
    assert package and package.submodule_search_locations
    return Path(package.submodule_search_locations[0])


def lmms_eval_module(path: str) -> Any:
    spec = spec_from_file_location("published_" + Path(path).stem, lmms_eval_root() / path)
    assert spec and spec.loader
    module = module_from_spec(spec)
    with lmms_eval_without_its_start():
        spec.loader.exec_module(module)
    return module


def vqa_accuracy(answered: Sequence[Answered]) -> list[float]:
    process = lmms_eval_module("tasks/vqav2/utils.py").vqav2_process_results
    return [
        process(
            {
                "question_id": 0,
                "answers": [{"answer_id": position, "answer": text} for position, text in enumerate(one.references)],
            },
            [one.answer],
        )["exact_match"]
        for one in answered
    ]


def anls(answered: Sequence[Answered]) -> list[float]:
    score = lmms_eval_module("api/metrics.py").anls
    return [score(list(one.references), [one.answer])["anls"] for one in answered]


def relaxed_accuracy(answered: Sequence[Answered]) -> list[float]:
    score = lmms_eval_module("tasks/chartqa/utils.py").relaxed_correctness
    return [max(float(score(one.answer, reference)) for reference in one.references) for one in answered]


def choice(answered: Sequence[Answered]) -> list[float]:
    letter = lmms_eval_module("tasks/_task_utils/mcq_extract.py").extract_mcq_answer
    return [float(letter(one.answer) == one.references[0]) for one in answered]


def box_overlap() -> Callable[[Sequence[float], Sequence[float]], float]:
    found: Callable[[Sequence[float], Sequence[float]], float] = lmms_eval_module(
        "tasks/refcoco/utils_rec.py"
    ).compute_iou
    return found


def ptb(answered: Sequence[Answered]) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """References and answers as pycocoevalcap's own tokeniser splits them.

    It takes a carriage return within a caption for the end of that caption, and every later one for the one before.
    """
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    def split(texts: Sequence[Sequence[str]]) -> dict[int, list[str]]:
        lines = {i: [{"caption": text.replace("\r", " ")} for text in of_one] for i, of_one in enumerate(texts)}
        found: dict[int, list[str]] = PTBTokenizer().tokenize(lines)
        return found

    return split([one.references for one in answered]), split([[one.answer] for one in answered])
