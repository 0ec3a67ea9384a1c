"""An interrupted training is resumed whatever has no effect on its weights, and is named where something else keeps it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from components.artifacts.artifact import Artifact, StepKey
from components.artifacts.context import StepContext
from components.artifacts.store import ArtifactStore
from components.pipeline.config import PipelineConfig
from components.pipeline.run_step import resume_uri
from components.pipeline.steps import STEPS
from components.train import step
from components.train.checkpoints import checkpoint
from components.train.folder import TrainingFolder
from components.train.watch.signals import Stopped
from components.train.worker import TrainJob, run_rank
from flows.run.explain import explain, interrupted_notes
from tests.components.training_set import artifact, tiny_config, write_base, write_shards

SETTINGS = {"steps": 12, "warmup_steps": 2, "pack_tokens": 64, "pack_media": 6, "checkpoint_every": 4, "workers": 1}
PROFILE = {"first": 2, "steps": 1}


def config(**train: Any) -> PipelineConfig:
    return PipelineConfig.model_validate({"name": "mine", "train": {**SETTINGS, **train}})


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Artifact]:
    folder = tmp_path_factory.mktemp("interrupted")
    write_shards(folder / "shards")
    write_base(folder / "base", tiny_config())
    return {"shards": artifact(folder / "shards", "preprocess"), "base": artifact(folder / "base", "base")}


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "runs"), tmp_path / "cache")


@pytest.fixture
def train(inputs: Mapping[str, Artifact], store: ArtifactStore, step_context: Callable[..., StepContext]) -> Any:
    """Train as the step does, where it would, in this process; the state of the newest checkpoint."""

    def run(wanted: PipelineConfig, stop: bool = False, said: list[str] | None = None) -> dict[str, Any]:
        place = resume_uri(store, STEPS["train"].key(wanted, inputs))
        job = TrainJob(wanted.train, inputs["shards"], inputs["base"], TrainingFolder(str(place)))
        progress = said.append if said is not None else print
        step.note(
            wanted.train, inputs, job.folder, step_context(resume_uri=place, progress=progress, pipeline=wanted.name)
        )

        def send(line: dict[str, Any]) -> None:
            if stop and line["step"] == 4:
                signal.raise_signal(signal.SIGTERM)  # heard at once; a touch file is looked for once a second

        if stop:
            with pytest.raises(Stopped):
                run_rank(replace(job, settings=replace(job.settings, log_every=1, steps=12)), torch.device("cpu"), send)
        else:
            run_rank(job, torch.device("cpu"), send)
        return checkpoint.read_state(checkpoint.newest(job.folder.checkpoints) or "")

    return run


@pytest.mark.case("E7")
@pytest.mark.parametrize(
    ("change", "artifact_stays"),
    [
        ({"checkpoint_every": 2}, True),
        ({"validate_every": 3}, True),
        ({"profile": PROFILE}, True),
        ({"max_failed_checkpoints": 9}, True),
        ({"publish": "best"}, False),
        ({"publish": "best", "validate_every": 3}, False),
    ],
)
def test_what_has_no_effect_on_the_weights_keeps_the_place_of_the_checkpoints(
    change: dict[str, Any], artifact_stays: bool, inputs: Mapping[str, Artifact], store: ArtifactStore
) -> None:
    before, after = (STEPS["train"].key(config(**settings), inputs) for settings in ({}, change))
    assert resume_uri(store, before) == resume_uri(store, after)
    assert (before.digest == after.digest) is artifact_stays


@pytest.mark.case("E7")
def test_which_checkpoint_is_best_depends_on_when_they_are_made_and_measured(inputs: Mapping[str, Artifact]) -> None:
    def digest(**more: Any) -> str:
        return STEPS["train"].key(config(publish="best", **more), inputs).digest

    assert len({digest(), digest(validate_every=3), digest(checkpoint_every=2)}) == 3
    assert digest(profile=PROFILE) == digest()


@pytest.mark.case("E7")
def test_other_code_goes_on_and_other_weights_do_not(inputs: Mapping[str, Artifact], store: ArtifactStore) -> None:
    key = STEPS["train"].key(config(), inputs)
    other_code = StepKey(key.step, key.inputs, key.config, {**key.code, "components.train.loop": "0"})
    assert other_code.digest != key.digest and resume_uri(store, other_code) == resume_uri(store, key)
    for other in (config(lr=0.5), config(seed=1), config(lora={"pattern": "wq"})):
        assert resume_uri(store, STEPS["train"].key(other, inputs)) != resume_uri(store, key)


@pytest.mark.case("E7")
def test_an_interrupted_training_is_named_and_goes_on_with_other_code(
    train: Any, inputs: Mapping[str, Artifact], store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_at = train(config(), stop=True)["step"]
    stands = f"after step {stopped_at} of 12, "

    def notes(wanted: PipelineConfig) -> tuple[str, ...]:
        return interrupted_notes(STEPS["train"], wanted, store, STEPS["train"].key(wanted, inputs))

    for same in (config(), config(checkpoint_every=1, validate_every=3, publish="best", profile=PROFILE)):
        (line,) = notes(same)
        assert line.startswith(f"resumes {stands}") and line.endswith(" MB of checkpoints")
    (line,) = notes(config(lr=0.5, seed=3))
    assert line.startswith(f"an interrupted training stands {stands}")
    assert "; it has train.lr: 0.001, now 0.5; train.seed: 0, now 3: undo that to resume it" in line
    assert resume_uri(store, STEPS["train"].key(config(), inputs)) in line
    assert notes(config().model_copy(update={"name": "another"})) == ()
    planned = {decision.step: decision for decision in explain(config(), store, frozenset())}
    assert planned["train"].notes[0].endswith("it is resumed if its inputs come out the same")

    usual = step.code_of
    monkeypatch.setattr(step, "code_of", lambda *modules: {**usual(*modules), "components.train.loop": "0"})
    said: list[str] = []
    state = train(config(checkpoint_every=5), said=said)
    assert said == ["begun with other code: components.train.loop changed since"]
    assert state["step"] == 12 and state["resumed_from"][0].startswith(f"step-{stopped_at:08d}-")


@pytest.mark.case("E7")
def test_another_data_set_is_named_and_damaged_notes_stop_nothing(
    train: Any, inputs: Mapping[str, Artifact], store: ArtifactStore
) -> None:
    train(config(), stop=True)
    key = STEPS["train"].key(config(), inputs)
    other = StepKey(key.step, {**key.inputs, "shards": "0" * 32}, key.config, key.code)
    assert "; it has another data set: undo that" in interrupted_notes(STEPS["train"], config(), store, other)[0]
    for damage in (b"[]", b"\xff", b"[" * 100_000, b"{}", b'{"settings": 3, "code": []}'):
        Path(resume_uri(store, key), "training.json").write_bytes(damage)
        assert len(interrupted_notes(STEPS["train"], config(), store, key)) == 1
