"""Answers per second of an evaluation: batches of like length against the same model asked one question at a time.

    python tests/bench/evaluate.py --json

A tiny model, 240 questions of 5 to 120 words, every second one with an image; answers of 16 tokens at most, none of which end
early. Both contestants go through lmms-eval's interface (`generate_until` of the adapter), in the same process, on every core.

    single     one question a call, as the harness asks an adapter of batch size 1
    batched    the whole list in one call, chunks of 4 x 64 sorted by length

`again_s` is what the same list costs a second time, when every answer is kept.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
from PIL import Image

from components.evaluate.answering.kept import KeptAnswers
from components.evaluate.answering.pool import in_this_process
from plm_model.families.plm.model import build
from plm_model.families.plm.settings import PLMConfig, ProcessorConfig, VisionConfig
from plm_model.families.plm.tokenizer import Tokenizer
from plm_model.families.plm.weights import initialise, save_model
from plm_model.nn.config import DecoderConfig
from tests.bench._evidence import bench, evidence

TOKENIZER = Path(__file__).parents[2] / "configs/tokenizers/plm_tiny/tokenizer.json"
SETTINGS = {"max_new_tokens": 16, "temperature": 0, "until": []}


def write_model(folder: Path) -> Path:
    tokenizer = Tokenizer.from_file(TOKENIZER)
    config = PLMConfig(
        vision=VisionConfig(image_size=56, patch_size=14, width=64, layers=2, heads=2, drop_path=0.0),
        decoder=DecoderConfig(
            vocab_size=tokenizer.vocab_size, dim=128, layers=4, heads=4, kv_heads=2, hidden_dim=256, max_seq_len=1024
        ),
        image_token_id=tokenizer.image_id,
        processor=ProcessorConfig(vision_input_type="tile", max_num_tiles=1),
    )
    save_model(initialise(build(config), seed=0), config, tokenizer, folder)
    return folder


def requests(n: int) -> list[Any]:
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 255, (60, 60, 3)).astype("uint8")) for _ in range(n)]
    texts = [f"{number}: " + "what is it " * int(rng.integers(2, 40)) for number in range(n)]

    def visual(document: dict[str, int]) -> list[Any]:
        return [images[document["number"]]] if document["number"] % 2 else []

    return [SimpleNamespace(args=(text, SETTINGS, visual, number, "task", "test")) for number, text in enumerate(texts)]


def adapter(model: Path, kept: Path, batch_size: int, n: int) -> Any:
    from components.evaluate.harness.adapter import FamilyAdapter

    made = FamilyAdapter("weights", in_this_process(model, "cpu", batch_size), KeptAnswers(str(kept)), batch_size)
    made.task_dict = {"task": {"test": [{"number": number} for number in range(n)]}}
    made.generate_until(requests(n)[:2])  # loads the model
    return made


def measure(questions: int) -> dict[str, Any]:
    n = questions
    with tempfile.TemporaryDirectory() as place:
        model = write_model(Path(place) / "model")
        asked = requests(n)
        single, batched = (adapter(model, Path(place) / name, size, n) for name, size in (("one", 1), ("many", 64)))
        started = time.perf_counter()
        one_by_one = [single.generate_until([request])[0] for request in asked]
        middle = time.perf_counter()
        together = batched.generate_until(asked)
        ended = time.perf_counter()
        if together != one_by_one:
            raise SystemExit("the contestants' answers differ")
        again = adapter(model, Path(place) / "many", 64, n)
        began = time.perf_counter()
        again.generate_until(asked)
        kept_seconds = time.perf_counter() - began
    single_s, batched_s = middle - started, ended - middle
    return evidence(
        "evaluate",
        f"{os.cpu_count()} threads",
        "the same adapter asked one question at a time",
        {"batched_over_single": round(single_s / batched_s, 2), "again_s": round(kept_seconds, 3)},
        {"questions": n, "single_per_s": round(n / single_s, 1), "batched_per_s": round(n / batched_s, 1)},
    )


if __name__ == "__main__":
    bench(__doc__, measure, questions=240)
