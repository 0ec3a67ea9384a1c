"""The radiology walkthrough on a data set of its schema: own test split, captions scored as published, a gate with evidence.

40 rows to train on and 10 to test, in Parquet files named by their splits, with the columns image and caption. The pictures are
scans in name only: a bright shape on a dark ground, and a caption that says which. A tiny model on the CPU learns them.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from tests.system.conftest import Workplace

SHADES = {"bright": 240, "faint": 110}
PLACES = {"left upper": (6, 6), "right upper": (34, 6), "left lower": (6, 34), "right lower": (34, 34)}
TRAIN, TEST = 40, 10
MINE = """
extends: {repository}/configs/finetune/radiology_8b.yaml
name: radiology
ingest: {{source: {{path: {data}}}}}
model: {{init: random, extends: {repository}/configs/models/plm_tiny.yaml}}
preprocess: {{max_tokens: 256}}
train:
  steps: {steps}
  lr: 2.0e-3
  warmup_steps: 20
  weight_decay: 0.0
  packs_per_step: 2
  pack_tokens: 1024
  pack_media: 16
  dtype: float32
  recompute: {{vision: none, decoder: none}}
  workers: 1
  loader_workers: 0
  use_gpu: false
  checkpoint_every: 200
evaluate: {{max_new_tokens: 24}}
storage: {{root: {root}/runs, cache_dir: {root}/cache}}
tracking: {{state_dir: {root}/state}}
"""


def scan(number: int) -> tuple[bytes, str]:
    """A picture and its caption; eight kinds, with noise of its own for each."""
    rng = np.random.default_rng(number)
    shade = list(SHADES)[number % 2]
    place = list(PLACES)[number // 2 % 4]
    pixels = rng.integers(0, 40, (56, 56)).astype("uint8")
    left, top = PLACES[place]
    pixels[top : top + 16, left : left + 16] = SHADES[shade]
    data = io.BytesIO()
    Image.fromarray(pixels).convert("RGB").save(data, "PNG")
    return data.getvalue(), f"Axial scan showing a {shade} opacity in the {place} zone."


def write(folder: Path, shuffled: bool) -> Path:
    """The data set; `shuffled` captions of the training rows say nothing of their pictures."""
    (folder / "data").mkdir(parents=True)
    rows = [scan(number) for number in range(TRAIN + TEST)]
    captions = [caption for _, caption in rows]
    if shuffled:
        captions[:TRAIN] = list(np.random.default_rng(1).permutation(captions[:TRAIN]))
    for name, part in (("train", range(TRAIN)), ("test", range(TRAIN, TRAIN + TEST))):
        table = pa.table(
            {
                "image": [{"bytes": rows[number][0], "path": None} for number in part],
                "image_id": [f"ROCO_{number:05d}" for number in part],
                "caption": [captions[number] for number in part],
                "cui": [["C0040398"] for _ in part],
            }
        )
        parquet.write_table(table, folder / f"data/{name}-00000-of-00001.parquet")
    return folder


def config_of(place: Workplace, data: Path, steps: int) -> str:
    path = data / "radiology.yaml"
    path.write_text(MINE.format(repository=place.repository, data=data, root=place.root, steps=steps))
    return str(path)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Workplace:
    return Workplace(tmp_path_factory.mktemp("radiology"), repository)


@pytest.fixture(scope="module")
def learnt(place: Workplace, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The README's commands, in their order; the summary of the run."""
    mine = config_of(place, write(tmp_path_factory.mktemp("sound"), shuffled=False), steps=240)
    for command in (("finetune", mine, "--explain"), ("ingest", mine), ("convert", mine), ("finetune", mine)):
        ran = place.plm(*command)
        assert ran.returncode == 0, ran.stderr[-3000:] + ran.stdout[-3000:]
    return json.loads((place.root / "runs/radiology/summary.json").read_text())


@pytest.fixture(scope="module")
def samples(learnt: dict[str, Any], place: Workplace) -> list[dict[str, Any]]:
    (file,) = (place.root / "runs/artifacts/evaluate").glob("*/*/samples/heldout.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.e2e  # two trainings of a minute each
def test_the_official_test_rows_are_the_ones_measured(samples: list[dict[str, Any]]) -> None:
    assert sorted(row["target"] for row in samples) == sorted(scan(n)[1] for n in range(TRAIN, TRAIN + TEST))


@pytest.mark.e2e
def test_cider_is_pycocoevalcap_s_on_the_same_answers(learnt: dict[str, Any], samples: list[dict[str, Any]]) -> None:
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    def words(key: str) -> dict[int, list[str]]:
        captions = {number: [{"caption": row[key]}] for number, row in enumerate(samples)}
        found: dict[int, list[str]] = PTBTokenizer().tokenize(captions)
        return found

    score, _ = Cider().compute_score(words("target"), words("answer"))
    assert (learnt["metric"], learnt["score_after"]) == ("cider", pytest.approx(score))


@pytest.mark.e2e
def test_a_model_that_learnt_is_promoted(learnt: dict[str, Any]) -> None:
    assert (learnt["verdict"], learnt["champion"]) == ("promote", True), learnt["gate"]
    assert "better: radiology cider" in learnt["gate"]


@pytest.mark.e2e
def test_one_tuned_on_shuffled_captions_is_held(
    learnt: dict[str, Any], place: Workplace, tmp_path_factory: pytest.TempPathFactory
) -> None:
    mine = config_of(place, write(tmp_path_factory.mktemp("shuffled"), shuffled=True), steps=60)
    ran = place.plm("finetune", mine)
    assert ran.returncode == 0, ran.stderr[-3000:]
    summary = json.loads((place.root / "runs/radiology/summary.json").read_text())
    assert (summary["verdict"], summary["champion"]) == ("hold", False), summary["gate"]
    assert (
        "not shown to be better" in summary["gate"]
        and f"version {learnt['registered_model_version']}" in summary["gate"]
    )
