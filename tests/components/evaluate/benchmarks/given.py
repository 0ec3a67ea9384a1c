"""What a benchmark's task is given in a test: a tiny data set of the published schema, and an answer to each question."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from tests.plm_model.video_files import write_video

FRAMES = 34  # PLM-VideoBench wants 32 at least
Row = Mapping[str, Any]
WORDS = "a red dog barks loudly", "nine green ships sail away"  # captions that share no word
# CIDEr of the first caption said in full and `nine green` for the second: the first is 10; of the second, one-grams give
# 2 / (sqrt 2 sqrt 5), two-grams 1 / (1 * 2), the others 0, each times the penalty for 3 two-grams less, with sigma 6.
CIDER_ANSWERS = [WORDS[0], "nine green"]
CIDER = 100 * (10 + 10 * (2 / 10**0.5 + 1 / 2) / 4 * 2.718281828459045 ** (-(3**2) / (2 * 6**2))) / 2


@dataclass(frozen=True)
class Given:
    """A task with the data set `path`, its config and split, and the answer to each row; `media` lie below HF_HOME.

    `files` are written as they are, in place of a data set, where a benchmark reads the published file itself.
    """

    task: str
    path: str
    config: str
    split: str
    rows: Sequence[Row]
    answers: Sequence[str]
    media: Sequence[str] = ()
    files: Mapping[str, str] | None = None


def picture() -> Image.Image:
    return Image.new("RGB", (12, 8), (200, 30, 30))


def rows(common: Row, *each: Row) -> list[dict[str, Any]]:
    return [{**common, **row} for row in each]


def jsonl(lines: Iterable[Any]) -> str:
    return "".join(json.dumps(line) + "\n" for line in lines)


def write(given: Sequence[Given], root: Path, home: Path) -> None:
    """Lay out every data set below `root`, and every image and video below `home`."""
    clip = write_video(root / "clip.mp4", frames=FRAMES, fps=30, size=(32, 32))
    for each in given:
        for name, text in (each.files or {}).items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, encoding="utf-8")
        for video in each.media:
            (home / video).parent.mkdir(parents=True, exist_ok=True)
            if video.endswith(".png"):
                picture().save(home / video)
            else:
                (home / video).write_bytes(clip.read_bytes())
    sets = [each for each in given if each.files is None]
    for path in {each.path for each in sets}:
        write_set(root / path, [each for each in sets if each.path == path])


def write_set(folder: Path, parts: Sequence[Given]) -> None:
    """A data set as the hub has it: one Parquet file for each config and split, listed in README.md."""
    from datasets import Dataset

    configs: dict[str, list[dict[str, str]]] = {}
    for part in parts:
        name = f"{part.config}/{part.split}.parquet"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Dataset.from_list([dict(row) for row in part.rows]).to_parquet(str(folder / name))
        configs.setdefault(part.config, []).append({"split": part.split, "path": name})
    listed = [{"config_name": config, "data_files": files} for config, files in configs.items()]
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': listed})}---\n", encoding="utf-8")
