"""A tiny training set and base model, as preprocessing and initialisation leave them: grey squares, named by a token."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from PIL import Image

from components.artifacts.artifact import Artifact
from components.shards.reader import ARRAYS
from plm_model.families.plm.settings import PLMConfig, ProcessorConfig, VisionConfig
from plm_model.nn.config import DecoderConfig
from plm_model.packs.example import Example

IMAGE = 3
SHADES = 8


def tiny_config(drop_path: float = 0.0) -> PLMConfig:
    """A model of a few thousand parameters: 28x28 tiles of one image token each, 40 tokens."""
    return PLMConfig(
        vision=VisionConfig(image_size=28, patch_size=14, width=32, layers=2, heads=2, drop_path=drop_path),
        decoder=DecoderConfig(
            vocab_size=40, dim=32, layers=2, heads=2, kv_heads=1, hidden_dim=48, rope_theta=1e4, max_seq_len=128
        ),
        image_token_id=IMAGE,
        processor=ProcessorConfig(vision_input_type="tile", max_num_tiles=1),
    )


def example(number: int, text: int = 0) -> Example:
    """BOS, the image, some tokens of text, then the letter of the shade and an end token, which are supervised."""
    sequence = np.array([1, IMAGE, *[5 + n for n in range(text)], 20 + number % SHADES, 2], np.int32)
    targets = np.full(len(sequence) - 1, -100, np.int32)
    targets[-2:] = sequence[-2:]
    zero = np.zeros_like(targets)
    return Example(sequence[:-1], targets, np.arange(len(targets), dtype=np.int32), zero, zero)


def picture(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (28, 28), (20 + 30 * (number % SHADES),) * 3).save(file, "png")
    return file.getvalue()


def write_shards(folder: Path, examples: int = 40, per_shard: int = 16, longest: int = 6, test: int = 0) -> Artifact:
    """Shards and index of so many examples of different lengths, and of a test split if one is asked for."""
    write_split(folder / "train", examples, per_shard, longest)
    if test:
        write_split(folder / "test", test, per_shard, longest)
    return artifact(folder, "preprocess")


def write_split(folder: Path, examples: int, per_shard: int, longest: int) -> None:
    folder.mkdir(parents=True)
    index = []
    for shard, start in enumerate(range(0, examples, per_shard)):
        rows, name = [], f"shard-{shard:05d}.parquet"
        for row, number in enumerate(range(start, min(start + per_shard, examples))):
            made = example(number, number % longest)
            arrays = {key: getattr(made, key).tolist() for key in ARRAYS}
            media = [{"kind": "image", "data": picture(number)}]
            rows.append({"id": f"e{number}", "record": "{}", **arrays, "media": media})
            entry = {"id": f"e{number}", "source": "test", "shard": name, "row": row, "tokens": made.length}
            index.append({**entry, "supervised": made.supervised, "media": 1, "frames": 0})
        parquet.write_table(pa.Table.from_pylist(rows, SHARD_SCHEMA), folder / name, row_group_size=5)
    parquet.write_table(pa.Table.from_pylist(index), folder / "index.parquet")


SHARD_SCHEMA = pa.schema(
    [("id", pa.string()), ("record", pa.string())]
    + [(name, pa.list_(pa.int32())) for name in ARRAYS]
    + [("media", pa.list_(pa.struct([("kind", pa.string()), ("data", pa.binary())])))]
)


def write_base(folder: Path, config: PLMConfig | None = None) -> Artifact:
    """A base checkpoint without a tokenizer, which training does not need."""
    from plm_model.families.plm.model import build
    from plm_model.families.plm.weights import initialise
    from plm_model.model_directory.files import save_tensors

    config = config or tiny_config()
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "plm", "format": 1, **config.to_dict()}))
    state = initialise(build(config), seed=0).state_dict()
    save_tensors(folder, {name: (t.dtype, tuple(t.shape)) for name, t in state.items()}, state.items())
    return artifact(folder, "base")


def artifact(folder: Path, step: str) -> Artifact:
    """A local folder as the artifact that a step would have made of it."""
    files = {p.relative_to(folder).as_posix(): recorded(p) for p in folder.rglob("*") if p.is_file()}
    return Artifact(str(folder), {"step": step, "key": "k", "digest": step * 4, "files": files, "counts": {}}, folder)


def recorded(path: Path) -> dict[str, Any]:
    """What a manifest says of a file."""
    with open(path, "rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
