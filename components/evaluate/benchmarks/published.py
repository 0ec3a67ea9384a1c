"""The questions of a benchmark as its authors publish them, whatever the format of the file: its lines, or the whole as JSON.

lmms-eval reads the files as plain text, a row for each, since their JSON is not of one type throughout and a CSV without a
header has no names. A task's `process_docs` then makes documents of them, all with the same keys.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from components.errors import UserError

Row = Mapping[str, Any]


def documents(rows: Iterable[Row]) -> Any:
    """Rows as the data set that lmms-eval asks about. UserError when there is none."""
    from datasets import Dataset

    listed = [dict(row) for row in rows]
    if not listed:
        raise UserError("the benchmark's file holds no question")
    return Dataset.from_list(listed)


def texts(files: Iterable[Row]) -> list[str]:
    """The text of each file."""
    return [row["text"] for row in files]


def json_rows(files: Iterable[Row]) -> list[dict[str, Any]]:
    """The objects of files that are JSON arrays, or JSON lines."""
    found: list[dict[str, Any]] = []
    for text in texts(files):
        if text.lstrip().startswith("["):
            found += json.loads(text)
        else:
            found += [json.loads(line) for line in text.splitlines() if line.strip()]
    return found


def csv_rows(files: Iterable[Row], names: Sequence[str]) -> list[dict[str, str]]:
    """The rows of CSV files without a header, under `names`. UserError names a row that has other columns."""
    found = []
    for text in texts(files):
        for number, row in enumerate(csv.reader(text.splitlines()), 1):
            if len(row) != len(names):
                raise UserError(
                    f"row {number} of the CSV has {len(row)} columns where {len(names)} are expected: {row}"
                )
            found.append(dict(zip(names, row, strict=True)))
    return found


def of_each_kind(files: Iterable[Row], kinds: Sequence[str], benchmark: str) -> Iterator[tuple[str, Row]]:
    """The kinds of a benchmark, each with its file. UserError when there are not as many files."""
    listed = list(files)
    if len(listed) != len(kinds):
        raise UserError(f"{benchmark} has a file for each of {', '.join(kinds)}, but {len(listed)} were read")
    return zip(kinds, listed, strict=True)


def position(key: str, of: int) -> int:
    """A place from 0 to `of` - 1 that depends on the key only, and is spread evenly over keys."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % of


def required(row: Row, *names: str) -> None:
    """UserError names the keys that a row of the published file should have and does not."""
    if missing := [name for name in names if name not in row]:
        raise UserError(f"a question of the benchmark lacks {', '.join(missing)}; it has {', '.join(row)}")
