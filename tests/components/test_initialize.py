from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from components import initialize
from components.artifact_store import ArtifactStore
from components.artifacts import Artifact, StepKey
from components.config import PipelineConfig
from components.config_loading import load_config
from components.context import StepContext
from components.errors import UserError
from plm_model.weights import build, load_model
from plm_model.weights import initialise as fresh

REPOSITORY = Path(__file__).parents[2]
Initialize = Callable[..., Artifact]


@pytest.fixture
def demo() -> PipelineConfig:
    return load_config(str(REPOSITORY / "configs/demo.yaml"))


@pytest.fixture
def initialized(tmp_path: Path, step_context: Callable[..., StepContext], demo: PipelineConfig) -> Initialize:
    """Runs the step with changes to the demo's model section, and gives its artifact."""

    def make(**changes: Any) -> Artifact:
        config = demo.model_copy(update={"model": demo.model.model_copy(update=changes)})
        store = ArtifactStore(str(tmp_path / "store"), tmp_path / "cache")
        key = StepKey("initialize", config={name: str(value) for name, value in changes.items()})
        with store.create(key) as out:
            initialize.run(config, {}, out, step_context())
        found = store.find(key)
        assert found is not None
        return found

    return make


def test_fresh_weights_are_those_of_the_seed(initialized: Initialize, demo: PipelineConfig) -> None:
    model, tokenizer = load_model(initialized(seed=3).local())
    expected = fresh(build(demo.model.architecture), seed=3).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    assert tokenizer.image_id == demo.model.architecture.image_token_id


def test_the_same_seed_gives_the_same_artifact(initialized: Initialize) -> None:
    assert initialized(seed=3).digest == initialized(seed=3, init="random").digest != initialized(seed=4).digest


def test_a_checkpoint_directory_is_copied(initialized: Initialize) -> None:
    first = initialized(seed=3)
    second = initialized(init=str(first.local()), tokenizer=None)
    assert second.files["model.safetensors"] == first.files["model.safetensors"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer": None}, "model.tokenizer is not set"),
        ({"tokenizer": "/nowhere/tokenizer.json"}, "model.tokenizer: /nowhere/tokenizer.json"),
        ({"init": "facebook/Perception-LM-1B"}, "loading a hub id is not supported yet"),
        ({"init": "/nowhere/at/all"}, "model.init /nowhere/at/all: no such directory"),
    ],
)
def test_what_cannot_be_started_from_is_one_readable_line(
    initialized: Initialize, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        initialized(**changes)


def test_a_checkpoint_of_another_architecture_is_refused(initialized: Initialize, demo: PipelineConfig) -> None:
    folder = str(initialized(seed=3).local())
    decoder = demo.model.architecture.decoder
    changed = demo.model.architecture.__class__(
        vision=demo.model.architecture.vision,
        decoder=decoder.__class__(**{**decoder.__dict__, "max_seq_len": 99}),
        image_token_id=demo.model.architecture.image_token_id,
        processor=demo.model.architecture.processor,
    )
    with pytest.raises(UserError, match=r"model\.architecture\.decoder\.max_seq_len is 99, the checkpoint's is 2048"):
        initialized(init=folder, architecture=changed)


def test_a_damaged_checkpoint_is_refused(initialized: Initialize, tmp_path: Path) -> None:
    folder = initialized(seed=3).local()
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"model\.init: .*model\.safetensors: cannot read"):
        initialized(init=str(folder))
