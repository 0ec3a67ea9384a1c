"""The tasks of a suite as lmms-eval runs them, a column at a time, so that one that fails costs no other column its figure."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from components.evaluate.harness.process import reason
from components.evaluate.suites.names import OURS
from components.evaluate.suites.suite import Column

NAMED = re.compile(r"^(?:task|group)\s*:\s*[\"']?([^\s\"'#]+)", re.MULTILINE)


def manager_of(tasks: Iterable[str], model_name: str, include: Sequence[str] = ()) -> Any:
    """lmms-eval's TaskManager of the tasks, ours and those of the folders `include` too, and what lies in the same folders.

    It parses the YAML of every task that it may have: of all 1,985 this takes half a minute of a slow core. A name that no
    file gives, such as a tag's, is looked for among all of them.
    """
    import lmms_eval.tasks
    from lmms_eval.tasks import TaskManager

    left = set(tasks)
    folders = {str(OURS), *include}
    for folder in (*map(Path, include), OURS, Path(lmms_eval.tasks.__file__).parent):
        for path in folder.rglob("*.yaml"):
            if found := left & set(NAMED.findall(path.read_text(encoding="utf-8", errors="replace"))):
                left -= found
                folders.add(str(path.parent))
    return TaskManager(include_defaults=bool(left), include_path=sorted(folders), model_name=model_name)


def task_entries(column: Column, manager: Any) -> list[str | dict[str, Any]]:
    """A column's tasks: by name, or as a config where the column has generation settings that replace some of theirs."""
    from lmms_eval.utils import load_yaml_config

    if not column.generation:
        return list(column.tasks)
    entries: list[str | dict[str, Any]] = []
    for task in column.tasks:
        own = load_yaml_config(manager.task_index[task]["yaml_path"], mode="simple").get("generation_kwargs") or {}
        entries.append({"task": task, "generation_kwargs": {**own, **column.generation}})
    return entries


def run_column(
    model: Any, column: Column, manager: Any, scratch: Path, limit: int | None = None, **options: Any
) -> tuple[dict[str, Any], Mapping[str, str]]:
    """What lmms-eval gives for a column's tasks, and for each that did not run why; for `figures.figure`.

    A media file that is missing, or a judge that cannot be asked, ends a column. Submission files and the like go to
    `scratch`; `options` are further ones of `simple_evaluate`.
    """
    from lmms_eval.evaluator import simple_evaluate

    try:
        outcome: dict[str, Any] = simple_evaluate(
            model=model,
            tasks=task_entries(column, manager),
            task_manager=manager,
            limit=limit,
            bootstrap_iters=0,
            log_samples=True,
            distributed_executor_backend="torchrun",  # also right for one process, and the other one fails on CPUs
            cli_args=argparse.Namespace(process_with_media=False, output_path=str(scratch)),
            datetime_str="",
            process_docs_parallel=1,  # some tasks guess at random where they cannot read an answer
            **options,
        )
    except (Exception, SystemExit) as error:
        return {}, dict.fromkeys(column.tasks, reason(error))
    return outcome, {}
