"""A step of the chain: what it needs, what its key counts, which module runs it."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from components.artifacts.artifact import Artifact, StepKey, content_digest
from components.artifacts.code_digest import code_of
from components.effects import counted
from components.pipeline.config import PipelineConfig
from plm_model.family import Part, modules

OUTSIDE = "outside"  # in a key's config


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
