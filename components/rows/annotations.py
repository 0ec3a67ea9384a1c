"""Annotation files (CSV, TSV, JSONL) as rows with line numbers; what is not a row becomes a `Rejected` with the reason."""

from __future__ import annotations

import codecs
import json
import posixpath
from collections import Counter
from collections.abc import Iterator
from typing import IO, Any

from components.errors import UserError
from components.media_files.path import shown
from components.rows.row import Rejected, Row, cut, require_text_file
from components.rows.table import DELIMITERS, Required, table_rows

JSON_LINES = (".jsonl", ".ndjson")
ARRAY = "a JSON array; write one object a line, such as by `jq -c '.[]' FILE`"
CURES = {
    ".json": ": `jq -c '.[]' FILE.json > FILE.jsonl` makes an object a line of a JSON array",
    ".xlsx": "; save it as CSV UTF-8",
    ".xls": "; save it as CSV UTF-8",
    ".parquet": "; `kind: parquet` reads it",
    ".gz": "; unpack it",
    ".zip": "; unpack it",
    ".zst": "; unpack it",
}
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
MAX_DEPTH = 400  # of lists and objects in each other; JSON's own reader and writer end at about 1,000


def read_rows(raw: IO[bytes], name: str, image_column: str, columns: Required = ()) -> Iterator[Row | Rejected]:
    """Rows of an annotation file; `name` decides the format and stands in messages.

    Raises UserError for an unknown format, a file that is not UTF-8 text, and for a CSV whose header lacks one of `columns`
    or one that names files (`image_column`), or has a column twice.
    """
    suffix = posixpath.splitext(name)[1].lower()
    if suffix in JSON_LINES:
        return _json_rows(raw, name)
    if suffix in DELIMITERS:
        return table_rows(raw, name, DELIMITERS[suffix], image_column, columns)
    raise UserError(
        f"{name}: annotations must be one of {', '.join((*DELIMITERS, *JSON_LINES))}{CURES.get(suffix, '')}"
    )


def _json_rows(raw: IO[bytes], name: str) -> Iterator[Row | Rejected]:
    for line, data in enumerate(raw, start=1):
        if line == 1 and (data[:2] in UTF16_MARKS or b"\0" in data[:4]):
            require_text_file(data, name)
        data = data.removeprefix(b"\xef\xbb\xbf").strip()
        if not data:
            continue
        try:
            yield Row(line, parse_object(data))
        except ValueError as error:
            yield Rejected(name, line, str(error), cut(data.decode("utf-8", "replace")))


def parse_object(data: bytes) -> dict[str, Any]:
    """The JSON object of a line. ValueError for anything else, and for what cannot be written as JSON again."""
    try:
        values = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_each_once)
        if data.count(b"[") + data.count(b"{") > MAX_DEPTH and depth_of(values) > MAX_DEPTH:
            raise RecursionError
        # Half a surrogate pair and 1e999 parse but cannot be written.
        json.dumps(values, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except RecursionError:
        raise ValueError(f"lists and objects stand in each other more than {MAX_DEPTH} deep") from None
    except ValueError as error:
        if data == b"[":
            raise ValueError(ARRAY) from None
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"not a JSON object but {ARRAY}" if isinstance(values, list) else "not a JSON object")
    return values


def depth_of(values: Any) -> int:
    """How deep lists and objects stand in each other."""
    depth, level = 0, [values]
    while level := [value for value in level if isinstance(value, list | dict)]:
        depth += 1
        level = [inner for value in level for inner in (value.values() if isinstance(value, dict) else value)]
    return depth


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {shown(twice)} stands twice")
    return values


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")
