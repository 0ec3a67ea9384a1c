"""Values of the config that follow from others, where it does not give them itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def with_task_of_pipeline(values: dict[str, Any]) -> dict[str, Any]:
    """A measure is named after the pipeline that it is of, where the config gives it no name of its own."""
    evaluate, name = values.get("evaluate") or {}, values.get("name", "pipeline")
    if not isinstance(evaluate, Mapping) or "task" in evaluate or not isinstance(name, str):
        return values
    return values | {"evaluate": {**evaluate, "task": name}}


def with_data_sets_of_datamix(values: dict[str, Any]) -> dict[str, Any]:
    """What is trained on is what comes in, where a registry's data sets are not named themselves."""
    ingest: Any = values.get("ingest")
    train = values.get("train")
    source: Any = ingest.get("source") if isinstance(ingest, Mapping) else None
    datamix = train.get("datamix") if isinstance(train, Mapping) else None
    registered = isinstance(source, Mapping) and source.get("kind") == "catalogue" and "datasets" not in source
    if not registered or not isinstance(datamix, str):
        return values
    names = [part.partition(":")[0] for part in "".join(datamix.split()).split(",")]
    return values | {"ingest": {**ingest, "source": {**source, "datasets": names}}}
