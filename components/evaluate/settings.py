"""How the model is measured."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from components.settings import Fraction, PositiveInt, Settings, TaskName


class EvaluateConfig(Settings):
    """How the model is measured."""

    WITHOUT_EFFECT: ClassVar[frozenset[str]] = frozenset({"task", "batch_size", "device"})

    task: TaskName = Field(
        "heldout",
        description="name of the task made of the held-out rows, default: the pipeline's; metrics are eval/<task>/<metric>",
    )
    metric: Literal["exact_match"] = Field("exact_match", description="what is measured")
    builtin_tasks: tuple[TaskName, ...] = Field(
        (), description="further lmms-eval tasks by name; need their data at hand"
    )
    limit: PositiveInt | None = Field(None, description="only the first so many held-out rows")
    batch_size: PositiveInt = Field(64, description="questions that are answered together")
    max_new_tokens: PositiveInt = Field(16, description="longest answer in tokens")
    max_bad_fraction: Fraction = Field(
        0.01, description="share of held-out rows that cannot be asked above which the step fails; 0 = strict"
    )
    device: str = Field("auto", description="`auto`, `cpu`, `cuda`")
