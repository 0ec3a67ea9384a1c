"""The evaluation's own process: `python -m components.evaluate.harness.process request.json`.

lmms-eval reseeds generators, silences warnings and patches libraries when it is imported; here it can disturb nobody.
Standard output carries progress, one line each; everything else goes to standard error. The result appears at once, as
JSON, or not at all.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

MODULE = "components.evaluate.harness.process"


@dataclass(frozen=True)
class Request:
    """What to evaluate. `documents` are the held-out questions, `result` is the file to write, `parent` who asked."""

    model: str
    task: str
    documents: str
    result: str
    scratch: str
    builtin_tasks: tuple[str, ...]
    limit: int | None
    batch_size: int
    max_new_tokens: int
    device: str
    parent: int

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: str) -> Request:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        return cls(**{**values, "builtin_tasks": tuple(values["builtin_tasks"])})


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
    """Run lmms-eval: {"results": per task as it gives them, "answers": of the held-out questions in order, "version", and
    "not_asked": {task, document, reason} of each question that could not be put to the model}."""
    report("loading lmms-eval")
    if not request.builtin_tasks:
        leave_out("transformers.pipelines")
    from lmms_eval.api.task import ConfigurableTask
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    from components.evaluate.harness.entry_point import MODEL_ID
    from components.evaluate.tasks.heldout import task_config
    from plm_model.family import part
    from plm_model.model_directory.description import family_at

    name = part(family_at(Path(request.model)), "answer").HARNESS_NAME
    manager = TaskManager(include_defaults=bool(request.builtin_tasks), model_name=name)
    config = task_config(request.task, Path(request.documents), request.max_new_tokens)
    model = adapter_class(MODEL_ID)(
        pretrained=request.model,
        batch_size=request.batch_size,
        device=request.device,
        max_new_tokens=request.max_new_tokens,
        progress=lambda answered, total: report(f"evaluated {answered}/{total}"),
    )
    outcome = simple_evaluate(
        model=model,
        tasks=[ConfigurableTask(config=config, model_name=name), *request.builtin_tasks],
        task_manager=manager,
        limit=request.limit,
        batch_size=request.batch_size,
        bootstrap_iters=0,
        log_samples=True,
        distributed_executor_backend="torchrun",  # also right for one process, and the other one fails on CPUs
        cli_args=argparse.Namespace(process_with_media=False, output_path=request.scratch),
        datetime_str="",
    )
    samples = sorted(outcome["samples"][request.task], key=lambda sample: sample["doc_id"])
    return {
        "results": outcome["results"],
        "answers": [answer_of(sample) for sample in samples],
        "version": lmms_eval_version(),
        "not_asked": model.not_asked,
    }


def leave_out(module: str) -> None:
    """Let a library do without an optional module: importing it raises ImportError from now on.

    Hugging Face `evaluate` imports `transformers.pipelines` where it can, for 10 seconds of a slow core; nothing here
    uses it.
    """
    sys.modules.setdefault(module, None)  # type: ignore[arg-type]  # Python allows None


def adapter_class(model_id: str) -> type:
    """Our adapter, found as lmms-eval finds it: by its name, through the package's entry point."""
    from lmms_eval.models import get_model

    from components.evaluate.harness.adapter import FamilyAdapter

    found = get_model(model_id)
    if found is not FamilyAdapter:
        raise RuntimeError(
            f"lmms-eval's model {model_id} is {found.__module__}.{found.__name__}; install this package again"
        )
    return found


def answer_of(sample: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": sample["doc"]["id"],
        "answer": str(sample["filtered_resps"][0]),
        "correct": bool(sample["exact_match"]),
    }


def lmms_eval_version() -> str:
    from importlib.metadata import version

    return version("lmms-eval")


def publish(value: Any, path: Path) -> None:
    """Write JSON so that the file is either whole or absent."""
    partial = path.with_name(f".{path.name}")
    partial.write_text(json.dumps(value, default=plain), encoding="utf-8")
    os.replace(partial, path)


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
