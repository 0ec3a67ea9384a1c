"""Checkpoints of 2 GB and what they cost: `python -m tests.components.large_checkpoint PART FOLDER`.

`write` and `consolidate` are one pair of parts, `write-hf` or `write-meta` and `base` another. The second of a pair
prints, as JSON, by how many MB its memory (anonymous, resident) rose above what it was after the imports.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp

from components.artifacts.artifact import StepKey
from components.artifacts.context import StepContext
from components.artifacts.store import ArtifactStore
from components.base import step as base
from components.consolidate import step as consolidate
from components.pipeline.config import PipelineConfig
from components.pipeline.steps import STEPS
from components.tracking.runs import SilentTracker
from plm_model.families.plm.layouts.assembly import fresh
from plm_model.families.plm.layouts.detect import Layout, write_directory
from plm_model.families.plm.model import build
from plm_model.families.plm.settings import PLMConfig, VisionConfig
from plm_model.families.plm.tokenizer import Tokenizer
from plm_model.model_directory.opened import ModelDirectory
from plm_model.nn.config import DecoderConfig
from tests.components.training_set import artifact

TOKENIZER = Path(__file__).parents[2] / "configs/tokenizers/plm_tiny/tokenizer.json"
CONFIG = PLMConfig(
    vision=VisionConfig(image_size=56, width=128, layers=2, heads=4),
    decoder=DecoderConfig(vocab_size=128256, dim=2048, layers=5, heads=16, kv_heads=8, hidden_dim=6144),
    image_token_id=1002,
)


def write(folder: Path) -> None:
    for name in ("base", "trained"):
        (folder / name).mkdir()
    (folder / "base/config.json").write_text(json.dumps({"model_type": "plm", "format": 1, **CONFIG.to_dict()}))
    shutil.copy(TOKENIZER, folder / "base")
    shapes = {name: tensor.shape for name, tensor in build(CONFIG).state_dict().items()}
    dcp.save({f"model.{n}": torch.randn(s) for n, s in shapes.items()}, checkpoint_id=folder / "trained/checkpoint")
    (folder / "trained/train_state.json").write_text(json.dumps({"step": 1, "tokens": 1, "loss": 1.0}))


def run(folder: Path) -> None:
    # Whatever is imported on the way belongs to the start, not to the checkpoint.
    import components.train.checkpoints.streams  # noqa: F401

    inputs = {"base": artifact(folder / "base", "base"), "checkpoint": artifact(folder / "trained", "train")}
    store = ArtifactStore(str(folder / "store"), folder / "cache")
    context = StepContext(SilentTracker(), lambda text: None, folder / "cache", str(folder / "resume"))
    watch = PeakMemory()
    began = time.perf_counter()
    with store.create(StepKey("consolidate")) as out:
        consolidate.run(STEPS["consolidate"].settings(PipelineConfig()), inputs, out, context)
    seconds = time.perf_counter() - began
    size = sum(entry["size"] for entry in inputs["checkpoint"].files.values())
    print(json.dumps({"checkpoint_mb": size / 1e6, "peak_mb": watch.stop() / 1e6, "seconds": round(seconds, 1)}))


def write_published(layout: Layout, folder: Path) -> None:
    tensors = fresh(CONFIG, Tokenizer.from_file(TOKENIZER)).tensors
    zeros = {name: replace(stored, read=partial(torch.zeros, stored.shape)) for name, stored in tensors.items()}
    opened = ModelDirectory(folder, "own", CONFIG, Tokenizer.from_file(TOKENIZER), zeros)
    write_directory(opened, folder / "init", layout)
    (folder / "init" / "tokenizer.model").unlink(
        missing_ok=True
    )  # the small vocabulary has no rank file for this model
    shutil.copy(TOKENIZER, folder / "init")


def start(folder: Path) -> None:
    config = PipelineConfig.model_validate({"model": {"init": str(folder / "init")}})
    store = ArtifactStore(str(folder / "store"), folder / "cache")
    context = StepContext(SilentTracker(), lambda text: None, folder / "cache", str(folder / "resume"))
    watch = PeakMemory()
    began = time.perf_counter()
    with store.create(StepKey("base")) as out:
        base.run(config.model, {}, out, context)
    seconds = time.perf_counter() - began
    size = out.counts["bytes"]
    print(json.dumps({"checkpoint_mb": size / 1e6, "peak_mb": watch.stop() / 1e6, "seconds": round(seconds, 1)}))


class PeakMemory:
    """The most anonymous memory of this process since now, over what it had now: bytes."""

    def __init__(self) -> None:
        self.start = self.peak = anonymous_bytes()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._ended.wait(0.005):
            self.peak = max(self.peak, anonymous_bytes())

    def stop(self) -> int:
        self._ended.set()
        self._thread.join()
        return self.peak - self.start


def anonymous_bytes() -> int:
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


if __name__ == "__main__":
    parts = {
        "write": write,
        "consolidate": run,
        "write-hf": partial(write_published, "hf"),
        "write-meta": partial(write_published, "meta"),
        "base": start,
    }
    parts[sys.argv[1]](Path(sys.argv[2]))
