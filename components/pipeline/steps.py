"""The table of steps: what each needs, which settings determine it, and which module runs it."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from components.artifacts.artifact import Artifact, StepKey, content_digest
from components.artifacts.code_digest import code_of
from components.base.settings import ModelConfig
from components.compare.settings import CompareSettings
from components.consolidate.settings import ConsolidateSettings
from components.convert.settings import ConvertSettings
from components.effects import counted
from components.errors import ConfigError
from components.ingest.settings import IngestConfig
from components.pipeline.config import PipelineConfig
from components.register.settings import RegisterSettings
from components.train.effects import FAMILY_PARTS, FREE_TO_CHANGE, of_result
from plm_model.family import Part, modules, part

OUTSIDE = "outside"  # in a key's config
MODEL_LIBRARIES = ("safetensors", "torch", "transformers")


@dataclass(frozen=True)
class Step:
    """One step, with what `plm --help` says of it. `inputs` maps the argument name to the step that makes it.

    `settings` gives the one object that `module.run` takes; its `dump` is what the key holds, below `section`
    where the object is a section of the config. `state` says what else identifies the result, such as the contents of a file
    that the settings name; `outside` the state of files of this machine, which a copy of them does not share.
    """

    name: str
    help: str
    module: str
    inputs: Mapping[str, str]
    settings: Callable[[PipelineConfig], Any]
    section: str = ""
    dump: Callable[[Any], Mapping[str, Any]] = counted
    state: Callable[[Any], Mapping[str, Any]] | None = None
    outside: Callable[[Any], Mapping[str, Any]] | None = None
    libraries: tuple[str, ...] = ()  # whose version the output depends on
    on_cluster: bool = False  # heavy: a Ray job of its own where the config names a cluster
    uses_ray: bool = False  # works on an initialised Ray
    role: str = "input"  # as what MLflow shows the inputs of its run
    gives_data: bool = False  # its artifact is the data set that runs are compared by
    # Why an artifact that is there must be made again: of a step whose result is elsewhere, too, and may change there.
    lapsed: Callable[[PipelineConfig, Artifact, Callable[[str], bool]], str | None] | None = None
    # What interrupted attempts left, as lines for a person; the key is None while its inputs are still to be made.
    interrupted: Callable[[PipelineConfig, str, StepKey | None, str | None], Sequence[str]] | None = None
    # Of an input, which of its files count, where not all do.
    counted_files: Callable[[PipelineConfig], Mapping[str, Collection[str]]] = lambda config: {}
    family_parts: tuple[Part, ...] = ()  # of the model's family: what the step runs of it, which no import shows
    # The key of what an interrupted attempt left: of a step that compares by itself what it resumes, less counts.
    resumes: Callable[[StepKey], StepKey] = lambda key: key

    @property
    def always_fresh(self) -> bool:
        """Whether nothing of an earlier attempt is resumed, asked for or not."""
        return self.lapsed is not None

    def require_inputs(self, inputs: Mapping[str, Artifact]) -> None:
        """RuntimeError unless the inputs are those of the table, each made by the step that the table names."""
        given = {name: artifact.step for name, artifact in inputs.items()}
        if given != dict(self.inputs):
            raise RuntimeError(f"step {self.name} takes {dict(self.inputs)}, but was given {given}")

    def key(self, config: PipelineConfig, inputs: Mapping[str, Artifact]) -> StepKey:
        """The artifact key of this step for a config and its inputs."""
        only = self.counted_files(config)
        digests = {
            name: content_digest({file: artifact.files[file] for file in only[name]})
            if name in only
            else artifact.digest
            for name, artifact in inputs.items()
        }
        outside = {OUTSIDE: self.outside(self.settings(config))} if self.outside else {}
        return StepKey(
            self.name, digests, {**self.counted(config), **outside}, self.code(config.model.family), self.versions()
        )

    def counted(self, config: PipelineConfig) -> dict[str, Any]:
        """What the key holds of the config; the same for a copy of the files that it names."""
        settings = self.settings(config)
        values = self.dump(settings)
        state = {"state": self.state(settings)} if self.state else {}
        return {**({self.section: values} if self.section else values), **state}

    def code(self, family: str) -> dict[str, str]:
        """Digests of the code that the step runs, of its parts of the model's family, too."""
        return code_of(self.module, *modules(family, self.family_parts))

    def versions(self) -> dict[str, str]:
        """The versions of the libraries that the output depends on, without the builds' suffixes."""
        return {name: _version(name) for name in self.libraries}


@cache
def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


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


def _store(settings: RegisterSettings) -> Mapping[str, Any]:
    from components.tracking.runs import tracking_uri

    return {"store": hashlib.sha256(tracking_uri(settings.tracking).encode()).hexdigest()[:16]}


def _files_of_codec(config: PipelineConfig) -> Mapping[str, Collection[str]]:
    return {"model": part(config.model.family, "codec").FILES}


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
        *(
            Step(
                name,
                help,
                "components.evaluate.step",
                {"model": model, "dataset": "convert"},
                lambda config: config.evaluate,
                "evaluate",
                libraries=("torch", "transformers", "tokenizers", "lmms-eval", "pillow", "av", "decord"),
                on_cluster=True,
                family_parts=("settings", "codec", "answer"),
            )
            for name, help, model in (
                ("evaluate_base", "measure the base model with lmms-eval", "base"),
                ("evaluate", "measure the trained model with lmms-eval", "consolidate"),
            )
        ),
        Step(
            "compare",
            "report before and after",
            "components.compare.step",
            {"before": "evaluate_base", "after": "evaluate", "dataset": "convert", "checkpoint": "train"},
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
