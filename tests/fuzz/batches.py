"""Fifty damaged rows beside ten good ones, as a folder and the source that names it; the same for the same seed."""

from __future__ import annotations

import csv
import io
import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fuzz.media_files import PICTURES, VIDEOS, picture, video
from tests.fuzz.mutate import ODD_TEXTS, mutated_bytes, mutated_row

ROWS = 50
GOOD_ROWS = 10
CLIP = "good.mp4"


@dataclass(frozen=True)
class Batch:
    """What a chain is given: `lines` is the number of rows where the file itself says it, `settings` are of convert."""

    source: dict[str, Any]
    lines: int | None
    settings: dict[str, Any] = field(default_factory=dict)


def said(question: str, answer: str) -> dict[str, Any]:
    return {"conversations": [{"from": "human", "value": question}, {"from": "assistant", "value": answer}]}


def good_rows() -> list[dict[str, Any]]:
    """Ten sound rows about pictures, and about a clip."""
    rows = [{"id": f"good-{n}", "image": f"good-{n}.png", **said("What?", f"good {n}")} for n in range(GOOD_ROWS - 1)]
    return [*rows, {"id": "good-clip", "video": CLIP, "start_time": 0.1, "end_time": 0.9, **said("What?", "it moves")}]


def templates(number: int) -> list[dict[str, Any]]:
    """Sound rows of every kind, to be damaged."""
    id, image = {"id": f"bad-{number}"}, {"image": "a.png"}
    box = {"bbox": [[4, 4, 20, 10]], "width": 48, "height": 36}
    return [
        {**id, **image, **said("<image>\nWhat?", "a thing")},
        {**id, "image": ["a.png", "b.png"], **said("<image> or <image>?", "the first")},
        {**id, **image, **box, **said("What is in <|bbox0|>?", "<|bbox0|>")},
        {**id, "video": CLIP, "start_time": 0.2, "end_time": 0.8, **said("<video>\nWhat?", "it moves")},
        {**id, "video": CLIP, "bbox_map": {"0": [1, 1, 20, 20], "3": None}, **said("What is in the red box?", "it")},
        {**id, **image, "text": "a caption"},
        {**id, **image, "question": "Which?", "answer": "this"},
        {**id, **said("Hello?", "Hello.")},
    ]


def write_media(folder: Path) -> None:
    """The files that good rows and templates name."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("a.png", "b.png", *(f"good-{n}.png" for n in range(GOOD_ROWS))):
        (folder / name).write_bytes(picture(sum(name.encode())))
    (folder / CLIP).write_bytes(video("mp4", "libx264"))


def among(good: Sequence[Any], bad: Sequence[Any]) -> list[Any]:
    """The good ones spread among the bad ones: the first and the last are good."""
    step = max(1, len(bad) // max(1, len(good) - 1))
    rows: list[Any] = []
    for place, row in enumerate(good):
        rows += [row, *(bad[place * step : (place + 1) * step] if place < len(good) - 1 else ())]
    return [*rows[:-1], *bad[(len(good) - 1) * step :], rows[-1]]


def jsonl(folder: Path, random: random.Random, rows: int) -> Batch:
    bad = [mutated_row(random.choice(templates(n)), random) for n in range(rows)]
    return json_lines(folder, [json.dumps(row).encode() for row in good_rows()], bad)


def json_lines(folder: Path, good: Sequence[bytes], bad: Sequence[bytes]) -> Batch:
    text = b"\n".join(among(good, bad)) + b"\n"
    (folder / "rows.jsonl").write_bytes(text)
    lines = [line.removeprefix(b"\xef\xbb\xbf") for line in text.split(b"\n")]
    source = {"kind": "folder", "path": str(folder), "annotations": "rows.jsonl"}
    return Batch(source, sum(bool(line.strip()) for line in lines))


def table(folder: Path, random: random.Random, rows: int, ending: str, delimiter: str) -> Batch:
    """A table of id, picture, clip with times, and label."""

    def line(fields: Sequence[str]) -> bytes:
        text = io.StringIO()
        csv.writer(text, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_MINIMAL).writerow(fields)
        return text.getvalue().encode("utf-8", "surrogatepass")

    def damaged(number: int) -> bytes:
        fields = [f"bad-{number}", "a.png", "", "", "", "a label"]
        if random.random() < 0.3:
            fields[1:5] = "", CLIP, "0.1", "0.8"
        if random.random() < 0.7:
            fields[random.randrange(len(fields))] = random.choice(ODD_TEXTS)
            whole = line(fields)
        else:
            whole = line(fields)
        return mutated_bytes(whole, random) if random.random() < 0.6 else whole

    good = [line([f"good-{n}", f"good-{n}.png", "", "", "", f"label {n}"]) for n in range(GOOD_ROWS)]
    header = line(["id", "image", "video", "start_time", "end_time", "label"])
    bad = [row if row.endswith(b"\n") else row + b"\n" for row in map(damaged, range(rows))]
    (folder / f"labels.{ending}").write_bytes(header + b"".join(among(good, bad)))
    return Batch({"kind": "folder", "path": str(folder), "annotations": f"labels.{ending}"}, None)


def parquet(folder: Path, random: random.Random, rows: int) -> Batch:
    """A table with cells of every kind in the column of pictures."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def cell() -> Any:
        data = picture(random.randrange(9), random.choice(PICTURES))
        held = random.choice((mutated_bytes(data, random), mutated_bytes(data, random), data, b"", None, b"<html>"))
        return random.choice(({"bytes": held, "path": "bad.png"}, {"bytes": held, "path": None}, None))

    odd = [text.replace("\0", "") for text in ODD_TEXTS]
    good = [(f"good-{n}", {"bytes": picture(n), "path": None}, f"label {n}", float(n)) for n in range(GOOD_ROWS)]
    bad = [
        (f"bad-{n}", cell(), random.choice((*odd, None)), random.choice((1.5, float("nan"), float("inf"), None)))
        for n in range(rows)
    ]
    columns = [list(column) for column in zip(*good, *bad, strict=True)]  # an image's name tells its row's number
    kinds = pa.string(), pa.struct([("bytes", pa.binary()), ("path", pa.string())]), pa.string(), pa.float64()
    arrays = [pa.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
    (folder / "table").mkdir()
    pq.write_table(pa.table(arrays, ["id", "image", "label", "score"]), folder / "table/train.parquet")
    return Batch({"kind": "parquet", "path": str(folder / "table")}, len(good) + len(bad))


def pictures(folder: Path, random: random.Random, rows: int) -> Batch:
    """Rows about damaged pictures of all formats, some under another format's name."""
    bad = []
    for number in range(rows):
        kind = random.choice(PICTURES)
        data = picture(random.randrange(9), kind, random.choice(((48, 36), (1, 1), (300, 7))))
        for _ in range(random.randint(1, 3)):
            data = mutated_bytes(data, random)
        name = f"bad-{number}.{random.choice((kind.lower(), 'png', 'jpg'))}"
        (folder / name).write_bytes(data)
        bad.append(json.dumps({"id": f"bad-{number}", "image": name, **said("What?", "a thing")}).encode())
    return json_lines(folder, [json.dumps(row).encode() for row in good_rows()], bad)


def videos(folder: Path, random: random.Random, rows: int) -> Batch:
    """Rows about damaged videos in several containers and codecs, some with times or boxes."""
    bad = []
    for number in range(rows):
        ending, codec = random.choice(VIDEOS)
        data = video(ending, codec)
        for _ in range(random.randint(1, 3)):
            data = mutated_bytes(data, random)
        name = f"bad-{number}.{ending}"
        (folder / name).write_bytes(data)
        more = random.choice(({}, {"start_time": 0.3, "end_time": 0.9}, {"bbox_map": {"2": [1, 1, 30, 30]}}))
        bad.append(json.dumps({"id": f"bad-{number}", "video": name, **more, **said("What?", "it moves")}).encode())
    return json_lines(folder, [json.dumps(row).encode() for row in good_rows()], bad)


# kind -> how a batch of it is made; each is also made without bad rows, to compare with.
ROW_KINDS: dict[str, Callable[[Path, random.Random, int], Batch]] = {
    "jsonl": jsonl,
    "csv": lambda folder, random, rows: table(folder, random, rows, "csv", ","),
    "tsv": lambda folder, random, rows: table(folder, random, rows, "tsv", "\t"),
    "parquet": parquet,
}
KINDS = ROW_KINDS | {"pictures": pictures, "videos": videos}
