"""A process that evaluates every column of the suites on tiny data: `python -m tests.….evaluate_suites ROOT`.

lmms-eval changes the state of the process that imports it, so that one child runs all of them. The result, ROOT/result.json, is
{"columns": {title: {"figure": …, "mean": of its questions' scores, "seconds": …}}, "likelihoods": results of a task that
compares them, "without_videos": {task: why it did not run}}.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.components.evaluate.benchmarks.given import Given, write
from tests.components.evaluate.benchmarks.given_images import image_sets
from tests.components.evaluate.benchmarks.given_ours import DREAM, our_sets
from tests.components.evaluate.benchmarks.given_videobench import VERDICTS, videobench
from tests.components.evaluate.benchmarks.given_videos import JUDGED, video_sets
from tests.components.evaluate.benchmarks.judge_server import judge_server

# Each leaves its own way when a video is missing: by sys.exit, with a path, with nothing, with an error of its own.
LEAVING = ("videomme", "fgqa_test", "tomato", "motionbench_full", "temporalbench_short_qa", "pipeline_tvqa")
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
    from lmms_eval.tasks import TaskManager

    from components.evaluate.harness.repairs import repair
    from components.evaluate.suites.figures import figure
    from components.evaluate.suites.questions import mean_of
    from components.evaluate.suites.suite import read_suite

    columns = [column for name in SUITES for column in read_suite(name).columns]
    repair()
    manager = TaskManager(include_defaults=False, include_path=folders(), model_name="plm")
    model = answering({each.task: each.answers for each in given})
    result = {}
    for column in columns:
        began = time.monotonic()
        outcome, failures = outcome_of(model, column.tasks, manager)
        samples = [sample for task in column.tasks for sample in outcome.get("samples", {}).get(task, [])]
        found = asdict(figure(column, outcome, failures))
        mean = mean_of(column, samples)
        result[column.title] = {"figure": found, "mean": mean, "seconds": round(time.monotonic() - began, 1)}
        print(column.title, result[column.title], file=sys.stderr, flush=True)
    likelihoods, _ = outcome_of(model, ["egoschema_subset_mcppl"], manager)
    for video in (home / video for each in given if each.task in LEAVING for video in each.media):
        video.unlink()
    left = {task: outcome_of(model, [task], manager)[1].get(task) for task in LEAVING}
    return {"columns": result, "likelihoods": likelihoods.get("results"), "without_videos": left}


def folders() -> list[str]:
    """Where the tasks' YAML files lie: reading all of lmms-eval's 1,985 takes half a minute of a slow core."""
    import lmms_eval.tasks

    names = (
        "docvqa chartqa textvqa infovqa ai2d ocrbench coco_cap nocaps flickr30k mmmu vqav2 ok_vqa vizwiz_vqa mme seedbench "
        "blink cv_bench realworldqa pope vatex mvbench nextqa perceptiontest videomme tvbench activitynetqa egoschema "
        "temporalbench tomato motionbench tempcompass charades_sta plm_videobench"
    )
    ours = Path(__file__).resolve().parents[4] / "components/evaluate/benchmarks"
    installed = Path(lmms_eval.tasks.__file__).parent
    return [str(ours), *(str(installed / name) for name in names.split())]


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


def outcome_of(model: Any, tasks: Sequence[str], manager: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """What lmms-eval gives for tasks, and why those did not run that did not."""
    from lmms_eval.evaluator import simple_evaluate

    from components.evaluate.harness.process import reason

    try:
        outcome = simple_evaluate(
            model=model,
            tasks=list(tasks),
            task_manager=manager,
            batch_size=1,
            bootstrap_iters=0,
            log_samples=True,
            distributed_executor_backend="torchrun",
            cli_args=argparse.Namespace(process_with_media=False, output_path="."),
            datetime_str="",
        )
        return outcome, {}
    except Exception as error:
        return {}, dict.fromkeys(tasks, reason(error))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
