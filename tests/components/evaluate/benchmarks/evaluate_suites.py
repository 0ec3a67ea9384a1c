"""A process that evaluates every column of the suites on tiny data: `python -m tests.….evaluate_suites ROOT`.

lmms-eval changes the state of the process that imports it, so that one child runs all of them. The result, ROOT/result.json, is
{"columns": {title: {"figure": …, "mean": of its questions' scores, "seconds": …}}, "likelihoods": results of a task that
compares them, "mme_of_3": MME's of three questions, "without_videos": {title: {task: why it did not run}}}.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from components.evaluate.suites.suite import Column
from tests.components.evaluate.benchmarks.given import Given, write
from tests.components.evaluate.benchmarks.given_images import image_sets
from tests.components.evaluate.benchmarks.given_ours import DREAM, our_sets
from tests.components.evaluate.benchmarks.given_videobench import VERDICTS, videobench
from tests.components.evaluate.benchmarks.given_videos import JUDGED, video_sets
from tests.components.evaluate.benchmarks.judge_server import judge_server

# Each leaves its own way when a video is missing: by sys.exit, with a path, with nothing, with an error of its own.
LEAVING = ("VideoMME", "FGQA", "TOMATO", "MotionBench", "TemporalBench", "TVQA")
LIKELIHOODS = Column(
    title="likelihoods", tasks=("egoschema_subset_mcppl",), split="test", setting="likelihood", metric="score"
)
SUITES = ("plm_image", "plm_video", "plm_videobench")


def main(root: Path) -> None:
    with judge_server({**DREAM, **JUDGED, **VERDICTS}) as url:
        os.environ |= environment(root, url)
        given = [*image_sets(f"{url}/picture.png"), *video_sets(), *videobench(), *our_sets()]
        write(given, root, root / "home")
        os.chdir(root)
        result = evaluated(given, root / "home")
    (root / "result.json").write_text(json.dumps(result, default=str), encoding="utf-8")


def environment(root: Path, url: str) -> dict[str, str]:
    return {
        "HF_HOME": str(root / "home"),
        "HF_DATASETS_CACHE": str(root / "cache"),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "OPENAI_API_BASE": f"{url}/v1",
        "OPENAI_API_KEY": "none",
        "JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",  # METEOR only starts, and reads its tables
    }


def evaluated(given: Sequence[Given], home: Path) -> dict[str, Any]:
    from components.evaluate.harness.process import leave_out

    leave_out("transformers.pipelines")
    from components.evaluate.harness.benchmarks import rows_of
    from components.evaluate.harness.repairs import repair
    from components.evaluate.harness.suite_tasks import manager_of, run_column
    from components.evaluate.suites.figures import figure
    from components.evaluate.suites.suite import read_suite

    columns = [column for name in SUITES for column in read_suite(name).columns]
    repair()
    tasks = {task for column in columns for task in column.tasks}
    manager = manager_of({*tasks, LIKELIHOODS.tasks[0]}, "plm")
    model = answering({each.task: each.answers for each in given})
    titled = {column.title: column for column in columns}
    result = {}
    for column in columns:
        began = time.monotonic()
        outcome, failures = run_column(model, column, manager, Path())
        scores = [row["score"] for task in column.tasks for row in rows_of(column, task, outcome)]
        known = [score for score in scores if score is not None]
        found = asdict(figure(column, outcome, failures))
        mean = sum(known) / len(known) if known else None
        result[column.title] = {"figure": found, "mean": mean, "seconds": round(time.monotonic() - began, 1)}
        print(column.title, result[column.title], file=sys.stderr, flush=True)
    likelihoods, _ = run_column(model, LIKELIHOODS, manager, Path())
    halved, _ = run_column(model, titled["MME"], manager, Path(), limit=3)
    without = {task for title in LEAVING for task in titled[title].tasks}
    for video in (home / video for each in given if each.task in without for video in each.media):
        video.unlink()
    left = {title: run_column(model, titled[title], manager, Path())[1] for title in LEAVING}
    others = {"likelihoods": likelihoods.get("results"), "mme_of_3": halved.get("results")}
    return {"columns": result, **others, "without_videos": left}


def answering(answers: Mapping[str, Sequence[str]]) -> Any:
    """A model that gives each document's answer, once it has been shown something."""
    from lmms_eval.api.model import lmms

    class Given(lmms):
        is_simple = True

        def generate_until(self, requests: Sequence[Any]) -> list[str]:
            said = []
            for _, _, doc_to_visual, doc_id, task, split in (request.args for request in requests):
                assert doc_to_visual(self.task_dict[task][split][doc_id]), f"{task} shows nothing"
                said.append(answers[task][doc_id])
            return said

        def loglikelihood(self, requests: Sequence[Any]) -> list[Any]:
            """(loss, whether it is the likeliest): the choice C has the least."""
            return [(0.1, True) if request.args[1].strip() == "C" else (2.0, False) for request in requests]

        def generate_until_multi_round(self, requests: Sequence[Any]) -> list[Any]:
            raise NotImplementedError

        def clean(self) -> None:
            pass

    return Given()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
