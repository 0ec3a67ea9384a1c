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
import torch.distributed.checkpoint as dcp
from transformers import PerceptionLMForConditionalGeneration

from components.artifacts.artifact import Artifact, StepKey
from components.artifacts.context import StepContext
from components.artifacts.store import ArtifactStore
from components.consolidate import step as consolidate
from components.errors import UserError
from components.model_files.export import export
from components.pipeline.config import PipelineConfig
from components.pipeline.steps import STEPS
from components.train.checkpoints.storage import UnsafeCheckpoint
from components.train.checkpoints.streams import StoredTensors
from plm_model.families.plm.model import build
from plm_model.families.plm.settings import PLMConfig
from plm_model.families.plm.tokenizer import Tokenizer
from plm_model.families.plm.weights import initialise, save_companions
from plm_model.model_directory.files import load_weights
from tests.components.training_set import artifact, tiny_config, write_base

TOKENIZER = Path(__file__).parents[3] / "configs/tokenizers/plm_tiny/tokenizer.json"
Consolidate = Callable[..., Artifact]
TINY = tiny_config()


def write_checkpoint(folder: Path, tensors: dict[str, torch.Tensor]) -> Artifact:
    folder.mkdir()
    dcp.save({f"model.{name}": tensor for name, tensor in tensors.items()}, checkpoint_id=folder / "checkpoint")
    (folder / "train_state.json").write_text(json.dumps({"step": 7, "tokens": 99, "loss": 0.5}))
    return artifact(folder, "train")


@pytest.fixture
def consolidated(tmp_path: Path, step_context: Callable[..., StepContext]) -> Consolidate:
    """Runs the step on a checkpoint of these tensors, and gives its artifact."""

    def make(tensors: dict[str, torch.Tensor], model: PLMConfig = TINY, **settings: Any) -> Artifact:
        write_base(tmp_path / "base", model)
        save_companions(model, Tokenizer.from_file(TOKENIZER), tmp_path / "base")
        inputs = {
            "base": artifact(tmp_path / "base", "base"),
            "checkpoint": write_checkpoint(tmp_path / "trained", tensors),
        }
        store, key = ArtifactStore(str(tmp_path / "store"), tmp_path / "cache"), StepKey("consolidate")
        with store.create(key) as out:
            config = PipelineConfig.model_validate({"consolidate": settings})
            consolidate.run(STEPS["consolidate"].settings(config), inputs, out, step_context())
        found = store.find(key)
        assert found is not None
        return found

    return make


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    return dict(initialise(build(tiny_config()), seed=5).state_dict())


def test_the_directory_holds_the_checkpoints_weights(
    consolidated: Consolidate, weights: dict[str, torch.Tensor]
) -> None:
    folder = consolidated(weights).local()
    model = build(tiny_config())
    load_weights(model, folder)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


def test_the_directory_is_complete(consolidated: Consolidate, weights: dict[str, torch.Tensor]) -> None:
    made = consolidated(weights)
    assert set(made.files) == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "processor_config.json",
        "README.md",
        "LICENSE-NOTICE",
    }
    assert "# Fine-tuned model" in made.open("README.md", "r").read()


def test_small_shards_are_several_files_that_transformers_loads_when_they_are_exported_so(
    consolidated: Consolidate, tmp_path: Path
) -> None:
    config = replace(tiny_config(), decoder=replace(tiny_config().decoder, vocab_size=1010), image_token_id=1002)
    weights = dict(initialise(build(config), seed=5).state_dict())
    made = consolidated(weights, config, max_shard_gb=1e-4)
    assert len([name for name in made.files if name.endswith(".safetensors")]) > 2
    model = build(config)
    load_weights(model, made.local())
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    export(str(made.local()), str(tmp_path / "hf"), "hf", max_shard_gb=1e-4)
    assert len(list((tmp_path / "hf").glob("*.safetensors"))) > 2
    theirs, report = PerceptionLMForConditionalGeneration.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert torch.equal(theirs.model.language_model.embed_tokens.weight, weights["tok_embeddings.weight"])


@pytest.mark.case("R2")
@pytest.mark.parametrize("name", ["__0_0.distcp", ".metadata"])
def test_a_checkpoint_that_changed_since_it_was_recorded_is_refused_by_name(
    tmp_path: Path, weights: dict[str, torch.Tensor], step_context: Callable[..., StepContext], name: str
) -> None:
    trained = write_checkpoint(tmp_path / "trained", weights)
    path = tmp_path / "trained/checkpoint" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    store = ArtifactStore(str(tmp_path / "store"), tmp_path / "cache")
    inputs = {"base": write_base(tmp_path / "base"), "checkpoint": trained}
    message = rf"checkpoint/{name} holds other bytes than were recorded; run `plm train`"
    with pytest.raises(UserError, match=message), store.create(StepKey("consolidate")) as out:
        consolidate.run(STEPS["consolidate"].settings(PipelineConfig()), inputs, out, step_context())
    assert store.find(StepKey("consolidate")) is None


def test_a_missing_tensor_is_named(consolidated: Consolidate, weights: dict[str, torch.Tensor]) -> None:
    del weights["norm.weight"]
    with pytest.raises(UserError, match=r"norm\.weight of the base model is missing"):
        consolidated(weights)


def test_an_extra_tensor_is_named(consolidated: Consolidate, weights: dict[str, torch.Tensor]) -> None:
    with pytest.raises(UserError, match=r"the tensor head\.weight, which the base model has not"):
        consolidated({**weights, "head.weight": torch.zeros(1)})


def test_a_misshapen_tensor_is_named(consolidated: Consolidate, weights: dict[str, torch.Tensor]) -> None:
    with pytest.raises(UserError, match=r"norm\.weight has shape \(3,\), the base model's is \(32,\)"):
        consolidated({**weights, "norm.weight": torch.zeros(3)})


@pytest.mark.parametrize(
    "tensor", [torch.arange(12.0).view(3, 4), torch.arange(12.0).view(3, 4).T, torch.tensor(2.5), torch.zeros(0, 3)]
)
def test_a_stream_gives_the_numbers_row_by_row_however_they_were_stored(tmp_path: Path, tensor: torch.Tensor) -> None:
    stored = StoredTensors(f"{write_checkpoint(tmp_path / 'c', {'x': tensor}).uri}/checkpoint", "model.")
    assert b"".join(stored.stream("x")) == tensor.contiguous().numpy().tobytes()


def test_metadata_that_would_run_code_is_refused(tmp_path: Path) -> None:
    import pickle

    class Attack:
        def __reduce__(self) -> object:
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / ".metadata").write_bytes(pickle.dumps(Attack()))
    with pytest.raises(UnsafeCheckpoint, match="was not written by training"):
        StoredTensors(str(tmp_path), "model.")
    assert not (tmp_path / "ran").exists()


@pytest.mark.e2e
def test_two_gigabytes_need_less_than_half_of_one(tmp_path: Path) -> None:
    """An embedding of 1 GB among them: a tensor need not fit into memory."""
    for part in ("write", "consolidate"):
        ran = subprocess.run(
            [sys.executable, "-m", "tests.components.large_checkpoint", part, str(tmp_path)],
            cwd=Path(__file__).parents[3],
            capture_output=True,
            text=True,
            check=True,
        )
    peak = json.loads(ran.stdout.splitlines()[-1])
    assert peak["checkpoint_mb"] > 2000 and peak["peak_mb"] < 500, peak
