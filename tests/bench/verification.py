"""What it costs a training's loader to compare every shard with its recorded sum before it reads from it.

    python tests/bench/verification.py --json

An epoch is read from local shards, pack by pack, by a loader that verifies and by the same one without: everything else, from
the row group to the collated pack, is equal. Each reads with nothing in its caches, in turns; the ratio is one of medians of
CPU time, so that a busy machine meets both. Three sets: photographs (JPEG, 960 x 720, up to four tiles), frames of videos as
preprocessing stores them (WebP without loss, 448 x 448, eight each), and squares of 28 pixels, with
next to nothing to decode.
"""

from __future__ import annotations

import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import torch
from PIL import Image

from components.artifacts.artifact import Artifact
from components.shards.cache import ShardFiles
from components.shards.reader import ARRAYS, Place, ShardReader
from components.train.data.loader import PackRequest, read_pack
from plm_model.families.plm.collator import Collator
from plm_model.families.plm.settings import PLMConfig
from plm_model.families.plm.tiles import tile_images
from plm_model.media.video import encode_frame
from plm_model.packs.example import Example
from tests.bench._evidence import bench, evidence
from tests.components.training_set import IMAGE, SHARD_SCHEMA, artifact, tiny_config, write_shards

SIDE, PER_SHARD, PER_PACK = 448, 32, 8
Media = Callable[[int], list[dict[str, Any]]]


class Unverified(ShardFiles):
    """The same files, taken for what they are."""

    def _open(self, rel: str) -> IO[bytes]:
        return open(f"{self.artifact.uri}/{rel}", "rb")


def config() -> PLMConfig:
    """Tiles of 448 pixels, each one token: what is read is the data, not the model."""
    tiny = tiny_config()
    vision = replace(tiny.vision, image_size=SIDE, patch_size=SIDE // 2)
    return replace(tiny, vision=vision, processor=replace(tiny.processor, max_num_tiles=4))


def cropped(number: int, width: int, height: int) -> Image.Image:
    """A part of a real photograph, another one for each number, enlarged to the size."""
    from sklearn.datasets import load_sample_images

    image = Image.fromarray(load_sample_images().images[number % 2])
    left, top = np.random.default_rng(number).integers(0, (160, 120))
    box = (int(left), int(top), int(left) + 480, int(top) + 300)
    return image.resize((width, height), Image.Resampling.BICUBIC, box=box)


def photographs(number: int) -> list[dict[str, Any]]:
    buffer = io.BytesIO()
    cropped(number, 960, 720).save(buffer, "JPEG", quality=90)
    return [{"kind": "image", "data": buffer.getvalue()}]


def frames(number: int) -> list[dict[str, Any]]:
    tiles = (np.asarray(cropped(8 * number + n, SIDE, SIDE)).transpose(2, 0, 1) for n in range(8))
    return [{"kind": "frame", "data": encode_frame(tile)} for tile in tiles]


def write_set(folder: Path, examples: int, media: Media) -> Artifact:
    """Shards of examples with these media and as many placeholders as they have tiles."""
    (folder / "train").mkdir(parents=True)
    for shard in range(examples // PER_SHARD):
        rows = []
        for number in range(shard * PER_SHARD, (shard + 1) * PER_SHARD):
            items = media(number)
            made = example(tiles_of(items))
            arrays = {key: getattr(made, key).tolist() for key in ARRAYS}
            rows.append({"id": f"e{number}", "record": "{}", **arrays, "media": items})
        path = folder / "train" / f"shard-{shard:05d}.parquet"
        parquet.write_table(pa.Table.from_pylist(rows, SHARD_SCHEMA), path, row_group_size=PER_PACK)
    return artifact(folder, "preprocess")


def tiles_of(items: list[dict[str, Any]]) -> int:
    if items[0]["kind"] == "frame":
        return len(items)
    return len(tile_images([item["data"] for item in items], config().processor, SIDE))


def example(tiles: int) -> Example:
    tokens = np.array([1, *[IMAGE] * tiles, 20], np.int32)
    zero = np.zeros_like(tokens)
    return Example(tokens, np.where(tokens == IMAGE, -100, tokens).astype(np.int32), zero, zero, zero)


def epoch(shards: Artifact, files: type[ShardFiles], model: PLMConfig, per_shard: int) -> float:
    """CPU seconds of reading every pack once, from nothing."""
    reader = ShardReader(
        files(replace(shards), shards.cache_dir / "cache", 1 << 30), Collator(model), cache_bytes=64 << 20
    )
    names = sorted(name for name in shards.files if "shard-" in name)
    places = [Place(name, row) for name in names for row in range(per_shard)]
    began = time.process_time()
    for start in range(0, len(places), PER_PACK):
        pack = tuple(places[start : start + PER_PACK])
        assert not read_pack(reader, PackRequest(start, pack, ("bench",) * len(pack))).rejected
    return time.process_time() - began


def measure(examples: int, rounds: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    ratio, raw = {}, {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sets = {
            "photographs": (write_set(folder / "photographs", examples, photographs), config(), PER_SHARD),
            "frames": (write_set(folder / "frames", examples, frames), config(), PER_SHARD),
            "squares": (write_shards(folder / "squares", 1000, per_shard=500), tiny_config(), 500),
        }
        for kind, (shards, model, per_shard) in sets.items():
            times: dict[type[ShardFiles], list[float]] = {ShardFiles: [], Unverified: []}
            for _ in range(rounds + 1):
                for files, taken in times.items():
                    taken.append(epoch(shards, files, model, per_shard))
            verified, plain = (statistics.median(taken[1:]) for taken in times.values())
            ratio[kind] = round(verified / plain, 3)
            size = sum(entry["size"] for entry in shards.files.values())
            raw[kind] = {
                "megabytes": round(size / 1e6, 1),
                "verified_s": round(verified, 3),
                "plain_s": round(plain, 3),
            }
    used = f"1 thread, torch {torch.__version__}"
    return evidence("verification", used, "the same loader without sums", ratio, {**raw, "rounds": rounds})


if __name__ == "__main__":
    bench(__doc__ or "", measure, examples=96, rounds=9)
