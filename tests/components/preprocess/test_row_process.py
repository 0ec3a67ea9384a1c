"""A row that crashes its decoder, or never ends, is a bad row; its neighbours are as they would be without it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from components.media_files.root import MediaRoot
from components.preprocess import row_process
from components.preprocess.graph import ChunkWorker, read_lines
from components.preprocess.scan import chunks_of
from plm_model.families.plm.codec import Codec
from tests.components.convert.test_record_types import CONFIG, TOKENIZER, said
from tests.components.fragile import Fragile

GREY = b"P5 2 2 255\n\x10\x20\x30\x40"


def worked(folder: Path, *images: str, seconds: float = 1.0) -> list[dict[str, Any]]:
    """Reports of one chunk with a row for each image, in a folder that holds `good.pgm`."""
    (folder / "good.pgm").write_bytes(GREY)
    rows = [{"id": f"row {n}", "image": image, **said("What?", f"answer {n}")} for n, image in enumerate(images)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (chunk,) = chunks_of(folder / "train.jsonl", "train", rows_per_shard=len(rows))
    encoder = Fragile(Codec(TOKENIZER, CONFIG), MediaRoot(str(folder)))
    reports: list[dict[str, Any]] = ChunkWorker(encoder, [chunk], str(folder), seconds)(
        read_lines(chunk, 0, str(folder))
    ).to_pylist()
    return reports


@pytest.mark.case("D1")
def test_a_row_that_kills_its_process_is_bad_by_name_and_costs_no_other(tmp_path: Path) -> None:
    names = ("good.pgm", "crash.png", "good.pgm", "loop.png", "fault.png", "good.pgm")
    reports = worked(tmp_path, *names, seconds=1)
    assert [(report["line"], report["id"], report["reason"]) for report in reports] == [
        (1, "row 0", None),
        (2, "row 1", "crash.png: ended the process that decodes it (SIGSEGV)"),
        (3, "row 2", None),
        (4, "row 3", "loop.png: takes more than 1 s; preprocess.row_seconds may allow more"),
        (5, "row 4", reports[4]["reason"]),
        (6, "row 5", None),
    ]
    assert reports[4]["reason"].startswith("fault.png: a fault of ours, TypeError in fragile.py:")
    beside = pq.read_table(tmp_path / "train/shard-00000.parquet").to_pylist()
    (alone := tmp_path / "alone").mkdir()
    worked(alone, *("good.pgm" for _ in names))
    expected = pq.read_table(alone / "train/shard-00000.parquet").to_pylist()
    assert [row | {"record": None} for row in beside] == [expected[n] | {"record": None} for n in (0, 2, 5)]


def test_a_row_that_waits_for_ever_is_bad_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_process, "WAIT_FACTOR", 1)
    (report,) = worked(tmp_path, "wait.png", seconds=2)
    assert report["reason"] == "wait.png: no answer within 2 s"


def test_a_pipe_named_as_a_picture_is_a_bad_row_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (report,) = worked(tmp_path, "pipe.png", seconds=20)
    assert report["reason"] == "pipe.png: is a pipe or a device, not a file"


def test_what_stops_the_step_stops_it_from_the_rows_process_too(tmp_path: Path) -> None:
    (report,) = worked(tmp_path, "good.pgm", "secret.png")
    assert report["stop"] == "train.jsonl:2: secret.png: may not be read"
