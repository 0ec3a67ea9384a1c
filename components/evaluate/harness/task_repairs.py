"""Functions of lmms-eval's tasks without the faults that are known of them; each says which fault that is."""

from __future__ import annotations

import functools
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from components.errors import UserError
from components.evaluate.benchmarks.judge import JudgeError, required_judge
from components.evaluate.benchmarks.media import huggingface_home, require

Function = Callable[..., Any]
UNJUDGED = "unjudged"  # a verdict that nobody could read; neither yes nor no
ASKED_WITHOUT_VIDEO = ("tomato", "motionbench")  # tasks that go on without a video that is missing


def mended(found: Any, folder: Path) -> Any:
    """A function of a built-in task without the faults that this module knows of it."""
    namespace = getattr(found, "__globals__", None)
    if namespace is None:
        return found
    if namespace.get("sys") is sys:
        namespace["sys"] = WithoutExit()
    if "get_eval_result" in namespace and folder.name == "tempcompass":
        namespace["get_eval_result"] = tempcompass_verdict
    if "PTBTokenizer" in namespace and "Meteor" in namespace:
        namespace |= {"PTBTokenizer": TokenizedOnce, "Meteor": MeteorWhenScored}
    if "doc_to_visual" in found.__name__:
        return showing_files(found, folder.name)
    wrap = WRAPPERS.get(found.__name__)
    return wrap(found) if wrap else found


class WithoutExit:
    """Fault: several video tasks end the whole process by `sys.exit` when a video is missing."""

    def __getattr__(self, name: str) -> Any:
        return getattr(sys, name)

    def exit(self, message: object = None) -> None:
        raise UserError(str(message))


class MeteorWhenScored:
    """Fault: a caption task starts METEOR's Java, which reads its tables for seconds, for each of its seven metrics."""

    def compute_score(self, references: Any, answers: Any) -> Any:
        scorer = meteor()
        try:
            return scorer.compute_score(references, answers)
        except Exception:
            meteor.cache_clear()
            if (
                scorer.lock.locked()
            ):  # it keeps its lock when its Java has died, and then waits for it when it is thrown away
                scorer.lock.release()
            raise


@functools.lru_cache(maxsize=1)
def meteor() -> Any:
    from pycocoevalcap.meteor.meteor import Meteor

    return Meteor()


class TokenizedOnce:
    """Fault: a caption task has the same captions tokenized by Java anew for each of its seven metrics."""

    def tokenize(self, captions: Mapping[Any, list[dict[str, Any]]]) -> dict[Any, list[str]]:
        return tokenized(tuple((image, tuple(each["caption"] for each in texts)) for image, texts in captions.items()))


@functools.lru_cache(maxsize=2)  # the references and the answers of one task
def tokenized(captions: tuple[tuple[Any, tuple[str, ...]], ...]) -> dict[Any, list[str]]:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    found: dict[Any, list[str]] = PTBTokenizer().tokenize(
        {image: [{"caption": text} for text in texts] for image, texts in captions}
    )
    return found


def showing_files(show: Function, task: str) -> Function:
    """Fault: a video that is missing is passed on as a path, or left out, and the question is asked all the same."""

    @functools.wraps(show)
    def doc_to_visual(doc: Mapping[str, Any], *args: Any) -> Any:
        shown = show(doc, *args)
        for item in [shown] if isinstance(shown, str) else shown or ():
            if isinstance(item, str) and "://" not in item:
                require(item, task)
        if not shown and task in ASKED_WITHOUT_VIDEO:
            raise UserError(f"the video {doc['video_path']} of {task} does not exist below {huggingface_home()}")
        return shown

    return doc_to_visual


def tempcompass_verdict(prompt: str, *_: Any) -> tuple[str, int | None]:
    """Fault: a judge that fails, or answers in no readable way, counts as a wrong answer after ten tries. Here the first is an
    error, and the second no verdict."""
    said = required_judge().answer(prompt, max_tokens=128)
    return said, 0 if "Incorrect" in said else 1 if "Correct" in said else None


def activitynetqa_judged(process: Function) -> Function:
    """Fault: an error while an answer is judged counts as a wrong answer."""
    ask, parse = process.__globals__["get_eval"], process.__globals__["parse_score"]

    @functools.wraps(process)
    def process_results(doc: Mapping[str, Any], result: list[str]) -> dict[str, Any]:
        review, _ = ask(doc["question"], doc["answer"], result[0], 64)
        if not review:
            raise JudgeError("ActivityNetQA's judge, which OPENAI_API_URL names, gave no answer")
        entry = {**doc, "pred": result[0], "Correctness": UNJUDGED}
        if verdict := parse(review):
            entry |= {"Correctness": verdict[0], "score": verdict[1]}
        return {"gpt_eval_score": entry, "gpt_eval_accuracy": entry}

    return process_results


def only_judged(key: str) -> Callable[[Function], Function]:
    """The mean over answers that have a verdict under `key`; None without any."""

    def wrap(aggregate: Function) -> Function:
        @functools.wraps(aggregate)
        def mean(results: list[dict[str, Any]], args: Any) -> Any:
            judged = [result for result in results if result[key] not in (None, UNJUDGED)]
            return aggregate(judged, args) if judged else None

        return mean

    return wrap


def answering_something(process: Function) -> Function:
    """Fault: one empty answer to TemporalBench ends the evaluation after all questions are answered; of MVBench's questions,
    those with an empty answer are left out of the accuracy."""

    @functools.wraps(process)
    def process_results(doc: Mapping[str, Any], results: list[str]) -> Any:
        return process(doc, [result or " " for result in results])

    return process_results


def of_whole_pairs(aggregate: Function) -> Function:
    """Fault: a limit that parts the two questions of one of MME's images ends the evaluation. The half is left out."""

    @functools.wraps(aggregate)
    def sum_of_categories(results: list[dict[str, Any]]) -> Any:
        seen = Counter((result["category"], result["question_id"]) for result in results)
        whole = [result for result in results if seen[result["category"], result["question_id"]] == 2]
        return aggregate(whole) if whole else None

    return sum_of_categories


WRAPPERS: Mapping[str, Callable[[Function], Function]] = {
    "activitynetqa_process_results": activitynetqa_judged,
    "activitynetqa_aggregate_score": only_judged("Correctness"),
    "activitynetqa_aggregate_accuracy": only_judged("Correctness"),
    "tempcompass_aggregate_rating": only_judged("rating"),
    "temporalbench_process_results": answering_something,
    "mvbench_process_results": answering_something,
    "mme_aggregate_results": of_whole_pairs,
}
