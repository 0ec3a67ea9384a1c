"""Works round faults of lmms-eval 0.7.3, in memory: nothing installed is changed.

`repair` is called once, before tasks are made. The tasks' functions come out of files that lmms-eval executes anew for every
`!function` of a YAML, so that they are mended where it imports them. Faults that only make a figure strict, as published, are
left: an answer that PLM-VideoBench's judge scores in no readable way counts as 0 there.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

from components.evaluate.benchmarks.judge import Judge, required_judge
from components.evaluate.benchmarks.media import huggingface_home
from components.evaluate.harness.task_repairs import mended

Function = Callable[..., Any]
RAW = "https://raw.githubusercontent.com/"
STC = "facebook/PLM-VideoBench/metadata/metadata_test.jsonl"  # beside the questions, in the working directory


@dataclass(frozen=True)
class Places:
    """What PLM-VideoBench wants written into a file of lmms-eval: `videos` holds the folders fgqa, sgqa and sav (6 fps)."""

    videos: Path
    judge: Judge | None

    @classmethod
    def from_environment(cls) -> Places:
        return cls(huggingface_home() / "plm_videobench", Judge.from_environment())


def repair(places: Places | None = None) -> None:
    """Mend lmms-eval in this process. Where things lie is taken from the environment by default."""
    import lmms_eval.evaluator
    import lmms_eval.utils

    if hasattr(lmms_eval.utils.import_function, "__wrapped__"):
        return  # mended already; what is mended twice would look for names in the wrong module
    places = places or Places.from_environment()
    if places.judge is not None:  # its tasks know the judge by two names, one of them with the path
        os.environ.setdefault("OPENAI_API_URL", f"{places.judge.url}/chat/completions")
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        os.environ["MOTIONBENCH_AUTO_DOWNLOAD"] = "0"  # it asks the hub for each video that is missing
    try_once()
    lmms_eval.utils.load_yaml_config = mended_config(lmms_eval.utils.load_yaml_config)
    lmms_eval.utils.import_function = mended_import(lmms_eval.utils.import_function, places)
    lmms_eval.evaluator.unwrap_generation_output = keeping_likelihoods(lmms_eval.evaluator.unwrap_generation_output)


def try_once() -> None:
    """Fault: an answer that cannot be scored is scored five times, two seconds apart; so is a file that is not at hand read."""
    from lmms_eval.api.task import ConfigurableTask
    from tenacity import stop_after_attempt

    ConfigurableTask.process_results.retry.stop = stop_after_attempt(1)
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        ConfigurableTask.download.retry.stop = stop_after_attempt(1)


def mended_config(load: Function) -> Function:
    """Fault: `rcap_test` lists an empty metric, on which its making fails. Fault: MotionBench's list of questions is read from
    GitHub whenever the task is made; it is taken from the working directory where it lies there."""

    @functools.wraps(load)
    def load_yaml_config(*args: Any, **kwargs: Any) -> Any:
        config = load(*args, **kwargs)
        if None in (metrics := config.get("metric_list") or []):
            config["metric_list"] = [metric for metric in metrics if metric is not None]
        files = (config.get("dataset_kwargs") or {}).get("data_files")
        files = files if isinstance(files, dict) else {}
        for split, url in files.items():
            if isinstance(url, str) and url.startswith(RAW):
                owner, name, _, path = url.removeprefix(RAW).split("/", 3)
                if (local := Path(owner, name, path)).exists():
                    files[split] = str(local.resolve())
        return config

    return load_yaml_config


def keeping_likelihoods(unwrap: Function) -> Function:
    """Fault: the (loss, is greedy) of a likelihood task is turned into one text, on which every such task fails."""

    @functools.wraps(unwrap)
    def unwrap_generation_output(output: Any) -> Any:
        if isinstance(output, (tuple, list)) and len(output) == 2 and isinstance(output[0], Real):
            return tuple(output), None
        return unwrap(output)

    return unwrap_generation_output


def mended_import(load: Function, places: Places) -> Function:
    """What `!function` of a task's YAML names, mended where it has a fault."""

    @functools.wraps(load)
    def import_function(loader: Any, node: Any) -> Any:
        folder = Path(loader.name).parent
        if folder.name == "nextqa" and os.environ.get("HF_HUB_OFFLINE") == "1":
            import nltk

            nltk.download = lambda *args, **kwargs: False  # fault: it tries three downloads for each function
        if "plm_videobench" in folder.parts:
            place_videobench(places)
        found = load(loader, node)
        return mended(found, folder) if "lmms_eval" in folder.parts else found

    return import_function


def place_videobench(places: Places) -> None:
    """Fault: PLM-VideoBench's folders and judge stand in an installed file, and its boxes are fetched from the hub whenever
    a task is made."""
    import lmms_eval.tasks.plm_videobench.eval_utils as shared

    judge = places.judge
    given = {name: {"video_base_dir": str(places.videos / name), "num_video_frames": 32} for name in ("fgqa", "sgqa")}
    shared.load_defualt_config = lambda: {
        "plm_fgqa": given["fgqa"],
        "plm_sgqa": given["sgqa"],
        "plm_stc": {"video_base_dir": str(places.videos / "sav"), "num_video_frames": 32},
        "llm_judge": {
            "base_url": judge.url if judge else "http://127.0.0.1:9/v1",  # nobody answers there
            "api_key": judge.key if judge else "none",
            "model": judge.model if judge else "none",
        },
    }
    if judge is None:
        shared.call_judge_with_retry = lambda *args, **kwargs: required_judge()
    if Path(STC).exists():
        shared.load_plm_stc_metadata = lambda config: masklets(Path(STC).resolve())


@functools.lru_cache(maxsize=1)
def masklets(path: Path) -> dict[tuple[str, Any], Any]:
    """(video, masklet) -> its row of PLM-VideoBench's metadata."""
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {(row["video"], row["masklet_id"]): row for row in rows}
