"""Which side a row is on where the data say it themselves: by a split's name, or by the data set that it comes from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from components.convert.settings import ConvertConfig
from components.errors import Unusable
from components.ingest.parts import Part
from components.ingest.sources.parquet_files import HELD_OUT as HELD_OUT_WORDS
from components.ingest.sources.parquet_files import TRAIN as TRAINING_WORDS

TEST, TRAIN = "test", "train"  # the two sides


@dataclass(frozen=True)
class Place:
    """Where a row goes. `side` is None where the fraction decides, and the name of a split that is left out.

    Rows of one `group` go to one side.
    """

    side: str | None = None
    group: str | None = None

    @property
    def left_out(self) -> bool:
        return self.side not in (None, TEST, TRAIN)


def place_of(config: ConvertConfig, part: Part, file: str, values: Mapping[str, Any]) -> Place:
    """Where a row of a file goes. Unusable when a column that decides has no value in it."""
    group = None if config.group_column is None else text_in(values, config.group_column, "convert.group_column")
    if config.test is None:
        return Place(None, group)
    if config.test.source is not None:
        return Place(TEST if part.source == config.test.source else TRAIN, group)
    named = split_of_file(file, config.test.split or "")
    if config.test.column is not None:
        named = text_in(values, config.test.column, "convert.test.column")
    if named == config.test.split:
        return Place(TEST, group)
    return Place(TRAIN if named.lower() in TRAINING_WORDS else f"split {named}", group)


def split_of_file(name: str, wanted: str) -> str:
    """The split that a file's name, or else a folder's, says: `data/test-00000-of-00001` is of `test`; else `train`."""
    for part in reversed(PurePosixPath(name.lower()).parts):
        words = set(re.split("[^a-z0-9_]+", part.rpartition(".")[0] or part))
        if wanted.lower() in words:
            return wanted
        if words & TRAINING_WORDS:
            return TRAIN
        if found := sorted(words & HELD_OUT_WORDS):
            return found[0]
    return TRAIN


def text_in(values: Mapping[str, Any], column: str, key: str) -> str:
    value = values.get(column)
    if value is None or value == "":
        raise Unusable(f"has no value in the column {column!r} of {key}")
    return str(value)
