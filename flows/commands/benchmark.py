"""`plm evaluate --model M --suite S` and `plm compare --models A B --suite S`: benchmarks without a pipeline."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.artifacts.artifact import Artifact
from components.artifacts.opened import artifact_at
from components.errors import UserError
from components.evaluate.by_itself import Benchmarked, benchmark, write
from components.evaluate.settings import EvaluateConfig
from components.evidence.paired import paired
from components.pipeline.config import PipelineConfig
from components.pipeline.last_run import last_key
from components.pipeline.storage import store_of
from components.register.aliases import PLACE_TAG
from components.terminal_text import one_line
from components.tracking.runs import tracking_client
from flows.run.progress import Progress

REGISTERED = re.compile(r"models:/(?P<name>[^@/]+)(@(?P<alias>[^@/]+)|/(?P<version>\d+))")
CONFIDENCE = 0.95


def evaluate_models(config: PipelineConfig, models: Sequence[str], folder: str | None) -> list[dict[str, Any]]:
    """Measure each model on the config's suites and tasks; prints a table of each, or of all beside the first."""
    found = [measured(config, name, folder, len(models) > 1) for name in models]
    for line in table(found[0]) if len(found) == 1 else comparison(found):
        print(one_line(line))
    return [{"model": each.name, "weights": each.digest, "tasks": dict(each.tasks)} for each in found]


def measured(config: PipelineConfig, name: str, folder: str | None, several: bool) -> Benchmarked:
    directory = model_directory(config, name)
    root = Path(config.storage.cache_dir).absolute() / "benchmarks"
    progress = Progress()
    found = benchmark(name, directory, config.evaluate, root, lambda text: progress.update("evaluate", text))
    place = Path(folder or root) / found.digest[:12] if several or folder is None else Path(folder)
    write(found, place)
    progress.say("evaluate", f"{name}: figures and samples are in {place}")
    return found


def model_directory(config: PipelineConfig, name: str) -> Path:
    """The directory of a model: a path, owner/name@commit, models:/NAME@ALIAS, models:/NAME/VERSION, or run:PIPELINE."""
    if match := REGISTERED.fullmatch(name):
        return registered(config, match["name"], match["alias"], match["version"]).local()
    if name.startswith("run:"):
        return last_of(config, name.removeprefix("run:")).local()
    from plm_model.model_directory.hub import HubError, local_directory

    try:
        return local_directory(name)
    except HubError as error:
        raise UserError(str(error)) from None


def registered(config: PipelineConfig, name: str, alias: str | None, version: str | None) -> Artifact:
    from mlflow.exceptions import MlflowException

    client = tracking_client(config.tracking)
    try:
        found = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, version)
    except MlflowException as error:
        raise UserError(f"models:/{name}: {' '.join(str(error).split())[:200]}") from None
    if PLACE_TAG not in found.tags:
        raise UserError(f"models:/{name}: version {found.version} was not registered by this pipeline")
    return artifact_at(found.tags[PLACE_TAG], Path(config.storage.cache_dir).absolute())


def last_of(config: PipelineConfig, pipeline: str) -> Artifact:
    """The model that the last run of a pipeline made."""
    store = store_of(config)
    key = last_key(config.model_copy(update={"name": pipeline}), store, "consolidate")
    found = store.find(key) if key else None
    if found is None:
        raise UserError(f"run:{pipeline}: no run of this pipeline left a model in {store.root}")
    return found


def table(found: Benchmarked) -> list[str]:
    """A line a benchmark: our figure, those published, on how many questions; or why there is none."""
    lines = [f"{'benchmark':<16}{'figure':>9}{'questions':>11}   published (1B, 3B, 8B)"]
    for title, task in found.tasks.items():
        if task["not_measured"] is not None:
            lines.append(f"{title:<16}{'-':>9}{'':>11}   not measured: {task['not_measured']}")
            continue
        lines.append(f"{title:<16}{task['value']:>9.2f}{task['n']:>11}   {published(task)}")
    return lines


def published(task: Mapping[str, Any]) -> str:
    """The published figures; where split or setting are others, both are named."""
    known = task["published"]
    if known is None:
        return ""
    figures = ", ".join(
        "-" if known[f"plm_{size}"] is None else f"{known[f'plm_{size}']:g}" for size in ("1b", "3b", "8b")
    )
    if task["comparable"]:
        return figures
    return f"{figures} ({known['split']}, {known['setting']}; here {task['split']}, {task['setting']})"


def comparison(found: Sequence[Benchmarked]) -> list[str]:
    """A line a benchmark and model after the first: both figures, and the paired interval of their difference."""
    first, *others = found
    lines = [f"against {first.name}, paired over questions, {100 * CONFIDENCE:g} % intervals"]
    for other in others:
        lines.append(other.name)
        lines += [f"  {title:<16}{difference(first, other, title)}" for title in first.tasks]
    return lines


def difference(first: Benchmarked, other: Benchmarked, title: str) -> str:
    """What one benchmark says of two models."""
    mine, theirs = first.tasks[title], other.tasks[title]
    for name, task in ((first.name, mine), (other.name, theirs)):
        if task["not_measured"] is not None:
            return f"not measured of {name}: {task['not_measured']}"
    figures = f"{mine['value']:.2f} -> {theirs['value']:.2f}"
    if mine["samples"] is None or theirs["samples"] is None:
        return f"{figures}   no score for each question, so no interval"
    before, after = ({row["id"]: row for row in each.samples[title]} for each in (first, other))
    if before.keys() != after.keys():
        return f"{figures}   they answered different questions"
    gain = paired(
        [row["score"] for row in before.values()],
        [after[key]["score"] for key in before],
        [row["cluster"] for row in before.values()],
        mine["best"],
    )
    low, high = gain.interval(CONFIDENCE)
    return f"{figures}   mean score {gain.gain:+.2f} ({low:+.2f} to {high:+.2f}) on {gain.n}"


def with_what(config: PipelineConfig, suites: Sequence[str], tasks: Sequence[str], limit: int | None) -> PipelineConfig:
    """The config with the suites and tasks of the command line in the place of its own."""
    named = {"suites": suites, "tasks": tasks} if suites or tasks else {}
    limited = {} if limit is None else {"limit": limit}
    values = {**config.evaluate.model_dump(), **named, **limited}
    return config.model_copy(update={"evaluate": EvaluateConfig.model_validate(values)})
