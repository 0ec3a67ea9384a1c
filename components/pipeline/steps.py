"""The table of steps: what each needs, which part of the config determines it, and which module runs it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.artifacts.artifact import Artifact, StepKey, content_digest
from components.artifacts.code_digest import code_digests
from components.artifacts.context import StepContext as StepContext
from components.errors import ConfigError
from components.pipeline.config import PipelineConfig
from components.train.effects import FREE_TO_CHANGE, of_result

OUTSIDE = "outside"  # in a key's config
SOURCES_ON_DISK = ("folder", "plm", "parquet")  # whose files are told apart by their modification times


@dataclass(frozen=True)
class Step:
    """One step. `inputs` maps the argument name to the step that makes it; `config` gives the part that counts.

    `parts` names the files of an input that count, where not all of them do. `outside` says in which state the files of this
    machine are that the config names; unlike `config`, a copy of them gives something else.
    """

    name: str
    module: str
    inputs: Mapping[str, str]
    config: Callable[[PipelineConfig], Mapping[str, Any]]
    on_cluster: bool = False  # heavy: a Ray job of its own where the config names a cluster
    uses_ray: bool = False  # works on an initialised Ray
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    outside: Callable[[PipelineConfig], Mapping[str, Any]] | None = None
    # The key of what an interrupted attempt left: of a step that compares by itself what it resumes, less counts.
    resumes: Callable[[StepKey], StepKey] = lambda key: key

    def key(self, config: PipelineConfig, inputs: Mapping[str, Artifact]) -> StepKey:
        """The artifact key of this step for a config and its inputs."""
        digests = {
            name: content_digest({file: artifact.files[file] for file in self.parts[name]})
            if name in self.parts
            else artifact.digest
            for name, artifact in inputs.items()
        }
        outside = {OUTSIDE: self.outside(config)} if self.outside else {}
        return StepKey(self.name, digests, {**self.config(config), **outside}, code_digests(self.module))


def file_digest(path: str | None, what: str) -> str | None:
    """Hex sha256 of a local file that the config names. Raises ConfigError naming the key when it is missing."""
    if path is None:
        return None
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        raise ConfigError(f"{what}: {path}: no such file") from None


def _ingest(config: PipelineConfig) -> Mapping[str, Any]:
    from components.ingest.fingerprint import source_fingerprint

    source = config.ingest.source
    state = {} if source.kind in SOURCES_ON_DISK else {"fingerprint": source_fingerprint(source)}
    return {
        "ingest": {"source": source.model_dump(mode="json", exclude={"registry"}), **state},  # whose data sets count
        "convert": {"image_column": config.convert.image_column},  # ingest copies what this column names
    }


def _ingest_outside(config: PipelineConfig) -> Mapping[str, Any]:
    from components.ingest.fingerprint import source_fingerprint

    source = config.ingest.source
    return {"fingerprint": source_fingerprint(source)} if source.kind in SOURCES_ON_DISK else {}


def _convert(config: PipelineConfig) -> Mapping[str, Any]:
    return {"convert": config.convert.model_dump(mode="json")}


def _preprocess(config: PipelineConfig) -> Mapping[str, Any]:
    return {
        "preprocess": config.preprocess.model_dump(mode="json", exclude={"parallelism"}),
        "convert": {"accept_gpt_role": config.convert.accept_gpt_role},
    }


def _initialize(config: PipelineConfig) -> Mapping[str, Any]:
    tokenizer = file_digest(config.model.tokenizer, "model.tokenizer")
    return {"name": config.name, "model": config.model.model_dump(mode="json") | {"tokenizer": tokenizer}}


def _initialize_outside(config: PipelineConfig) -> Mapping[str, Any]:
    from components.initialize.base import source_state

    return {"files": source_state(config.model)}


def _train(config: PipelineConfig) -> Mapping[str, Any]:
    return {"train": of_result(config.model_dump(mode="json", include={"train"})["train"])}


def _train_resumes(key: StepKey) -> StepKey:
    settings = {name: value for name, value in key.config["train"].items() if name not in FREE_TO_CHANGE}
    return StepKey(key.step, key.inputs, {"train": settings}, {})


def _consolidate(config: PipelineConfig) -> Mapping[str, Any]:
    trained = config.model_dump(mode="json", include={"train": {"freeze", "groups", "lora"}})
    return {"name": config.name, "consolidate": config.consolidate.model_dump(mode="json"), **trained}


def _evaluate(config: PipelineConfig) -> Mapping[str, Any]:
    return {
        "evaluate": config.evaluate.model_dump(mode="json", exclude={"device"}),
        "preprocess": {"max_bad_fraction": config.preprocess.max_bad_fraction},
    }


def _compare(config: PipelineConfig) -> Mapping[str, Any]:
    return {"compare": config.compare.model_dump(mode="json"), "evaluate": {"metric": config.evaluate.metric}}


def _register(config: PipelineConfig) -> Mapping[str, Any]:
    from components.tracking.runs import tracking_uri

    store = tracking_uri(config)
    return {
        "registry": {"name": config.registry.name or config.name},
        "gate": config.gate.model_dump(mode="json"),
        "tracking": {"store": hashlib.sha256(store.encode()).hexdigest()[:16]},
    }


STEPS: dict[str, Step] = {
    step.name: step
    for step in (
        Step("ingest", "components.ingest.step", {}, _ingest, outside=_ingest_outside),
        Step("convert", "components.convert.step", {"raw": "ingest"}, _convert),
        Step("initialize", "components.initialize.step", {}, _initialize, outside=_initialize_outside),
        Step(
            "preprocess",
            "components.preprocess.step",
            {"dataset": "convert", "model": "initialize"},
            _preprocess,
            on_cluster=True,
            uses_ray=True,
            parts={"model": ("processor_config.json", "tokenizer.json")},  # other weights need no other shards
        ),
        Step(
            "train",
            "components.train.step",
            {"shards": "preprocess", "base": "initialize"},
            _train,
            on_cluster=True,
            uses_ray=True,
            resumes=_train_resumes,
        ),
        Step(
            "consolidate",
            "components.consolidate.step",
            {"checkpoint": "train", "base": "initialize"},
            _consolidate,
            on_cluster=True,
        ),
        Step(
            "evaluate_base",
            "components.evaluate.step",
            {"model": "initialize", "dataset": "convert"},
            _evaluate,
            on_cluster=True,
        ),
        Step(
            "evaluate",
            "components.evaluate.step",
            {"model": "consolidate", "dataset": "convert"},
            _evaluate,
            on_cluster=True,
        ),
        Step(
            "compare",
            "components.compare.step",
            {"before": "evaluate_base", "after": "evaluate", "dataset": "convert", "checkpoint": "train"},
            _compare,
        ),
        Step("register", "components.register.step", {"model": "consolidate", "comparison": "compare"}, _register),
    )
}


def known_steps(names: Sequence[str]) -> frozenset[str]:
    """Names of steps as they are asked to run again, `-` or `_` alike. ConfigError naming what is none."""
    steps = frozenset(name.replace("-", "_") for name in names)
    if unknown := steps - STEPS.keys():
        raise ConfigError(f"refresh {', '.join(sorted(unknown))}: no such step; there are {', '.join(STEPS)}")
    return steps
