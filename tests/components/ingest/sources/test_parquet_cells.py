"""What people's Parquet files hold beside good images: cells are rejected one by one, labels are what the data set shows."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.errors import UserError

Chain = Callable[..., Any]
FILE = "data/train-00000-of-00001.parquet"


def picture(n: int) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (20, 10), (40 * n, 0, 0)).save(data, "PNG")
    return data.getvalue()


def bomb() -> bytes:
    """A PNG of 30,000 x 30,000 by its header."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


GOOD = [{"bytes": picture(n), "path": f"{n}.png"} for n in range(5)]


def write(
    folder: Path, columns: dict[str, Any], name: str = FILE, metadata: dict[str, str] | None = None, **kind: Any
) -> Path:
    table = pa.table(columns)
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(metadata) if metadata else table, file, **kind)
    return file


def with_third(cell: Any) -> dict[str, Any]:
    """A table of which the third image is another."""
    return {"image": [*GOOD[:2], cell, *GOOD[3:]], "label": [f"x{n}" for n in range(5)]}


def source(folder: Path, **keys: Any) -> dict[str, Any]:
    return {"kind": "parquet", "path": str(folder), **keys}


def lines(artifact: Any, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in artifact.open(name).read().splitlines()]


def answers(dataset: Any) -> list[str]:
    return [row["conversations"][1]["value"] for row in lines(dataset, "train.jsonl")]


BAD_CELLS = {
    "bomb": ({"bytes": bomb(), "path": "3.png"}, "the image: .*large.*900000000"),
    "web page": ({"bytes": b"<html>404</html>", "path": "3.png"}, "the image: "),
    "no bytes": ({"bytes": b"", "path": "3.png"}, "the image: empty file"),
    "path only": (
        {"bytes": None, "path": "3.png"},
        "the image has no bytes, only the name '3.png'; files beside a table are read by `kind: folder`",
    ),
}


@pytest.mark.case("D10")
@pytest.mark.parametrize("kind", BAD_CELLS)
def test_a_cell_without_an_image_is_one_rejected_row(kind: str, tmp_path: Path, ingested: Chain) -> None:
    cell, reason = BAD_CELLS[kind]
    write(tmp_path / "d", with_third(cell))
    said: list[str] = []
    raw, dataset = ingested(source(tmp_path / "d"), said.append)
    (reject,) = lines(raw, "rejected.jsonl")
    assert (reject["file"], reject["line"], reject["row"]["label"]) == (FILE, 3, "x2")
    with pytest.raises(ValueError, match=reason):
        raise ValueError(reject["reason"])
    assert answers(dataset) == ["x0", "x1", "x3", "x4"] and lines(dataset, "rejected.jsonl") == [reject]
    counts = {name: raw.counts[name] for name in ("rows", "used", "repaired", "rejected")}
    assert counts == {"rows": 5, "used": 4, "repaired": 0, "rejected": 1}
    assert (dataset.counts["rows"], dataset.counts["rejected"]) == (5, 1)
    assert any(f"5 rows, 4 images, 1 rejected, such as {FILE}:3: {reject['reason']}" in line for line in said)
    images = [raw.open(row["image"]).read() for row in lines(dataset, "train.jsonl")]
    assert images == [picture(n) for n in (0, 1, 3, 4)]


@pytest.mark.case("D10")
@pytest.mark.parametrize("none", [None, {"bytes": None, "path": None}])
def test_a_row_without_an_image_is_rejected_under_its_parquet_row(none: Any, tmp_path: Path, ingested: Chain) -> None:
    write(tmp_path / "d", with_third(none))
    write(
        tmp_path / "d",
        with_third(b"") | {"image": [None, b"", *(picture(n) for n in range(3))]},
        "data/train-2.parquet",
    )
    raw, dataset = ingested(source(tmp_path / "d"))
    found = [(reject["file"], reject["line"], reject["reason"]) for reject in lines(dataset, "rejected.jsonl")]
    assert found == [
        ("data/train-2.parquet", 2, "the image: empty file"),
        (FILE, 3, "no image name in column 'image'"),
        ("data/train-2.parquet", 1, "no image name in column 'image'"),
    ]
    assert (raw.counts["rejected"], dataset.counts["rows"], dataset.counts["train"]) == (1, 10, 7)


@pytest.mark.case("D10")
def test_lists_of_images_are_rows_each_by_itself(tmp_path: Path, ingested: Chain) -> None:
    cells = [[GOOD[0], GOOD[1]], [], None, [GOOD[2]], [GOOD[3], None]]
    write(tmp_path / "d", {"image": cells, "label": list("abcde")})
    _, dataset = ingested(source(tmp_path / "d"))
    assert [(len(row["image"]), row["conversations"][1]["value"]) for row in lines(dataset, "train.jsonl")] == [
        (2, "a"),
        (1, "d"),
    ]
    found = [(reject["line"], reject["reason"]) for reject in lines(dataset, "rejected.jsonl")]
    assert found == [
        (5, "image 2 of 2 is none"),
        (2, "no image name in column 'image'"),
        (3, "no image name in column 'image'"),
    ]


@pytest.mark.case("D10")
def test_where_no_cell_has_an_image_the_reason_is_said(tmp_path: Path, ingested: Chain) -> None:
    write(tmp_path / "d", {"image": ["a.png", "b.png"], "label": ["x", "y"]})
    with pytest.raises(
        UserError, match=rf"all 2 rows rejected: {FILE}:1: the image has no bytes, only the name 'a\.png'"
    ):
        ingested(source(tmp_path / "d"))


@pytest.mark.case("D10")
def test_other_columns_with_bytes_are_left_out_and_named(tmp_path: Path, ingested: Chain) -> None:
    more = {"thumb": GOOD, "mask": [b"\0\1"] * 5, "parts": [[{"data": b"x"}]] * 5, "size": [{"w": 1}] * 5}
    write(tmp_path / "d", with_third(GOOD[2]) | more)
    said: list[str] = []
    raw, dataset = ingested(source(tmp_path / "d"), said.append)
    assert lines(raw, "rows.jsonl")[0].keys() == {"image", "label", "size"}
    assert any("columns left out, they hold bytes: 'thumb', 'mask', 'parts'" in line for line in said)
    assert answers(dataset) == [f"x{n}" for n in range(5)]


@pytest.mark.case("D10")
def test_nan_and_infinity_are_no_value_and_are_counted(tmp_path: Path, ingested: Chain) -> None:
    scores = {"score": [1.5, float("nan"), float("inf"), None, 2.0], "deep": [[{"a": float("nan")}]] * 1 + [[]] * 4}
    write(tmp_path / "d", with_third(GOOD[2]) | scores)
    raw, dataset = ingested(source(tmp_path / "d"))
    rows = lines(raw, "rows.jsonl")
    assert [row["score"] for row in rows] == [1.5, None, None, None, 2.0] and rows[0]["deep"] == [{"a": None}]
    assert raw.counts["noted"]["not_a_number"]["rows"] == 3
    assert raw.counts["noted"]["not_a_number"]["first"] == [f"{FILE}:{n}" for n in (1, 2, 3)]
    assert dataset.counts["train"] == 5


@pytest.mark.case("D10")
def test_a_damaged_page_ends_the_step_with_the_files_name(tmp_path: Path, ingested: Chain) -> None:
    file = write(tmp_path / "d", with_third(GOOD[2]), compression="snappy", use_dictionary=False)
    data = bytearray(file.read_bytes())
    data[40:300] = bytes(byte ^ 0x5A for byte in data[40:300])
    file.write_bytes(data)
    with pytest.raises(UserError, match=rf"{FILE}: cannot be read: .*; the file is damaged: get it again$") as caught:
        ingested(source(tmp_path / "d"))
    assert "\n" not in str(caught.value)


@pytest.mark.case("D10")
def test_a_page_is_compared_with_its_checksum(tmp_path: Path, ingested: Chain) -> None:
    kind = {"compression": "none", "use_dictionary": False, "write_page_checksum": True}
    file = write(tmp_path / "d", {"image": [picture(n) for n in range(3)], "label": ["one", "two", "three"]}, **kind)
    data = file.read_bytes()
    file.write_bytes(data.replace(b"three", b"threw", 1))
    with pytest.raises(UserError, match=r"cannot be read: .*CRC checksum"):
        ingested(source(tmp_path / "d"))


@pytest.mark.case("D10")
def test_a_value_that_python_cannot_hold_is_one_rejected_row(tmp_path: Path, ingested: Chain) -> None:
    times = pa.array([0, 1, 10**15, 3, 4], pa.int64()).cast(pa.timestamp("ms"))
    texts = pa.array([b"a", b"b", b"c", b"\xff", b"e"]).view(pa.string())
    write(tmp_path / "d", with_third(GOOD[2]) | {"when": times, "text": texts})
    raw, dataset = ingested(source(tmp_path / "d"), question_column="label", answer_column="text")
    found = [(reject["line"], reject["reason"].partition(":")[0]) for reject in lines(raw, "rejected.jsonl")]
    assert found == [(3, "column 'when' cannot be read"), (4, "column 'text' cannot be read")]
    assert answers(dataset) == ["a", "b", "e"]


@pytest.mark.case("D10")
def test_a_column_that_stands_twice_is_refused(tmp_path: Path, ingested: Chain) -> None:
    columns = with_third(GOOD[2])
    table = pa.table(
        [pa.array(columns["image"]), pa.array(columns["label"]), pa.array(["no"] * 5)], ["image", "label", "label"]
    )
    (tmp_path / "d").mkdir()
    pq.write_table(table, tmp_path / "d/a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet: the column 'label' stands twice; rename one of them"):
        ingested(source(tmp_path / "d"))


def huggingface(**features: Any) -> dict[str, str]:
    return {"huggingface": json.dumps({"info": {"features": features}})}


CLASSES = {"names": ["cat", "dog", "bird"], "_type": "ClassLabel"}


@pytest.mark.case("D15")
def test_a_class_is_trained_by_its_name(tmp_path: Path, ingested: Chain) -> None:
    labels = pa.array([0, 1, 2, 5, -1], pa.int64())
    more = {"tags": [[0, 2], [], [1], [1], [1]], "plain": [7] * 5}
    features = huggingface(
        label=CLASSES, tags={"feature": CLASSES, "_type": "Sequence"}, plain={"dtype": "int64", "_type": "Value"}
    )
    write(tmp_path / "d", with_third(GOOD[2]) | {"label": labels} | more, metadata=features)
    raw, dataset = ingested(source(tmp_path / "d"))
    assert answers(dataset) == ["cat", "dog", "bird"]
    assert lines(raw, "rows.jsonl")[0]["tags"] == ["cat", "bird"] and lines(raw, "rows.jsonl")[0]["plain"] == 7
    assert [(reject["line"], reject["reason"]) for reject in lines(dataset, "rejected.jsonl")] == [
        (4, "column 'label' is 5, but there are 3 classes"),
        (5, "no text in column 'label'"),
    ]


@pytest.mark.case("D15")
@pytest.mark.parametrize("metadata", ["{", "[]", '{"info": {"features": {"label": 7}}}', '{"info": null}'])
def test_metadata_that_says_nothing_changes_nothing(metadata: str, tmp_path: Path, ingested: Chain) -> None:
    write(tmp_path / "d", with_third(GOOD[2]) | {"label": [0, 1, 2, 3, 4]}, metadata={"huggingface": metadata})
    assert answers(ingested(source(tmp_path / "d"))[1]) == list("01234")


@pytest.mark.case("D15")
def test_whole_floats_are_integers_where_the_whole_column_is(tmp_path: Path, ingested: Chain) -> None:
    columns = {"label": pa.array([0.0, 1.0, 2.0, None, 4.0]), "score": [1.0, 2.5, 3.0, 4.0, 5.0], "big": [1e300] * 5}
    write(tmp_path / "d", with_third(GOOD[2]) | columns | {"split": [1.0] * 5})
    write(tmp_path / "d", with_third(GOOD[2]) | columns | {"split": [1.5] * 5}, "data/train-2.parquet")
    raw, dataset = ingested(source(tmp_path / "d"))
    assert answers(dataset) == ["0", "1", "2", "4"] * 2
    first = lines(raw, "rows.jsonl")[0]
    assert [repr(first[name]) for name in ("label", "score", "big", "split")] == ["0", "1.0", "1e+300", "1.0"]


@pytest.mark.case("D15")
def test_the_test_split_is_not_trained_on_unless_it_is_named(tmp_path: Path, ingested: Chain) -> None:
    other = {"image": GOOD, "caption": ["c"] * 5}
    write(tmp_path / "d", with_third(GOOD[2]))
    write(tmp_path / "d", other, "data/validation-00000-of-00001.parquet")
    write(tmp_path / "d", other, "test/0000.parquet")
    said: list[str] = []
    raw, _ = ingested(source(tmp_path / "d"), said.append)
    assert (raw.counts["rows"], raw.counts["files_left_out"]) == (5, 2)
    expected = "2 files of a test or validation split are not read, such as data/validation-00000-of-00001.parquet"
    assert any(expected in line and "ingest.source.files=**/*.parquet reads all" in line for line in said)
    everything, _ = ingested(source(tmp_path / "d", files="**/*.parquet"))
    assert everything.counts["rows"] == 15


@pytest.mark.case("D15")
def test_a_test_split_alone_is_read_and_said(tmp_path: Path, ingested: Chain) -> None:
    write(tmp_path / "d", with_third(GOOD[2]), "test-00000-of-00001.parquet")
    said: list[str] = []
    raw, _ = ingested(source(tmp_path / "d"), said.append)
    assert raw.counts["rows"] == 5
    assert any("1 of a test or validation split are read, such as test-00000-of-00001.parquet" in line for line in said)


@pytest.mark.case("D15")
@pytest.mark.parametrize(
    ("name", "held_out"),
    [
        ("data/test-00000-of-00001.parquet", True),
        ("validation.parquet", True),
        ("val/0000.parquet", True),
        ("train/test_0.parquet", True),
        ("data/train-00000-of-00001.parquet", False),
        ("test/train-0.parquet", False),
        ("contest-results.parquet", False),
        ("latest.parquet", False),
        ("train_test.parquet", False),
    ],
)
def test_a_split_is_a_word_of_the_name(name: str, held_out: bool) -> None:
    from components.ingest.sources.parquet_files import is_held_out

    assert is_held_out(name) == held_out
