"""How the model is measured."""

from __future__ import annotations

import difflib
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from components.evaluate.judge.settings import JudgeConfig
from components.settings import Fraction, LocalPath, PositiveInt, Settings, TaskName


def _known(name: str) -> str:
    from components.evaluate.metrics.known import METRICS

    if name not in METRICS:
        near = difflib.get_close_matches(name, METRICS, 1)
        raise ValueError(
            f"there is no such metric{f'; did you mean {near[0]}?' if near else ''}; known: {', '.join(METRICS)}"
        )
    return name


MetricName = Annotated[str, AfterValidator(_known)]


class EvaluateConfig(Settings):
    """How the model is measured."""

    WITHOUT_EFFECT: ClassVar[frozenset[str]] = frozenset({"task", "batch_size", "device", "workers", "offline"})

    task: TaskName = Field(
        "heldout",
        description="name of the task made of the held-out rows, default: the pipeline's; metrics are eval/<task>/<metric>",
    )
    metric: MetricName | None = Field(
        None, description="score of an answer to a held-out row; default: the one that fits the answers"
    )
    also: tuple[MetricName, ...] = Field((), description="further scores of the held-out rows, shown beside the first")
    suites: tuple[str, ...] = Field((), description="benchmarks, by names of configs/eval or paths of such files")
    tasks: tuple[TaskName, ...] = Field((), description="further lmms-eval tasks by name")
    include_path: LocalPath | None = Field(None, description="folder with lmms-eval tasks of your own as YAML")
    data: LocalPath | None = Field(
        None,
        description="folder in which the data sets of benchmarks lie as OWNER/NAME; default: the hub and its cache",
    )
    offline: bool = Field(False, description="benchmarks fetch nothing; what is not at hand is not measured")
    judge: JudgeConfig = JudgeConfig()
    limit: PositiveInt | None = Field(None, description="only the first so many questions of each task")
    batch_size: PositiveInt = Field(64, description="questions that are answered together")
    max_new_tokens: PositiveInt = Field(16, description="longest answer in tokens")
    max_bad_fraction: Fraction = Field(
        0.01, description="share of held-out rows that cannot be asked above which the step fails; 0 = strict"
    )
    device: str = Field("auto", description="`auto`, `cpu`, `cuda`")
    workers: PositiveInt = Field(
        1, description="Ray actors that answer, each with its own GPU where there are any; all must see the cache"
    )
