"""Starting weights: from a seed, from a model directory in any layout, from a Llama and a tower; and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from components.artifacts.artifact import Artifact, StepKey
from components.artifacts.context import StepContext
from components.artifacts.store import ArtifactStore
from components.base import step as base
from components.errors import UserError
from components.pipeline.config import PipelineConfig
from components.pipeline.config_loading import load_config
from components.pipeline.steps import STEPS
from plm_model.families.plm.layouts.detect import read_directory
from plm_model.families.plm.model import build
from plm_model.families.plm.settings import PLMConfig
from plm_model.families.plm.weights import initialise as fresh
from plm_model.families.plm.weights import load_model
from plm_model.model_directory.opened import ModelDirectory
from tests.plm_model.model_directories import (
    SCALED,
    STAGE_1,
    TOKENIZER,
    encoder,
    llama,
    own_directory,
    random_state,
    reference_directory,
    release,
)

REPOSITORY = Path(__file__).parents[3]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
Initialize = Callable[..., Artifact]


@pytest.fixture
def demo() -> PipelineConfig:
    return load_config(str(REPOSITORY / "configs/demo.yaml"))


@pytest.fixture
def initialized(tmp_path: Path, step_context: Callable[..., StepContext]) -> Initialize:
    """Runs the step with a model section, and gives its artifact."""

    def make(**model: Any) -> Artifact:
        config = PipelineConfig.model_validate({"model": model})
        store = ArtifactStore(str(tmp_path / "store"), tmp_path / "cache")
        key = StepKey("base", config=STEPS["base"].counted(config))
        with store.create(key) as out:
            base.run(config.model, {}, out, step_context())
        found = store.find(key)
        assert found is not None
        return found

    return make


@pytest.fixture
def random(initialized: Initialize, demo: PipelineConfig) -> Initialize:
    """The demo's model, with a seed and changes."""

    def make(**changes: Any) -> Artifact:
        return initialized(**demo.model.model_dump() | changes)

    return make


def same(opened: ModelDirectory, artifact: Artifact) -> bool:
    """Whether the artifact has the opened tensors, to the bit, and its tokenizer."""
    made = read_directory(artifact.local())
    before, after = dict(opened.stream()), dict(made.stream())
    return (
        before.keys() == after.keys()
        and all(torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before)
        and made.tokenizer.source == opened.tokenizer.source
    )


def test_fresh_weights_are_those_of_the_seed(random: Initialize, demo: PipelineConfig) -> None:
    model, tokenizer = load_model(random(seed=3).local())
    config = PLMConfig.from_dict(demo.model.architecture)
    expected = fresh(build(config), seed=3).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    assert tokenizer.image_id == config.image_token_id


def test_the_same_seed_gives_the_same_artifact(random: Initialize) -> None:
    assert random(seed=3).digest == random(seed=3, init="random").digest != random(seed=4).digest


@pytest.mark.parametrize("layout", ["plm", "hf", "meta"])
def test_a_model_directory_brings_its_own_architecture_and_tokenizer(
    layout: str, initialized: Initialize, tmp_path: Path
) -> None:
    folder = tmp_path / "meta" if layout == "meta" else tmp_path / "there"
    if layout == "meta":
        release(tmp_path, dtype=torch.bfloat16)
    elif layout == "hf":
        reference_directory(folder)
    else:
        own_directory(folder, dtype=torch.bfloat16)
    found = read_directory(folder)
    artifact = initialized(init=str(folder))
    assert same(found, artifact) and read_directory(artifact.local()).config == found.config
    if layout == "meta":
        assert artifact.read_json("original_params.json") == found.original_params
    assert artifact.counts["parameters"] == sum(tensor.numel() for _, tensor in found.stream())


def test_a_commit_on_the_hub_is_downloaded_once(
    initialized: Initialize, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here it has been, and there is no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    snapshot = tmp_path / "hub" / "models--someone--model" / "snapshots" / COMMIT
    reference_directory(snapshot)
    artifact = initialized(init=f"someone/model@{COMMIT}")
    assert same(read_directory(snapshot), artifact)
    assert f"The weights of `someone/model@{COMMIT}`" in artifact.open("README.md", "r").read()
    with pytest.raises(UserError, match="cannot download it"):
        initialized(init=f"someone/model@{COMMIT[::-1]}")


def test_settings_that_no_tensor_depends_on_may_be_changed(initialized: Initialize, tmp_path: Path) -> None:
    own_directory(tmp_path / "there")
    changes = {
        "pooling_ratio": 4,
        "processor": {"max_num_tiles": 9},
        "vision": {"drop_path": 0.3, "width": 64},
        "decoder": {"max_seq_len": 99},
    }
    artifact = initialized(init=str(tmp_path / "there"), architecture=changes)
    made = read_directory(artifact.local()).config
    assert made == replace(
        SCALED,
        pooling_ratio=4,
        processor=replace(SCALED.processor, max_num_tiles=9),
        vision=replace(SCALED.vision, drop_path=0.3),
        decoder=replace(SCALED.decoder, max_seq_len=99),
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decoder": {"dim": 128}}, r"model\.architecture\.decoder\.dim is 128, but the weights of .* have 64"),
        ({"vision": {"use_cls_token": False}}, r"vision\.use_cls_token is False, but .* have True"),
        ({"vision": {"layer_scale_init": None}}, r"vision\.layer_scale_init is None, but .* have 0\.1"),
        ({"decoder": {"rope_scaling": {"factor": 8.0}}}, r"decoder\.rope_scaling\.factor is 8\.0, but .* have 4\.0"),
        ({"decoder": {"rope_scaling": None}}, r"decoder\.rope_scaling is None, but"),
        ({"pooling_ratio": 3}, "pooling_ratio is 3; it must divide the 4 patches"),
    ],
)
def test_settings_of_other_weights_are_refused(
    changes: dict[str, Any], message: str, initialized: Initialize, tmp_path: Path
) -> None:
    own_directory(tmp_path / "there")
    with pytest.raises(UserError, match=message):
        initialized(init=str(tmp_path / "there"), architecture=changes)


def test_a_llama_and_a_tower_become_the_model_of_the_first_stage(initialized: Initialize, tmp_path: Path) -> None:
    decoder, tower = llama(tmp_path, STAGE_1), encoder(tmp_path / "pe.pt", STAGE_1)
    artifact = initialized(
        init=str(tmp_path / "llama"), tower=str(tmp_path / "pe.pt"), seed=3, architecture=STAGE_1.to_dict()
    )
    made = read_directory(artifact.local())
    projector = random_state(STAGE_1, 3)
    for name, tensor in made.stream():
        source = decoder.get(name, tower.get(name.removeprefix("vision_model."), projector[name]))
        assert torch.equal(tensor, source)
    assert made.config == STAGE_1


def test_the_second_stage_gains_layer_scale_and_pooling(initialized: Initialize, tmp_path: Path) -> None:
    state = own_directory(tmp_path / "stage_1", STAGE_1).state_dict()
    changes = {"vision": {"layer_scale_init": 0.1, "drop_path": 0.1}, "pooling_ratio": 2}
    made = read_directory(initialized(init=str(tmp_path / "stage_1"), architecture=changes).local())
    tensors = dict(made.stream())
    gammas = tensors.keys() - state.keys()
    assert len(gammas) == 4 and all((tensors[name] == 0.1).all() for name in gammas)
    assert all(torch.equal(tensors[name], tensor) for name, tensor in state.items())
    assert (made.config.pooling_ratio, made.config.vision.drop_path) == (2, 0.1)


def test_the_tokenizer_may_come_from_another_file_of_the_same_entries(initialized: Initialize, tmp_path: Path) -> None:
    own_directory(tmp_path / "there")
    other = tmp_path / "tokenizer.json"
    other.write_text(TOKENIZER.read_text().replace("<|reserved_special_token_1|>", "<|video|>"))
    made = read_directory(initialized(init=str(tmp_path / "there"), tokenizer=str(other)).local())
    assert made.tokenizer.source == other.read_bytes()
    other.write_text(TOKENIZER.read_text().replace('"!": 0,', '"¡": 0,').replace('"¡": 94,', '"!": 94,'))
    with pytest.raises(UserError, match=r"tokenizer\.json is not the tokenizer of the model"):
        initialized(init=str(tmp_path / "there"), tokenizer=str(other))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer": None}, "model.tokenizer is not set"),
        ({"init": "facebook/Perception-LM-1B"}, "model.init facebook/Perception-LM-1B: .*give the full commit"),
        ({"init": "/nowhere/at/all"}, "model.init /nowhere/at/all: .*no such directory"),
        ({"architecture": {"image_token_id": 7}}, "belongs to another model"),
    ],
)
def test_what_cannot_be_started_from_is_one_readable_line(
    random: Initialize, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        random(**changes)
    assert "\n" not in str(caught.value)


def test_a_damaged_model_directory_is_refused(initialized: Initialize, tmp_path: Path) -> None:
    own_directory(tmp_path / "there")
    weights = tmp_path / "there" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"model\.init .*model\.safetensors: cannot read"):
        initialized(init=str(tmp_path / "there"))


def key_of(step: str = "base", **model: Any) -> str:
    return STEPS[step].key(PipelineConfig.model_validate({"model": model}), {}).digest


def test_the_key_follows_the_files_of_the_weights(tmp_path: Path) -> None:
    own_directory(tmp_path / "there")
    before = key_of(init=str(tmp_path / "there"))
    assert key_of(init=str(tmp_path / "there")) == before
    (tmp_path / "there" / "model.safetensors").touch()
    assert key_of(init=str(tmp_path / "there")) != before


def test_the_key_of_a_hub_id_is_its_commit_and_needs_no_network() -> None:
    first, second = (key_of(init=f"facebook/Perception-LM-8B@{commit}") for commit in (COMMIT, COMMIT[::-1]))
    assert first != second


def test_other_weights_leave_the_shards_alone_and_another_processor_does_not(random: Initialize) -> None:
    preprocess, config = STEPS["preprocess"], PipelineConfig()

    def key(model: Artifact) -> str:
        return preprocess.key(config, {"dataset": model, "model": model}).inputs["model"]

    first = random(seed=3)
    assert first.digest != random(seed=4).digest and key(first) == key(random(seed=4))
    tiles = {**PLMConfig().to_dict(), **load_config("configs/demo.yaml").model.architecture}
    tiles["processor"] = {"max_num_tiles": 4}
    assert key(random(seed=3, architecture=tiles)) != key(first)


@pytest.mark.e2e
@pytest.mark.parametrize("layout", ["hf", "meta"])
def test_two_gigabytes_need_less_than_half_of_one(layout: str, tmp_path: Path) -> None:
    """An embedding of 1 GB among them."""
    for part in (f"write-{layout}", "base"):
        ran = subprocess.run(
            [sys.executable, "-m", "tests.components.large_checkpoint", part, str(tmp_path)],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
        )
    measured = json.loads(ran.stdout.splitlines()[-1])
    assert measured["checkpoint_mb"] > 2000 and measured["peak_mb"] < 500, measured
