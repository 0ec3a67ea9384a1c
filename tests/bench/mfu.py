"""MFU of training PLM on one GPU, by what the packs hold, and tokens per second against `transformers` on padded rows.

    python tests/bench/mfu.py --json            PLM-1B and -3B whole, -8B with adapters; nothing on a machine without a GPU

MFU is that of `plm_model.families.plm.cost`: useful tokens, tiles and targets, causal attention at half, nothing
recomputed, over the device's dense bf16 peak. Packs of `--tokens` tokens, laid out as `components.train.loop` gets
them, weights at random:

    text      rows of 500-2,000 tokens
    images    rows of 5-37 tiles with 32-256 tokens of text
    video     a row of 32 frames, and rows of text behind it

Each case runs in a process of its own, with the least recomputation that fits into the memory; the first window is left
out, the rest is a median. The baseline is the same rows as one batch padded to its longest row, bf16, recomputed whole.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
import yaml

from components.train.data.loader import MicroBatch, StepWork
from components.train.loop import Hooks, train
from components.train.measure.metrics import Gauge
from components.train.model.assembly import assemble
from components.train.model.parallel import Group
from components.train.sections import LoRASettings
from components.train.settings import TrainConfig
from plm_model.families.plm.collator import collate
from plm_model.families.plm.model import build, cost
from plm_model.families.plm.settings import PLMConfig
from plm_model.families.plm.weights import initialise
from plm_model.packs.example import NO_TARGET, Example, example
from tests.bench._evidence import bench, evidence

KINDS = ("text", "images", "video")
RECOMPUTED = ("none", "selective", "full")
ADAPTERS = LoRASettings(r"^layers\..*\.(wq|wk|wv|wo|w1|w2|w3)$", rank=64, alpha=128.0)
WINDOW, PACKS = 5, 4


@dataclass(frozen=True)
class Case:
    """A model, what its packs hold, and how it is trained. `size` names a file of configs/models."""

    size: str
    kind: str
    tokens: int
    steps: int
    recompute: str = "none"
    adapters: bool = False
    padded: bool = False

    @property
    def config(self) -> PLMConfig:
        path = Path(__file__).parents[2] / "configs" / "models" / f"plm_{self.size}.yaml"
        return PLMConfig.from_dict(yaml.safe_load(path.read_text())["architecture"])


Row = tuple[Example, np.ndarray]


def pack_of_rows(random: np.random.Generator, case: Case) -> list[Row]:
    """Rows of a kind until no more fit into a pack."""
    rows: list[Row] = []
    free = case.tokens
    while True:
        first_video = case.kind == "video" and not rows
        tiles = 32 if first_video else int(random.integers(5, 38)) if case.kind == "images" else 0
        longest = min(2000, case.tokens // 2)
        text = int(random.integers(32, 257)) if tiles else int(random.integers(min(500, longest // 2), longest + 1))
        length = tiles * case.config.tokens_per_tile + text
        if length > free:
            if rows:
                return rows
            raise SystemExit(f"--tokens {case.tokens}: a row of {length} does not fit; raise it")
        rows.append(row(random, case.config, tiles, text))
        free -= length


def row(random: np.random.Generator, config: PLMConfig, tiles: int, text: int) -> Row:
    """The tiles' placeholders, then text, of which the second half is supervised."""
    words = random.integers(0, config.image_token_id, text)
    tokens = np.concatenate([np.full(tiles * config.tokens_per_tile, config.image_token_id), words]).astype(np.int32)
    targets = np.full(len(tokens), NO_TARGET, np.int32)
    targets[-text // 2 : -1] = tokens[-text // 2 + 1 :]
    side = config.vision.image_size
    return example(tokens, targets), random.integers(0, 256, (tiles, 3, side, side), np.uint8)


def settings_of(case: Case) -> TrainConfig:
    return TrainConfig(
        steps=case.steps,
        log_every=WINDOW,
        pack_tokens=case.tokens,
        dtype="bfloat16",
        lora=ADAPTERS if case.adapters else None,
        recompute={"vision": case.recompute, "decoder": case.recompute},
        compile=torch.cuda.is_available(),
    )


def ours(case: Case, device: torch.device) -> dict[str, float]:
    """Medians of the windows of a training."""
    settings, random = settings_of(case), np.random.default_rng(0)
    packs = [pack_of_rows(random, case) for _ in range(PACKS)]
    micros = [MicroBatch(collate(*zip(*rows, strict=True), case.config), 0, 1.0) for rows in packs]
    if device.type == "cuda":
        micros = [replace(micro, batch=micro.batch.pin_memory()) for micro in micros]
    lines: list[dict[str, float]] = []

    def works() -> Iterator[StepWork]:
        for step in range(1, case.steps + 1):
            micro = micros[step % PACKS]
            tiles = sum(len(tiles) for _, tiles in packs[step % PACKS])
            yield StepWork(step, 0.0, (replace(micro, number=step),), len(micro.batch.tokens), tiles)

    with tempfile.TemporaryDirectory() as folder:
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, init_method=f"file://{folder}/meeting", rank=0, world_size=1)
        group = Group.current(device)
        model = build(case.config)

        def fill(model: Any, device: torch.device, added: frozenset[str]) -> None:
            initialise(model, 0, device)

        optimizer = assemble(model, fill, settings, group)
        hooks = Hooks(on_metrics=lambda step, line: lines.append(line))
        train(model, optimizer, works(), settings, group, hooks, Gauge.of(model, cost(model), (), device))
        dist.destroy_process_group()
    later = lines[2:]  # the first is of one step, the second of those that compile
    names = [name for name in ("train/mfu", "train/tokens_per_s", "train/media_per_s") if name in later[0]]
    found = {name.removeprefix("train/"): statistics.median(line[name] for line in later) for name in names}
    return {**found, "memory_gib": later[-1]["train/memory_gib"]}


def theirs(case: Case, device: torch.device) -> dict[str, float]:
    """Useful tokens per second of `transformers`, the rows of a pack padded to the longest of them."""
    from transformers import PerceptionLMConfig, PerceptionLMForConditionalGeneration

    from plm_model.families.plm.layouts.hf_config_files import config_json

    values = config_json(case.config, {"bos": 0, "end_of_text": 1, "eot": 2, "video": 3}, "bfloat16")
    with device:
        model = PerceptionLMForConditionalGeneration(PerceptionLMConfig(**values)).train()
    model.gradient_checkpointing_enable()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    random = np.random.default_rng(0)
    batches = [padded(pack_of_rows(random, case), device) for _ in range(PACKS)]
    rates = []
    for step in range(case.steps):
        inputs, useful = batches[step % PACKS]
        began = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16):
            model(**inputs, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        rates.append(useful / (time.perf_counter() - began))
    return {"tokens_per_s": statistics.median(rates[PACKS:])}


def padded(rows: Sequence[Row], device: torch.device) -> tuple[dict[str, torch.Tensor], int]:
    """The rows as a batch of `transformers`, and how many tokens of it are useful."""
    longest = max(made.length for made, _ in rows)

    def filled(values: np.ndarray, by: int) -> torch.Tensor:
        return F.pad(torch.from_numpy(values).long(), (0, longest - len(values)), value=by)

    tokens = torch.stack([filled(made.tokens, 0) for made, _ in rows])
    targets = torch.stack([filled(made.targets, NO_TARGET) for made, _ in rows])
    lengths = torch.tensor([[made.length] for made, _ in rows])
    inputs = {"input_ids": tokens, "attention_mask": (torch.arange(longest) < lengths).long(), "labels": targets}
    tiles = np.concatenate([tiles for _, tiles in rows])
    if len(tiles):
        inputs["pixel_values"] = ((torch.from_numpy(tiles).float() / 255 - 0.5) / 0.5)[None]
    return {
        **{name: tensor.to(device) for name, tensor in inputs.items()},
        "shift_labels": targets.to(device),
    }, int(lengths.sum())


def run(case: Case) -> dict[str, float] | None:
    """What a case gives; None where it does not fit into the memory of the device."""
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    work: Callable[[Case, torch.device], dict[str, float]] = theirs if case.padded else ours
    try:
        return work(case, device)
    except torch.cuda.OutOfMemoryError:
        return None


def in_process(case: Case) -> dict[str, float] | None:
    with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
        return fresh.submit(run, case).result()


def least_recomputed(case: Case) -> dict[str, Any]:
    """The case with the least recomputation that fits."""
    for kind in RECOMPUTED:
        if found := in_process(replace(case, recompute=kind)):
            return {**found, "recompute": kind}
    return {"recompute": "does not fit"}


def measure(tokens: int, steps: int) -> dict[str, Any]:
    gpu = torch.cuda.is_available()
    cases = [("1b", False), ("3b", False), ("8b", True)] if gpu else []
    raw: dict[str, Any] = {}
    ratio: dict[str, float] = {}
    for size, adapters in cases:
        for kind in KINDS:
            case = Case(size, kind, tokens, steps, adapters=adapters)
            found = raw[f"{size} {kind}"] = least_recomputed(case)
            if "mfu" in found:
                ratio[f"mfu_{size}_{kind}"] = round(found["mfu"], 3)
            if not adapters and "tokens_per_s" in found and (other := in_process(replace(case, padded=True))):
                raw[f"{size} {kind} padded"] = other
                ratio[f"over_padded_{size}_{kind}"] = round(found["tokens_per_s"] / other["tokens_per_s"], 2)
    used = f"{torch.cuda.get_device_name()}, torch {torch.__version__}" if gpu else f"no GPU, torch {torch.__version__}"
    return evidence(
        "mfu", used, "transformers' PerceptionLM, bf16, rows padded to the longest, same device", ratio, raw
    )


if __name__ == "__main__":
    bench(__doc__, measure, tokens=11_520, steps=30)
