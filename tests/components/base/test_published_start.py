"""From a model in a published layout and registered data sets to losses, step by step in one process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from components.artifacts.artifact import Artifact
from components.artifacts.store import ArtifactStore
from components.media_files.root import MediaRoot
from components.model_files.settings import codec_of
from components.pipeline.config import PipelineConfig
from components.pipeline.run_step import run_step
from components.pipeline.steps import STEPS
from components.preprocess.encode import Encoder
from plm_model.families.plm.collator import collate, tiles_of
from plm_model.families.plm.layouts.detect import read_directory
from plm_model.families.plm.weights import load, load_model
from plm_model.packs.example import Example
from tests.example_sets import CONFIGS, example_registry
from tests.plm_model.model_directories import reference_directory, release

SETS = tuple(yaml.safe_load((CONFIGS / "datasets.yaml").read_text()))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return example_registry(tmp_path_factory.mktemp("sets"), SETS)


@pytest.fixture(params=["hf", "meta"])
def published(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "hf":
        reference_directory(tmp_path / "hf")
    else:
        release(tmp_path)
    return tmp_path / request.param


def test_registered_data_reach_the_weights_of_a_published_model(
    published: Path, registry: Path, tmp_path: Path, step_context: Callable[..., Any]
) -> None:
    config = PipelineConfig.model_validate(
        {
            "ingest": {"source": {"kind": "catalogue", "catalogue": str(registry)}},
            "convert": {"test_fraction": 0},
            "model": {
                "init": str(published),
                "architecture": {"processor": {"max_num_tiles": 4, "max_video_frames": 8}},
            },
            "preprocess": {"max_tokens": 512},
            "train": {"datamix": ", ".join(f"{name}:1" for name in SETS)},
        }
    )
    store, made = ArtifactStore(str(tmp_path / "runs"), tmp_path / "cache"), dict[str, Artifact]()
    for name in ("ingest", "convert", "base"):
        inputs = {argument: made[source] for argument, source in STEPS[name].inputs.items()}
        made[name] = run_step(STEPS[name], STEPS[name].key(config, inputs), config, inputs, store, step_context())

    dataset, base = made["convert"], made["base"]
    encoder = Encoder(codec_of(base, config.preprocess.max_tokens), MediaRoot.of(dataset))
    rows = [encoder.encode(line, "train") for line in dataset.open("train.jsonl").read().splitlines()]
    assert {row["source"] for row in rows} == set(SETS)
    assert {row["media_n"] for row in rows if row["source"] == "dummy_image"} <= {4 + 1, 3 + 1, 2 + 1}
    assert {row["media_n"] for row in rows if row["source"] == "dummy_multi_image"} == {2, 3}
    assert {row["frames"] for row in rows if "stc" in row["source"] or "video" in row["source"]} == {8}

    chosen = [next(row for row in rows if row["source"] == name) for name in SETS]
    model, _ = load_model(base.local())
    examples = [
        Example(*(np.asarray(row[key]) for key in ("tokens", "targets", "pos", "seg", "group"))) for row in chosen
    ]
    tiles = [tiles_of(row["media"], model.config, row["id"]) for row in chosen]
    batch = collate(examples, tiles, model.config)
    theirs = load(read_directory(published), "cpu", torch.float32)
    with torch.no_grad():
        losses = model(batch)
        assert losses.isfinite().all() and torch.equal(losses, theirs(batch))
    assert len(losses) == sum(row["supervised"] for row in chosen)
    assert json.loads(chosen[0]["record"])["source"] == "dummy_image"
