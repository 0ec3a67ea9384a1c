"""Parquet files with images, as data sets on the hub have: the radiology example's data step on a small one."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.artifacts.artifact import Artifact, StepKey
from components.artifacts.store import ArtifactStore
from components.convert.step import run as convert
from components.errors import UserError
from components.ingest.step import run as ingest
from components.pipeline.config import PipelineConfig
from components.pipeline.config_loading import load_config
from components.pipeline.steps import STEPS

EXAMPLE = "configs/finetune/radiology_8b.yaml"


def picture(shade: int, kind: str = "PNG") -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (20, 10), (shade, 0, 0)).save(data, kind)
    return data.getvalue()


def write(file: Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), file)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Laid out and with the columns of the data set on the hub."""
    for split, count in (("train", 6), ("test", 2)):
        rows = [
            {
                "image": {"bytes": picture(20 * n, "JPEG" if n % 2 else "PNG"), "path": None},
                "image_id": f"ROCOv2_{n}",
                "caption": f"Scan number {n}.",
                "cui": ["C1", "C2"],
            }
            for n in range(count)
        ]
        write(tmp_path / f"radiology/data/{split}-00000-of-00001.parquet", rows)
    return tmp_path / "radiology"


@pytest.fixture
def brought(tmp_path: Path, step_context: Callable[..., Any]) -> Callable[..., Artifact]:
    store = ArtifactStore(str(tmp_path / "runs"), tmp_path / "cache")

    def go(config: PipelineConfig) -> Artifact:
        key = StepKey("ingest", config=config.model_dump(mode="json"))
        with store.create(key) as out:
            ingest(config.ingest, {}, out, step_context())
        found = store.find(key)
        assert found is not None
        return found

    return go


def configured(path: Path, **source: Any) -> PipelineConfig:
    return PipelineConfig.model_validate({"ingest": {"source": {"kind": "parquet", "path": str(path), **source}}})


def test_the_radiology_example_gets_its_conversations_and_its_own_test_split(
    folder: Path, tmp_path: Path, brought: Callable[..., Artifact], step_context: Callable[..., Any]
) -> None:
    config = load_config(EXAMPLE, [f"ingest.source.path={folder}"])
    raw = brought(config)
    store, key = ArtifactStore(str(tmp_path / "runs"), tmp_path / "cache"), StepKey("convert")
    with store.create(key) as out:
        convert(STEPS["convert"].settings(config), {"raw": raw}, out, step_context())
    dataset = store.find(key)
    rows = [
        json.loads(line) for side in ("train", "test") for line in dataset.open(f"{side}.jsonl").read().splitlines()
    ]
    assert (len(rows), dataset.counts["train"], dataset.counts["test"]) == (8, 6, 2)
    (third,) = [row for row in rows if row["conversations"][1]["value"] == "Scan number 3."]
    assert third["conversations"][0]["value"].startswith("You are an expert radiographer.")
    assert raw.open(third["image"]).read() == picture(60, "JPEG")


def test_rows_keep_their_columns_and_images_their_bytes(folder: Path, brought: Callable[..., Artifact]) -> None:
    raw = brought(configured(folder, files="data/train-*.parquet"))
    rows = [json.loads(line) for line in raw.open("rows.jsonl").read().splitlines()]
    assert rows[1] == {
        "image": "images/data/train-00000-of-00001-000001.jpeg",
        "image_id": "ROCOv2_1",
        "caption": "Scan number 1.",
        "cui": ["C1", "C2"],
    }
    assert raw.open(rows[1]["image"]).read() == picture(20, "JPEG")
    assert (raw.counts["files"], raw.counts["fetched"]) == (7, 7)


def test_a_row_may_hold_several_images_or_none(tmp_path: Path, brought: Callable[..., Artifact]) -> None:
    cell = {"bytes": picture(1), "path": "x.png"}
    write(tmp_path / "d/a.parquet", [{"image": [cell, cell], "caption": "two"}, {"image": None, "caption": "none"}])
    rows = [json.loads(line) for line in brought(configured(tmp_path / "d")).open("rows.jsonl").read().splitlines()]
    assert rows == [
        {"image": ["images/a-000000.png", "images/a-000000-1.png"], "caption": "two"},
        {"image": None, "caption": "none"},
    ]


def test_files_of_one_name_in_two_folders_keep_their_own_images(
    tmp_path: Path, brought: Callable[..., Artifact]
) -> None:
    for shade, folder in ((1, "left"), (2, "right")):
        write(tmp_path / f"d/{folder}/0000.parquet", [{"image": picture(shade), "caption": folder}])
    raw = brought(configured(tmp_path / "d"))
    rows = [json.loads(line) for line in raw.open("rows.jsonl").read().splitlines()]
    assert [(row["caption"], row["image"]) for row in rows] == [
        ("left", "images/left/0000-000000.png"),
        ("right", "images/right/0000-000000.png"),
    ]
    assert [raw.open(row["image"]).read() for row in rows] == [picture(1), picture(2)]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (None, r"no file is called \*\*/\*\.parquet"),
        ([{"picture": b"x"}], r"a\.parquet: no column 'image'; it has 'picture'"),
    ],
)
def test_what_cannot_be_brought_in_is_one_readable_line(
    rows: list[dict[str, Any]] | None, message: str, tmp_path: Path, brought: Callable[..., Artifact]
) -> None:
    (tmp_path / "d").mkdir()
    if rows is not None:
        write(tmp_path / "d/a.parquet", rows)
    with pytest.raises(UserError, match=message) as caught:
        brought(configured(tmp_path / "d"))
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_named(tmp_path: Path, brought: Callable[..., Artifact]) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(UserError, match=r"a\.parquet: cannot be read"):
        brought(configured(tmp_path / "d"))


def test_a_hub_data_set_needs_its_commit_when_it_is_read_and_no_network_before(
    brought: Callable[..., Artifact],
) -> None:
    config = configured(Path("someone/some_data"))
    assert "someone/some_data" in config.ingest.source.fingerprint()
    with pytest.raises(UserError, match=r"someone/some_data@<40 hex.*huggingface\.co/datasets/someone/some_data"):
        brought(config)


def test_the_fingerprint_follows_the_files(folder: Path) -> None:
    source = configured(folder).ingest.source
    before = source.fingerprint()
    (folder / "data/test-00000-of-00001.parquet").touch()
    assert source.fingerprint() != before
