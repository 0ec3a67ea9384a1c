"""Whether settings that were made for one data set have got into the life of another."""

from __future__ import annotations

from collections.abc import Iterator

from components.pipeline.config import PipelineConfig
from components.preflight.finding import Finding

DEMO_TASK = "digits"  # and the kind of source that it is of


def inherited(config: PipelineConfig) -> Iterator[Finding]:
    """The demo's name for its measure, over data that are no digits."""
    if config.evaluate.task == DEMO_TASK and config.ingest.source.kind != DEMO_TASK:
        yield Finding(
            "evaluate.task is `digits` and the data are others: steps, gate and task come from configs/demo.yaml; extend "
            "configs/base.yaml for data of your own",
            refuses=False,
            step="evaluate",
        )
