"""The evaluation's own process: `python -m components.evaluate.harness.process request.json`.

lmms-eval reseeds generators, silences warnings and patches libraries when it is imported; here it can disturb nobody.
Standard output carries progress, one line each; everything else goes to standard error. The result appears at once, as
JSON, or not at all. A benchmark that fails is a reason in the result; it costs no other its figure.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from components.artifacts.files import write_bytes
from components.evaluate.harness.request import Request

MODULE = "components.evaluate.harness.process"


def main(path: str) -> int:
    """Evaluate one request; exit status 0 when the result was written, else 1 with the reason in its place."""
    request = Request.read(path)
    die_with(request.parent)
    report = own_standard_output()
    try:
        result = evaluate(request, report)
    except (Exception, SystemExit) as error:  # some tasks leave by sys.exit when a video is missing
        traceback.print_exc()
        publish({"error": reason(error)}, Path(request.result))
        return 1
    publish(result, Path(request.result))
    return 0


def evaluate(request: Request, report: Callable[[str], None]) -> dict[str, Any]:
    """Ask the model the held-out questions and those of the columns.

    Gives {"answers": of the held-out questions in order, "benchmarks": the outcome of each column, "version", "counts" and
    "not_asked": {task, document, reason} of each question that could not be put to the model}.
    """
    report("loading lmms-eval")
    if not request.columns:
        leave_out("transformers.pipelines")
    from components.evaluate.answering.kept import KeptAnswers
    from components.evaluate.answering.model import chosen_device
    from components.evaluate.answering.pool import pool_of
    from components.evaluate.harness.benchmarks import measure_columns
    from plm_model.family import part
    from plm_model.model_directory.description import family_at

    name = part(family_at(Path(request.model)), "answer").HARNESS_NAME
    with pool_of(Path(request.model), request.device, request.batch_size, request.workers, request.ray_address) as pool:
        model = adapter_class()(
            digest=request.digest,
            pool=pool,
            kept=KeptAnswers(f"{request.kept}-{chosen_device(request.device).type}"),  # computed in another precision
            batch_size=request.batch_size,
            max_new_tokens=request.max_new_tokens,
            progress=lambda answered, total: report(f"evaluated {answered}/{total}"),
        )
        answers = held_out_answers(model, request, name) if request.documents else []
        benchmarks = measure_columns(model, request, name, report)
    return {
        "answers": answers,
        "benchmarks": benchmarks,
        "version": lmms_eval_version(),
        "not_asked": model.not_asked,
        "counts": asdict(model.counts),
    }


def held_out_answers(model: Any, request: Request, name: str) -> list[dict[str, Any]]:
    """The held-out questions through lmms-eval, as a task of their own."""
    from lmms_eval.api.task import ConfigurableTask
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    from components.evaluate.tasks.heldout import task_config

    config = task_config(request.task, Path(request.documents or ""), request.max_new_tokens)
    outcome = simple_evaluate(
        model=model,
        tasks=[ConfigurableTask(config=config, model_name=name)],
        task_manager=TaskManager(include_defaults=False, model_name=name),
        batch_size=request.batch_size,
        bootstrap_iters=0,
        log_samples=True,
        distributed_executor_backend="torchrun",  # also right for one process, and the other one fails on CPUs
        cli_args=argparse.Namespace(process_with_media=False, output_path=request.scratch),
        datetime_str="",
    )
    samples = sorted(outcome["samples"][request.task], key=lambda sample: sample["doc_id"])
    return [{"id": sample["doc"]["id"], "answer": str(sample["filtered_resps"][0])} for sample in samples]


def leave_out(module: str) -> None:
    """Let a library do without an optional module: importing it raises ImportError from now on.

    Hugging Face `evaluate` imports `transformers.pipelines` where it can, for 10 seconds of a slow core; nothing here
    uses it.
    """
    sys.modules.setdefault(module, None)  # type: ignore[arg-type]  # Python allows None


def adapter_class() -> type:
    """Our adapter, found as lmms-eval finds it: by its name, through the package's entry point."""
    from lmms_eval.models import get_model  # first: it loads the entry point, which needs it

    from components.evaluate.harness.adapter import FamilyAdapter
    from components.evaluate.harness.entry_point import MODEL_ID

    found = get_model(MODEL_ID)
    if found is not FamilyAdapter:
        raise RuntimeError(
            f"lmms-eval's model {MODEL_ID} is {found.__module__}.{found.__name__}; install this package again"
        )
    return found


def lmms_eval_version() -> str:
    from importlib.metadata import version

    return version("lmms-eval")


def publish(value: Any, path: Path) -> None:
    """Write JSON so that the file is either whole or absent."""
    write_bytes(str(path), json.dumps(value, default=plain).encode())


def plain(value: Any) -> Any:
    """NumPy scalars and arrays as numbers and lists, anything else as its text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def reason(error: BaseException) -> str:
    """One line of what went wrong; the retries of lmms-eval hide the cause behind them."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:500]


def own_standard_output() -> Callable[[str], None]:
    """A function that writes a line to standard output, to which from now on nothing else in this process writes."""
    out = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    return lambda line: print(line, file=out)


def die_with(parent: int) -> None:
    """Ask Linux to end this process when its parent ends, however that happens; end now if it already has."""
    from components.processes.parent_death import end_with_parent

    end_with_parent()
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
