"""The shipped configs: the published sizes, the table of PLM's three stages, and example data of every kind of record."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from components.ingest.sources.catalogue import data_sets
from components.layers import read_file
from components.pipeline.config import PipelineConfig
from components.pipeline.config_loading import load_config
from plm_model.families.plm.model import build
from plm_model.families.plm.settings import PLMConfig
from tests.example_sets import example_registry
from tests.plm_model.model_directories import preset

SIZES = ("1b", "3b", "8b")
# stage: steps, global batch, rate, warm-up, tokens, pooling, tiles, frames, LayerScale, drop path, format
STAGES: dict[int, tuple[Any, ...]] = {
    1: (8_000, 512, 1e-4, 20, 1_280, 1, 1, 8, None, 0.0, "warmup"),
    2: (35_000, 2_048, 4e-5, 120, 6_144, 2, 16, 16, 0.1, 0.1, "plm_sft"),
    3: (21_000, 1_024, 4e-5, 120, 11_520, 2, 36, 32, 0.1, 0.1, "plm_sft"),
}
KINDS = ("image", "multi_image", "image_region", "video", "text", "stc_RDCap", "stc_RCap", "stc_RTLoc")


@pytest.mark.parametrize("size", SIZES)
def test_a_published_size_is_built_within_two_seconds(size: str) -> None:
    build(preset("1b"))  # what is imported on the way is not counted
    began = time.process_time()
    build(preset(size))
    assert time.process_time() - began < 2


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_has_the_values_of_the_published_table(stage: int, size: str) -> None:
    config = load_config(f"configs/stage_{stage}/plm_{size}.yaml")
    train, model = config.train, PLMConfig.from_dict(config.model.architecture)
    steps, batch, rate, warmup, tokens, pooling, tiles, frames, scale, drop, form = STAGES[stage]
    if (stage, size) == (3, "8b"):
        rate = 1e-5
    assert (train.steps, train.packs_per_step, train.lr, train.warmup_steps) == (steps, batch, rate, warmup)
    assert (train.schedule, train.min_lr_ratio, train.clip_norm) == ("cosine", 0.01, 1.0)
    assert (train.weight_decay, train.decay) == (0.05 if size == "8b" else 0.01, "all")
    assert {config.preprocess.max_tokens, train.pack_tokens, model.decoder.max_seq_len} == {tokens}
    assert (model.pooling_ratio, model.vision.layer_scale_init, model.vision.drop_path) == (pooling, scale, drop)
    processor = model.processor
    assert (processor.max_num_tiles, processor.max_video_frames, processor.conversation_format) == (tiles, frames, form)
    assert (processor.vision_input_type == "tile") == (stage == 1)
    assert (train.dtype, train.seed, train.recompute) == ("bfloat16", 777, {"vision": "full", "decoder": "full"})
    assert train.loader_workers == (4 if stage == 3 or (stage, size) == (2, "8b") else 8)
    assert train.packs_per_step % train.workers == 0 and train.pack_media * model.tokens_per_tile <= tokens
    assert model.vision.width == preset(size).vision.width and model.decoder.dim == preset(size).decoder.dim


def test_a_stage_trains_on_the_catalogue_s_sets() -> None:
    source = load_config("configs/stage_3/plm_1b.yaml").ingest.source
    assert set(source.datasets) == {f"dummy_{kind}" for kind in KINDS}
    assert set(source.datasets) == set(read_file(source.catalogue).values)


def test_the_first_stage_trains_the_projector_only() -> None:
    from components.train.update.param_groups import freeze

    model = build(preset("1b"))
    freeze(model, load_config("configs/stage_1/plm_1b.yaml").train)
    learning = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning == {"vision_projector"}
    assert not load_config("configs/stage_2/plm_1b.yaml").train.freeze


def test_adapters_train_less_than_one_percent_of_the_largest_model() -> None:
    from components.train.model.assembly import check_settings

    model, train = build(preset("8b")), load_config("configs/finetune/radiology_8b_lora.yaml").train
    total = sum(parameter.numel() for parameter in model.parameters())
    check_settings(model, train, train.workers)
    learning = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    assert sum("lora_a" in name for name in learning) == 7 * 32
    assert sum(learning.values()) < 0.01 * total


def test_the_example_sets_have_every_kind_of_record(tmp_path: Path) -> None:
    names = [f"dummy_{kind}" for kind in KINDS]
    registry = str(example_registry(tmp_path, names))
    source = {"kind": "catalogue", "catalogue": registry, "datasets": names}
    sets = data_sets(PipelineConfig.model_validate({"ingest": {"source": source}}).ingest.source)
    for each in sets:
        rows = [json.loads(line) for line in each.annotations[0].read_text().splitlines()]
        media = {name for row in rows for key in ("image", "video") for name in _listed(row.get(key))}
        assert rows and all((each.root / name).is_file() for name in media), each.name
        assert bool(media) == (each.name != "dummy_text")


def _listed(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value] if value else []


def test_the_example_at_full_size_can_be_explained(repository: Path, tmp_path: Path) -> None:
    """As it is shipped: neither weights nor data are there, which is said, and nothing is asked of the network."""
    config = repository / "configs/finetune/radiology_8b.yaml"
    command = [sys.executable, "-m", "flows.cli", "finetune", str(config), "--explain", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    said = [line.partition("; ")[0].split(": ")[1] for line in done.stderr.splitlines()]
    assert done.returncode == 2 and said[:3] == ["train.use_gpu", "ingest.source.path", "model.init"], done.stderr
    decisions = {each["step"]: each["reason"] for each in json.loads(done.stdout.splitlines()[-1])}
    assert decisions["ingest"] == decisions["base"] == "no earlier run of this pipeline made it"
    assert decisions["train"].startswith("waits for")
