"""Tokens per CPU second of greedy generation: batch 8 against batch 1, and against `transformers` at batch 8, same weights.

    python tests/bench/generate.py --json

One tiny model, one thread, eight prompts of different lengths (text and images of one to three tiles, and one without) and 16,
64 and 256 new tokens; the ratios are those of 64. Stop ids are switched off on both sides, and the tokens of both must be the
same. Each figure is the least CPU time of the rounds; the batch of 1 is the prompt of middle length.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch

from plm_model.answers.options import GenerationOptions
from plm_model.families.plm.generation import generate
from plm_model.families.plm.layouts.hf_keys import from_hf, hf_name
from plm_model.families.plm.model import PLM, build
from plm_model.families.plm.settings import PLMConfig
from plm_model.packs.example import Example, example
from tests.bench._evidence import bench, evidence
from tests.plm_model.model_directories import SCALED, reference

TEXTS = (12, 20, 24, 28, 32, 40, 48, 64)
TILES = (1, 2, 1, 3, 2, 1, 2, 0)
NEW_TOKENS = (16, 64, 256)
MAIN = 64
IMAGE = SCALED.image_token_id
Prompt = tuple[Example, np.ndarray]


class NoStop:
    """A tokenizer that never ends an answer; texts are not looked at."""

    stop_ids = ()

    def decode(self, ids: list[int]) -> str:
        return ""


def config() -> PLMConfig:
    decoder = replace(SCALED.decoder, dim=128, heads=4, kv_heads=2, hidden_dim=384, layers=4)
    return replace(SCALED, decoder=decoder)


def models() -> tuple[PLM, Any]:
    """Ours and theirs with the same weights."""
    theirs = reference(config())
    state, ours = theirs.state_dict(), build(config(), "cpu").eval()
    head_dim = config().decoder.head_dim
    ours.load_state_dict({name: from_hf(name, state[hf_name(name)], head_dim) for name in ours.state_dict()})
    return ours, theirs


def prompts() -> list[Prompt]:
    """Sorted by length."""
    random = np.random.default_rng(0)
    found = []
    for length, count in zip(TEXTS, TILES, strict=True):
        text = random.integers(2, 1000, length)
        tokens = np.concatenate([text[:4], [IMAGE] * (count * config().tokens_per_tile), text[4:]])
        tiles = random.integers(0, 256, (count, 3, 56, 56)).astype(np.uint8)
        found.append((example(tokens.astype(np.int32), np.full(len(tokens), -100)), tiles))
    return sorted(found, key=lambda prompt: prompt[0].length)


def ours_of(model: PLM, batch: list[Prompt], new_tokens: int) -> list[list[int]]:
    options = GenerationOptions(max_new_tokens=new_tokens)
    return [answer.token_ids for answer in generate(model, NoStop(), batch, options)]


def theirs_of(model: Any, batch: list[Prompt], new_tokens: int) -> list[list[int]]:
    """Padded on the left, as their generation wants it."""
    longest = max(prompt.length for prompt, _ in batch)
    ids, mask = torch.zeros(2, len(batch), longest, dtype=torch.int64)
    for row, (prompt, _) in enumerate(batch):
        ids[row, longest - prompt.length :] = torch.from_numpy(prompt.tokens)
        mask[row, longest - prompt.length :] = 1
    pixels = torch.from_numpy(np.concatenate([tiles for _, tiles in batch])).float().div(255).sub(0.5).div(0.5)[None]
    model.generation_config.eos_token_id = None
    more = {"do_sample": False, "max_new_tokens": new_tokens, "min_new_tokens": new_tokens, "pad_token_id": 0}
    whole = model.generate(input_ids=ids, attention_mask=mask, pixel_values=pixels, **more)
    return whole[:, longest:].tolist()


def best(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The least CPU time of each in seconds. They take turns, so that a busy moment of the machine meets all of them."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.process_time()
            run()
            times[name].append(time.process_time() - start)
    return {name: min(taken) for name, taken in times.items()}


def measure(rounds: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    ours, theirs = models()
    batch = prompts()
    if ours_of(ours, batch, max(NEW_TOKENS)) != theirs_of(theirs, batch, max(NEW_TOKENS)):
        raise SystemExit("the two give different tokens; the figures would mean nothing")
    speeds = {}
    for count in NEW_TOKENS:
        runs = {
            "ours_batch_1": partial(ours_of, ours, batch[4:5], count),
            "ours_batch_8": partial(ours_of, ours, batch, count),
            "transformers_batch_8": partial(theirs_of, theirs, batch, count),
        }
        rows = {name: int(name.rpartition("_")[2]) for name in runs}
        speeds[count] = {name: count * rows[name] / taken for name, taken in best(runs, rounds).items()}
    return evidence(
        "generate",
        f"1 thread, torch {torch.__version__}",
        "our own batch of 1, and transformers' greedy generate at batch 8 with the same weights and prompts",
        ratios(speeds[MAIN]),
        {
            f"{count}_new_tokens": {
                "tokens_per_cpu_second": {name: round(value, 1) for name, value in speed.items()},
                "ratio": ratios(speed),
            }
            for count, speed in speeds.items()
        }
        | {"rounds": rounds},
    )


def ratios(speed: dict[str, float]) -> dict[str, float]:
    return {
        "batch_8_over_batch_1": round(speed["ours_batch_8"] / speed["ours_batch_1"], 2),
        "over_transformers": round(speed["ours_batch_8"] / speed["transformers_batch_8"], 2),
    }


if __name__ == "__main__":
    bench(__doc__, measure, rounds=5)
