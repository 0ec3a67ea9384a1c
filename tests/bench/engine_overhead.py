"""What the engine adds to a step: Ray Train, tracking and loader around a step that is a wait of half a second.

    python tests/bench/engine_overhead.py --json

The step waits 0.5 s without using the CPU, as a step on a GPU does; the bare loop is that wait and nothing else, timed in
the same process before and after the engine's run. The engine runs as in the pipeline: a Ray Train worker that resumes,
shards, reads its packs of eight JPEG images of one 448 x 448 tile each, sums, clips, updates and logs every tenth step to
MLflow (SQLite, through the spool). A step is timed from one forward pass to the next; each figure is a median.
"""

from __future__ import annotations

import io
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import torch
from PIL import Image
from torch import Tensor

from components.artifacts.context import StepContext
from components.pipeline.config import PipelineConfig
from components.pipeline.ray_session import ray_session
from components.train.folder import TrainingFolder
from components.train.settings import TrainConfig
from flows.servers.environment import prepare_environment
from plm_model.families.plm.model import PLM
from plm_model.packs.batch import Batch
from tests.bench._evidence import bench, evidence
from tests.components.training_set import IMAGE, SHARD_SCHEMA, artifact, tiny_config, write_base

WAIT = 0.5
TEXT, IMAGES, PACK_IMAGES = 32, 96, 8
TILE_TOKENS = 256
WARM_UP = 20  # steps: the loader fills its queue, torch allocates
TIMES = "times.json"


class WaitingPLM(PLM):
    """A model whose forward pass is a wait. It has PLM's parameters, so that they are sharded and updated; none learns much."""

    starts: list[float]
    report: Path

    def forward(self, batch: Batch, chunk: int = 0) -> Tensor:
        self.starts.append(time.perf_counter())
        self.report.write_text(json.dumps(self.starts)) if len(self.starts) % 20 == 0 else None
        time.sleep(WAIT)
        touched = sum(parameter.sum() * 0 for parameter in self.norm.parameters())
        return torch.ones(batch.supervised) * (1.0 + touched)


def write_data(folder: Path) -> None:
    """Shards of one-tile images of 448 x 448 pixels with some text, as preprocessing leaves them."""
    random = np.random.default_rng(0)
    (folder / "train").mkdir(parents=True)
    rows, index, name = [], [], "shard-00000.parquet"
    for number in range(IMAGES):
        tokens = np.concatenate([[1], np.full(TILE_TOKENS, IMAGE), random.integers(5, 40, TEXT)])
        targets = np.full(len(tokens), -100)
        targets[-TEXT // 2 :] = 7
        zero = np.zeros(len(tokens), int)
        arrays = {"tokens": tokens, "targets": targets, "pos": np.arange(len(tokens)), "seg": zero, "group": zero}
        media = [{"kind": "image", "data": jpeg(random)}]
        rows.append({"id": f"e{number}", "record": "{}", "media": media} | {k: v.tolist() for k, v in arrays.items()})
        place = {"id": f"e{number}", "source": "images", "shard": name, "row": number, "tokens": len(tokens)}
        index.append({**place, "supervised": TEXT // 2, "media": 1, "frames": 0})
    parquet.write_table(pa.Table.from_pylist(rows, SHARD_SCHEMA), folder / "train" / name, row_group_size=16)
    parquet.write_table(pa.Table.from_pylist(index), folder / "train" / "index.parquet")


def jpeg(random: np.random.Generator) -> bytes:
    """A smooth coloured picture: as costly to decode as a photograph."""
    small = Image.fromarray(random.integers(0, 256, (24, 24, 3), np.uint8))
    file = io.BytesIO()
    small.resize((640, 480), Image.Resampling.BICUBIC).save(file, "jpeg", quality=90)
    return file.getvalue()


def waiting_worker(job: Mapping[str, Any]) -> None:
    """Ray Train's entry point with a model that waits."""
    from components.train import worker

    prepare = worker.prepare

    def waiting(*arguments: Any, **options: Any) -> Any:
        model, optimizer = prepare(*arguments, **options)
        model.__class__ = type("Waiting", (type(model), WaitingPLM), {})
        WaitingPLM.starts, WaitingPLM.report = [], Path(job["job"].folder.uri) / TIMES
        return model, optimizer

    worker.prepare = waiting
    worker.ray_worker(job)


def engine_seconds(folder: Path, steps: int) -> list[float]:
    """Seconds of each step of a run of the engine."""
    from components.tracking.runs import open_tracking, start_run, tracking_client
    from components.train import worker
    from components.train.launch import ray as ray_fit

    write_data(folder / "shards")
    tiny = tiny_config()
    shape = replace(tiny, vision=replace(tiny.vision, image_size=448), decoder=replace(tiny.decoder, max_seq_len=512))
    write_base(folder / "base", shape)
    config = PipelineConfig.model_validate({"tracking": {"state_dir": str(folder / "state")}})
    tracker = start_run(
        config.tracking, tracking_client(config.tracking), open_tracking(config.tracking)[1], "overhead", {}
    )
    settings = TrainConfig(
        steps=steps,
        packs_per_step=1,
        pack_tokens=PACK_IMAGES * (1 + TILE_TOKENS + TEXT),
        pack_media=PACK_IMAGES,
        workers=1,
        checkpoint_every=steps,
        log_every=10,
    )
    inputs = {
        "shards": replace(artifact(folder / "shards", "preprocess"), cache_dir=folder / "cache"),
        "base": artifact(folder / "base", "base"),
    }
    worker_of_engine, ray_fit.ray_worker = worker.ray_worker, waiting_worker
    context = StepContext(tracker, lambda text: None, folder / "cache", str(folder / "resume"))
    try:
        ray_fit.fit(settings, inputs, TrainingFolder(f"{folder}/resume"), context)
    finally:
        ray_fit.ray_worker = worker_of_engine
    tracker.end("FINISHED")
    points = tracking_client(config.tracking).get_metric_history(tracker.run_id, "train/loss")
    if [point.step for point in points] != [1, *range(10, steps + 1, 10)]:
        raise SystemExit("points are missing in MLflow; the figures would mean nothing")
    return np.diff(json.loads((folder / "resume" / TIMES).read_text())).tolist()


def bare_seconds(steps: int) -> list[float]:
    """Seconds of each step of a loop that only waits."""
    starts = []
    for _ in range(steps + 1):
        starts.append(time.perf_counter())
        time.sleep(WAIT)
    return np.diff(starts).tolist()


def measure(steps: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        prepare_environment(PipelineConfig.model_validate({"tracking": {"state_dir": name}}))
        bare = bare_seconds(steps // 2)
        with ray_session(PipelineConfig.model_validate({"ray": {"num_cpus": 2}})):
            engine = engine_seconds(Path(name), steps + WARM_UP)[WARM_UP - 1 :]
        bare += bare_seconds(steps // 2)
    medians = {"bare": statistics.median(bare), "engine": statistics.median(engine)}
    return evidence(
        "engine_overhead",
        f"torch {torch.__version__}",
        f"a loop that only waits {WAIT} s a step",
        {"bare_over_engine": round(medians["bare"] / medians["engine"], 4)},
        {
            "median_ms": {name: round(1000 * value, 2) for name, value in medians.items()},
            "p90_ms": {
                "bare": round(1000 * float(np.percentile(bare, 90)), 2),
                "engine": round(1000 * float(np.percentile(engine, 90)), 2),
            },
            "steps": {"bare": len(bare), "engine": len(engine)},
            "load_at_end": round(os.getloadavg()[0], 1),
        },
    )


if __name__ == "__main__":
    bench(__doc__, measure, steps=200)
