"""Useful tokens per second of a training step: packs against rows padded to the maximum, and against `transformers` padded.

    python tests/bench/train_step.py --json

PLM's stage-3 shape at 1/8, on the tiny model: at most 1,440 tokens a row, 32 tokens (8 x 16 patches, pooled 2 x 2) a tile,
8 rows a step; 35 % captions of one tile, 40 % images of 5-37 tiles, 15 % videos of 32 frames, 10 % text, each with 16-128
tokens of text; seed 0. One thread, same weights, rows and optimizer; the contestants take turns on each batch and each figure
is a median over the rounds. `ratio_in_cpu_time` is the same of the process's own seconds, for a machine that others use too.

    ours             the rows laid end to end, the head at the targets only: what `components.train.loop` runs
    pad_to_max       the reference's way, in our modules: every row padded to 1,440, a white tile for a row of text, logits at
                     all positions and then a mask
    pad_to_longest   `transformers`' PerceptionLM, rows padded to the longest of their batch

Beside each ratio stands its bound: the FLOPs of the padded step over those of the useful one (plm_model.families.plm.cost;
attention at half on both sides). It would be reached if a FLOP took the same time everywhere.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.train.data.loader import MicroBatch, StepWork
from components.train.loop import accumulate
from components.train.model.parallel import Group
from components.train.settings import TrainConfig
from components.train.update.optimizer import ShardedAdamW
from plm_model.families.plm.cost import step_cost
from plm_model.families.plm.layouts.hf_config_files import config_json
from plm_model.families.plm.layouts.hf_keys import hf_name, to_hf
from plm_model.families.plm.model import PLM, build
from plm_model.families.plm.settings import PLMConfig
from plm_model.families.plm.weights import initialise
from plm_model.nn.cost import StepCost
from plm_model.nn.rope import decoder_rotary
from plm_model.packs.batch import Batch
from tests.bench._evidence import bench, evidence

LONGEST, BATCH, SEED = 1440, 8, 0
PATCH = 14
TILE_ROWS, TILE_COLUMNS, POOL = 8, 16, 2  # patches of a tile
TILE_TOKENS = TILE_ROWS * TILE_COLUMNS // POOL**2
NO_TARGET = -100
RATE, BETAS, DECAY, CLIP = 1e-4, (0.9, 0.95), 0.01, 1.0


@dataclass(frozen=True)
class Row:
    """One training example: tokens and targets int64 [T], uint8 tiles [N, 3, 112, 224]."""

    tokens: Tensor
    targets: Tensor
    tiles: Tensor

    def __len__(self) -> int:
        return len(self.tokens)


def config() -> PLMConfig:
    """configs/models/plm_tiny.yaml with a grid of patches that a tile of 8 x 16 is a half of."""
    import yaml

    path = Path(__file__).parents[2] / "configs" / "models" / "plm_tiny.yaml"
    tiny = PLMConfig.from_dict(yaml.safe_load(path.read_text())["architecture"])
    return replace(tiny, vision=replace(tiny.vision, image_size=TILE_COLUMNS * PATCH), pooling_ratio=POOL)


def make_row(random: np.random.Generator, image_id: int) -> Row:
    """A row of the mix. A question and an answer of text, of which the answer is supervised."""
    kind = random.choice(["caption", "tiles", "video", "text"], p=[0.35, 0.40, 0.15, 0.10])
    tiles = {"caption": 1, "tiles": int(random.integers(5, 38)), "video": 32, "text": 0}[kind]
    question, answer = (int(n) for n in random.integers(8, 65, 2))
    text = random.integers(2, 1000, question + answer)
    tokens = np.concatenate([text[:4], np.full(tiles * TILE_TOKENS, image_id), text[4:]])
    targets = np.full(len(tokens), NO_TARGET)
    targets[-answer:] = np.append(tokens[-answer + 1 :], 2)
    pixels = random.integers(0, 256, (tiles, 3, TILE_ROWS * PATCH, TILE_COLUMNS * PATCH), np.uint8)
    return Row(torch.from_numpy(tokens).long(), torch.from_numpy(targets).long(), torch.from_numpy(pixels))


def packed(rows: Sequence[Row]) -> Batch:
    """The rows of a step laid end to end."""
    tokens = torch.cat([row.tokens for row in rows])
    zero = torch.zeros_like(tokens)
    return Batch(
        tokens=tokens,
        targets=torch.cat([row.targets for row in rows]),
        pos=torch.cat([torch.arange(len(row)) for row in rows]),
        seg=zero,
        group=zero,
        doc=torch.repeat_interleave(torch.arange(1, len(rows) + 1), torch.tensor([len(row) for row in rows])),
        media={"tiles": torch.cat([row.tiles for row in rows])},
    )


def padded(rows: Sequence[Row], length: int) -> tuple[Tensor, Tensor]:
    """Tokens (0 behind the end) and targets of the rows, int64 [rows, length]."""
    tokens = torch.stack([F.pad(row.tokens, (0, length - len(row))) for row in rows])
    return tokens, torch.stack([F.pad(row.targets, (0, length - len(row)), value=NO_TARGET) for row in rows])


def ours(model: PLM, rows: Sequence[Row]) -> Callable[[], float]:
    """Our step on a batch: forward, backward and update; returns the loss."""
    optimizer = ShardedAdamW(model, TrainConfig(betas=BETAS, weight_decay=DECAY, clip_norm=CLIP))
    batch, group = packed(rows), Group(torch.device("cpu"))
    work = StepWork(1, 0.0, (MicroBatch(batch, 0, 1.0),), len(batch.tokens), len(batch.media["tiles"]))

    def step() -> float:
        loss_sum, supervised = accumulate(model, work, group, SEED)
        optimizer.step(RATE)
        return float(loss_sum) / supervised

    return step


def pad_to_max(model: PLM, rows: Sequence[Row]) -> Callable[[], float]:
    """The reference's step: all rows at full length, logits everywhere, keys and values repeated for grouped queries."""
    tokens, targets = padded(rows, LONGEST)
    white = torch.full((1, 3, TILE_ROWS * PATCH, TILE_COLUMNS * PATCH), 255, dtype=torch.uint8)
    tiles = torch.cat([row.tiles if len(row.tiles) else white for row in rows])
    kept = torch.cat([torch.full((max(len(row.tiles), 1),), len(row.tiles) > 0) for row in rows])
    image = (tokens.flatten() == model.config.image_token_id).nonzero().squeeze(1)
    pos = torch.arange(LONGEST).repeat(len(rows))
    update = adamw(model)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        repeat = q.shape[1] // k.shape[1]
        k, v = (x.repeat_interleave(repeat, dim=1) for x in (k, v))
        q, k, v = (x.unflatten(0, (len(rows), LONGEST)).transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(0, 1)

    def step() -> float:
        features = model.features(tiles)[kept].flatten(0, 1)
        h = model.tok_embeddings(tokens.flatten()).index_copy(0, image, features)
        rotary = decoder_rotary(model.config.decoder, pos)
        for layer in model.layers:
            h = layer(h, rotary, attend)
        logits, mask = model.head(h), targets.flatten() != NO_TARGET
        loss = F.nll_loss(F.log_softmax(logits[mask].float(), dim=-1), targets.flatten()[mask])
        loss.backward()
        update()
        return float(loss.detach())

    return step


def pad_to_longest(model: nn.Module, rows: Sequence[Row]) -> Callable[[], float]:
    """The step of `transformers` on rows padded to the longest one."""
    longest = max(len(row) for row in rows)
    tokens, targets = padded(rows, longest)
    mask = (torch.arange(longest) < torch.tensor([[len(row)] for row in rows])).long()
    tiles = torch.cat([row.tiles for row in rows])
    pixels = ((tiles.float() / 255 - 0.5) / 0.5)[None] if len(tiles) else None
    update = adamw(model)

    def step() -> float:
        out = model(
            input_ids=tokens,
            pixel_values=pixels,
            attention_mask=mask,
            labels=targets,
            shift_labels=targets,
            use_cache=False,
        )
        out.loss.backward()
        update()
        return float(out.loss.detach())

    return step


def adamw(model: nn.Module) -> Callable[[], None]:
    """Clipping and torch's fused AdamW, with our optimizer's groups: matrices decay, vectors do not."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=BETAS, fused=True)

    def update() -> None:
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()

    return update


class RectanglePooling(nn.Module):
    """The mean of 2 x 2 patches of an 8 x 16 grid: `transformers`' own pooling takes square tiles only."""

    def forward(self, x: Tensor) -> Tensor:
        grid = x.transpose(1, 2).unflatten(2, (TILE_ROWS, TILE_COLUMNS))
        return F.avg_pool2d(grid, POOL).flatten(2).transpose(1, 2)


def theirs_of(model: PLM) -> nn.Module:
    """The model of `transformers` with the same weights; its table of positions is ours at the size of a tile."""
    from transformers import PerceptionLMConfig, PerceptionLMForConditionalGeneration

    values = config_json(model.config, {"bos": 1000, "end_of_text": 1001, "eot": 1009, "video": 1003}, "float32")
    grid = [TILE_ROWS, TILE_COLUMNS]
    size = [side * PATCH for side in grid]
    values["vision_config"]["model_args"] |= {"img_size": size, "ref_feat_shape": grid}
    theirs = PerceptionLMForConditionalGeneration(PerceptionLMConfig(**values)).train()
    theirs.model.multi_modal_projector.pooling = RectanglePooling()
    head_dim = model.config.decoder.head_dim
    state = {hf_name(name): to_hf(name, tensor, head_dim) for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        state[hf_name("vision_model.positional_embedding")] = model.vision_model.positions(*grid)[None]
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise SystemExit(f"weights do not fit: {missing} {unexpected}")
    return theirs


def bounds(cost: StepCost, batches: Sequence[Sequence[Row]]) -> dict[str, float]:
    """FLOPs of the padded steps over those of the useful ones."""
    useful = to_max = to_longest = 0.0
    for rows in batches:
        lengths, tiles = [len(row) for row in rows], sum(len(row.tiles) for row in rows)
        targets = sum(int((row.targets != NO_TARGET).sum()) for row in rows)
        texts = sum(not len(row.tiles) for row in rows)
        useful += cost.of(lengths, tiles, targets)
        to_max += cost.of([LONGEST] * len(rows), tiles + texts, LONGEST * len(rows))
        to_longest += cost.of([max(lengths)] * len(rows), tiles, max(lengths) * len(rows))
    return {"pad_to_max": to_max / useful, "pad_to_longest": to_longest / useful}


def measure(batches: int, rounds: int, threads: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    random, shape = np.random.default_rng(SEED), config()
    data = [[make_row(random, shape.image_token_id) for _ in range(BATCH)] for _ in range(batches)]
    models = [initialise(build(shape), seed=SEED).train() for _ in range(2)]
    makers = {
        "ours": partial(ours, models[0]),
        "pad_to_max": partial(pad_to_max, models[1]),
        "pad_to_longest": partial(pad_to_longest, theirs_of(models[0])),
    }
    require_same_losses({name: make(data[0])() for name, make in makers.items()})
    times, work = ({name: [[] for _ in data] for name in makers} for _ in range(2))
    for turn in range(rounds):
        for number, rows in enumerate(data):
            for name in rotated(list(makers), turn + number):
                step = makers[name](rows)
                started, worked = time.perf_counter(), time.process_time()
                step()
                times[name][number].append(time.perf_counter() - started)
                work[name][number].append(time.process_time() - worked)
    seconds, cpu = ({n: sum(map(statistics.median, taken)) for n, taken in kind.items()} for kind in (times, work))
    tokens = sum(len(row) for rows in data for row in rows)
    bound = bounds(step_cost(models[0], shape), data)
    ratio = {name: seconds[name] / seconds["ours"] for name in bound}
    return evidence(
        "train_step",
        f"{threads} thread(s), torch {torch.__version__}",
        "the reference's padding and logits in our modules; transformers' PerceptionLM padded to the longest row",
        {name: round(value, 2) for name, value in ratio.items()},
        {
            "bound": {name: round(value, 2) for name, value in bound.items()},
            "share_of_bound": {name: round(ratio[name] / bound[name], 2) for name in bound},
            "ratio_in_cpu_time": {name: round(cpu[name] / cpu["ours"], 2) for name in bound},
            "useful_tokens_per_second": {name: round(tokens / taken) for name, taken in seconds.items()},
            "useful_tokens": tokens,
            "padding": {
                "pad_to_max": round(1 - tokens / (LONGEST * BATCH * batches), 3),
                "pad_to_longest": round(1 - tokens / sum(BATCH * max(map(len, rows)) for rows in data), 3),
            },
            "batches": batches,
            "rounds": rounds,
            "load_at_end": round(os.getloadavg()[0], 1),
        },
    )


def rotated(names: list[str], by: int) -> list[str]:
    return names[by % len(names) :] + names[: by % len(names)]


def require_same_losses(losses: dict[str, float]) -> None:
    """All contestants compute the same thing, or the figures would mean nothing."""
    if max(losses.values()) - min(losses.values()) > 1e-4 * losses["ours"]:
        raise SystemExit(f"the contestants' losses differ: {losses}")


if __name__ == "__main__":
    bench(__doc__, measure, batches=8, rounds=5, threads=1)
