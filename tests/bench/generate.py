"""Tokens per second of greedy generation: batch 8 against batch 1, and against `transformers` at batch 8 on the same weights.

    python tests/bench/generate.py --json

One tiny model, one thread, the same prompts (an image of two tiles and 24 tokens of text each) and 64 new tokens. Stop
ids are switched off on both sides, and the tokens of both must be the same. Each figure is the best of the rounds.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch

from plm_model.codec import Example
from plm_model.config import PLMConfig
from plm_model.generate import GenerationOptions, generate
from plm_model.key_maps import from_hf, hf_name
from plm_model.plm import PLM
from plm_model.weights import build
from tests.plm_model.checkpoints import SCALED, reference

BATCH, NEW_TOKENS, TEXT, TILES = 8, 64, 24, 2
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
    random = np.random.default_rng(0)
    found = []
    for _ in range(BATCH):
        text = random.integers(2, 1000, TEXT)
        tokens = np.concatenate([text[:4], [IMAGE] * (TILES * config().tokens_per_tile), text[4:]]).astype(np.int32)
        zero = np.zeros_like(tokens)
        tiles = random.integers(0, 256, (TILES, 3, 56, 56)).astype(np.uint8)
        found.append((Example(tokens, zero - 100, np.arange(len(tokens), dtype=np.int32), zero, zero), tiles))
    return found


def ours_of(model: PLM, batch: list[Prompt]) -> list[list[int]]:
    options = GenerationOptions(max_new_tokens=NEW_TOKENS)
    return [answer.token_ids for answer in generate(model, NoStop(), batch, options)]


def theirs_of(model: Any, batch: list[Prompt]) -> list[list[int]]:
    ids = torch.from_numpy(np.stack([prompt.tokens for prompt, _ in batch])).long()
    pixels = ((torch.from_numpy(np.stack([tiles for _, tiles in batch])).float() / 255) - 0.5) / 0.5
    model.generation_config.eos_token_id = None
    more = {"do_sample": False, "max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "pad_token_id": 0}
    whole = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels, **more)
    return whole[:, ids.shape[1] :].tolist()


def best(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The shortest time of each in seconds. They take turns, so that a busy moment of the machine meets all of them."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: min(taken) for name, taken in times.items()}


def measure(rounds: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    ours, theirs = models()
    batch = prompts()
    if ours_of(ours, batch) != theirs_of(theirs, batch):
        raise SystemExit("the two give different tokens; the figures would mean nothing")
    runs = {
        "ours_batch_1": lambda: ours_of(ours, batch[:1]),
        "ours_batch_8": lambda: ours_of(ours, batch),
        "transformers_batch_8": lambda: theirs_of(theirs, batch),
    }
    seconds = best(runs, rounds)
    speed = {name: NEW_TOKENS * (1 if name.endswith("1") else BATCH) / taken for name, taken in seconds.items()}
    return {
        "name": "generate",
        "hardware": f"{platform.machine()} CPU, 1 thread, torch {torch.__version__}",
        "commit": commit(),
        "baseline": "our own batch of 1, and transformers' greedy generate at batch 8 with the same weights and prompts",
        "ratio": {
            "batch_8_over_batch_1": round(speed["ours_batch_8"] / speed["ours_batch_1"], 2),
            "over_transformers": round(speed["ours_batch_8"] / speed["transformers_batch_8"], 2),
        },
        "raw": {"tokens_per_second": {name: round(value, 1) for name, value in speed.items()}, "rounds": rounds},
    }


def commit() -> str:
    run = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return run.stdout.strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    result = measure(arguments.rounds)
    print(json.dumps(result) if arguments.json else json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
