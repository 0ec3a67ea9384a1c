"""The inputs of a step by itself: found by their keys, each looked for once, and also from a copy of the source."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from components.artifacts.artifact import Artifact
from components.artifacts.manifest import Damage
from components.artifacts.store import ArtifactStore
from components.errors import UserError
from components.pipeline.config import PipelineConfig
from components.pipeline.last_run import remember_key
from components.pipeline.run_step import find_inputs
from components.pipeline.step import Step
from components.pipeline.steps import STEPS

PROCESSOR = ("processor_config.json", "tokenizer.json")


class CountingStore(ArtifactStore):
    """Counts how often an artifact is looked for."""

    found = 0

    def look(self, step: str, digest: str) -> Artifact | Damage | None:
        self.found += 1
        return super().look(step, digest)


def make(store: ArtifactStore, config: PipelineConfig, step: Step, inputs: dict[str, Artifact]) -> Artifact:
    """An artifact of the step as a run would key and remember it; what is in it is of no account here."""
    key = step.key(config, inputs)
    with store.create(key) as out:
        for name in PROCESSOR:
            out.write_json(name, step.name)
    remember_key(config, store, key)
    found = store.find(key)
    assert found is not None
    return found


def test_each_input_of_the_last_step_is_looked_for_once(tmp_path: Path) -> None:
    config = PipelineConfig.model_validate({"ingest": {"source": {"kind": "digits", "limit": 3}}})
    store = CountingStore(str(tmp_path / "runs"), tmp_path / "cache")
    made: dict[str, Artifact] = {}
    for step in STEPS.values():
        made[step.name] = make(store, config, step, {name: made[source] for name, source in step.inputs.items()})
    store.found = 0
    inputs = find_inputs(STEPS["register"], config, store, pytest.fail)
    assert inputs == {"model": made["consolidate"], "comparison": made["compare"]}
    assert store.found == len(STEPS) - 1


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with a source and a model directory below it."""
    folder = tmp_path / "home"
    for name in ("data/labels.csv", "weights/model.safetensors"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("image,label\n")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "runs"), tmp_path / "cache")


FROM_FILES = PipelineConfig.model_validate(
    {"ingest": {"source": {"kind": "folder", "path": "data"}}, "model": {"init": "weights"}}
)
NEEDS_BOTH = Step("any", "", "components.compare.step", {"raw": "ingest", "base": "base"}, lambda config: {})


def copy_of(home: Path, monkeypatch: pytest.MonkeyPatch, keep: bool = True) -> None:
    """Go to another directory, with a copy of the files or without, as on another machine."""
    away = home.parent / "away"
    shutil.copytree(home, away, copy_function=shutil.copyfile) if keep else away.mkdir()
    monkeypatch.chdir(away)
    for path in away.rglob("*.*"):
        os.utime(path, (1, 1))


@pytest.mark.parametrize("keep", [True, False])
def test_a_copy_of_the_source_and_the_weights_leads_to_what_the_last_run_made(
    home: Path, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch, keep: bool
) -> None:
    made = {name: make(store, FROM_FILES, STEPS[name], {}) for name in ("ingest", "base")}
    copy_of(home, monkeypatch, keep)
    said: list[str] = []
    inputs = find_inputs(NEEDS_BOTH, FROM_FILES, store, said.append)
    assert inputs == {"raw": made["ingest"], "base": made["base"]}
    assert len(said) == 2 and str(home) in said[0]


def test_a_source_that_changed_where_it_lies_must_be_brought_in_first(home: Path, store: ArtifactStore) -> None:
    for name in ("ingest", "base"):
        make(store, FROM_FILES, STEPS[name], {})
    os.utime(home / "data" / "labels.csv", (1, 1))
    with pytest.raises(UserError, match="run `plm ingest` with this config"):
        find_inputs(NEEDS_BOTH, FROM_FILES, store, pytest.fail)


def test_other_settings_are_not_those_of_the_last_run(
    home: Path, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ingest", "base"):
        make(store, FROM_FILES, STEPS[name], {})
    copy_of(home, monkeypatch)
    other = FROM_FILES.model_copy(update={"ingest": FROM_FILES.ingest.model_copy(update={"image_column": "picture"})})
    with pytest.raises(UserError, match="run `plm ingest` with this config"):
        find_inputs(NEEDS_BOTH, other, store, pytest.fail)
