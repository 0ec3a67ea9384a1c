"""The table of steps: what each needs, which settings determine it, and which module runs it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from components.artifacts.artifact import Artifact, StepKey
from components.base.settings import ModelConfig
from components.champion.settings import ChampionSettings
from components.compare.settings import CompareSettings
from components.consolidate.settings import ConsolidateSettings
from components.convert.settings import ConvertSettings
from components.errors import ConfigError
from components.evaluate.settings import EvaluateConfig
from components.ingest.settings import IngestConfig
from components.pipeline.config import PipelineConfig
from components.pipeline.step import Step
from components.register.settings import RegisterSettings
from components.train.effects import FAMILY_PARTS, FREE_TO_CHANGE, of_result
from plm_model.family import part

MODEL_LIBRARIES = ("safetensors", "torch", "transformers")


def file_digest(path: str | None, what: str) -> str | None:
    """Hex sha256 of a local file that the config names. Raises ConfigError naming the key when it is missing."""
    if path is None:
        return None
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        raise ConfigError(f"{what}: {path}: no such file") from None


def _far_source(settings: IngestConfig) -> Mapping[str, Any]:
    return {} if settings.source.on_disk else {"fingerprint": settings.source.fingerprint()}


def _source_on_disk(settings: IngestConfig) -> Mapping[str, Any]:
    return {"fingerprint": settings.source.fingerprint()} if settings.source.on_disk else {}


def _tokenizer(settings: ModelConfig) -> Mapping[str, Any]:
    return {"tokenizer": file_digest(settings.tokenizer, "model.tokenizer")}


def _weights_on_disk(settings: ModelConfig) -> Mapping[str, Any]:
    from components.base.opened import source_state

    return {"files": source_state(settings)}


def _train_resumes(key: StepKey) -> StepKey:
    settings = {name: value for name, value in key.config["train"].items() if name not in FREE_TO_CHANGE}
    return StepKey(key.step, key.inputs, {"train": settings})


def _interrupted_trainings(config: PipelineConfig, folder: str, key: StepKey | None, here: str | None) -> Sequence[str]:
    from components.train.effects import of_weights
    from components.train.interrupted import interrupted, lines

    return lines(interrupted(folder, config.name, of_weights(config.train), key.inputs if key else None), here)


def _lapsed(config: PipelineConfig, artifact: Artifact, leads: Callable[[str], bool]) -> str | None:
    from components.register.registry import lapse

    return lapse(config.tracking, artifact, leads)


def _other_champion(config: PipelineConfig, artifact: Artifact, leads: Callable[[str], bool]) -> str | None:
    from components.champion.step import lapse

    return lapse(_champion_settings(config), artifact)


def _champion_settings(config: PipelineConfig) -> ChampionSettings:
    return ChampionSettings(config.registry.name or config.name, config.gate is not None, config.tracking)


def _store(settings: RegisterSettings | ChampionSettings) -> Mapping[str, Any]:
    from components.tracking.runs import tracking_uri

    return {"store": hashlib.sha256(tracking_uri(settings.tracking).encode()).hexdigest()[:16]}


def _files_of_codec(config: PipelineConfig) -> Mapping[str, Collection[str]]:
    return {"model": part(config.model.family, "codec").FILES}


def _benchmarks(settings: EvaluateConfig) -> Mapping[str, Any]:
    if not (settings.suites or settings.tasks):
        return {}
    from components.evaluate.suites.chosen import state_of

    return state_of(settings)


def _evaluation(name: str, help: str, model: str) -> Step:
    return Step(
        name,
        help,
        "components.evaluate.step",
        {"model": model, "dataset": "convert"},
        lambda config: config.evaluate,
        "evaluate",
        state=_benchmarks,
        libraries=("torch", "transformers", "tokenizers", "lmms-eval", "pillow", "av", "decord"),
        on_cluster=True,
        family_parts=("settings", "codec", "answer"),
    )


STEPS: dict[str, Step] = {
    step.name: step
    for step in (
        Step(
            "ingest",
            "bring the source's files in, checked and incremental",
            "components.ingest.step",
            {},
            lambda config: config.ingest,
            "ingest",
            state=_far_source,
            outside=_source_on_disk,
        ),
        Step(
            "convert",
            "turn annotations into conversations, split into train and test",
            "components.convert.step",
            {"raw": "ingest"},
            lambda config: ConvertSettings(config.convert, config.ingest.image_column),
            gives_data=True,
        ),
        Step(
            "base",
            "write the base model's directory",
            "components.base.step",
            {},
            lambda config: config.model,
            "model",
            state=_tokenizer,
            outside=_weights_on_disk,
            libraries=MODEL_LIBRARIES,
            family_parts=("settings", "directory"),
        ),
        Step(
            "preprocess",
            "encode conversations into shards with Ray Data",
            "components.preprocess.step",
            {"dataset": "convert", "model": "base"},
            lambda config: config.preprocess,
            "preprocess",
            libraries=("pillow", "av", "decord", "tokenizers", "pyarrow"),
            on_cluster=True,
            uses_ray=True,
            counted_files=_files_of_codec,  # other weights need no other shards
            family_parts=("settings", "codec"),
        ),
        Step(
            "train",
            "train with Ray Train and FSDP2",
            "components.train.step",
            {"shards": "preprocess", "base": "base"},
            lambda config: config.train,
            "train",
            dump=of_result,
            libraries=("torch",),
            on_cluster=True,
            uses_ray=True,
            family_parts=FAMILY_PARTS,
            resumes=_train_resumes,
            role="training",
            interrupted=_interrupted_trainings,
        ),
        Step(
            "consolidate",
            "turn the sharded checkpoint into one model directory",
            "components.consolidate.step",
            {"checkpoint": "train", "base": "base"},
            lambda config: ConsolidateSettings(config.consolidate, config.train.trained),
            libraries=MODEL_LIBRARIES,
            on_cluster=True,
            family_parts=("settings", "model", "directory"),
        ),
        _evaluation("evaluate_base", "measure the base model with lmms-eval", "base"),
        _evaluation("evaluate", "measure the trained model with lmms-eval", "consolidate"),
        Step(
            "champion",
            "find the model that is to be beaten",
            "components.champion.step",
            {"model": "consolidate"},
            _champion_settings,
            state=_store,
            lapsed=_other_champion,
        ),
        _evaluation("evaluate_champion", "measure the present champion with lmms-eval", "champion"),
        Step(
            "compare",
            "report before and after, beside the champion",
            "components.compare.step",
            {
                "before": "evaluate_base",
                "after": "evaluate",
                "champion": "evaluate_champion",
                "dataset": "convert",
                "checkpoint": "train",
            },
            lambda config: CompareSettings(config.compare, config.name, config.evaluate.task),
        ),
        Step(
            "register",
            "register the model and apply the gate",
            "components.register.step",
            {"model": "consolidate", "comparison": "compare"},
            lambda config: RegisterSettings(config.registry.name or config.name, config.gate, config.tracking),
            state=_store,
            lapsed=_lapsed,
        ),
    )
}


def known_steps(names: Sequence[str]) -> frozenset[str]:
    """Names of steps as they are asked to run again, `-` or `_` alike. ConfigError naming what is none."""
    steps = frozenset(name.replace("-", "_") for name in names)
    if unknown := steps - STEPS.keys():
        raise ConfigError(f"refresh {', '.join(sorted(unknown))}: no such step; there are {', '.join(STEPS)}")
    return steps
