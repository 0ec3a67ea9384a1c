"""Annotation files (CSV, TSV, JSONL) as rows with line numbers; what is not a row becomes a `BadRow` with the reason."""

from __future__ import annotations

import csv
import io
import json
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

from components.errors import UserError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSON_LINES = (".jsonl", ".ndjson")
SHOWN_CHARACTERS = 200  # of a line that cannot be read, in reports


@dataclass(frozen=True)
class Row:
    """One annotation: the line it ends on (from 1) and its values; CSV values are strings."""

    line: int
    values: Mapping[str, Any]


@dataclass(frozen=True)
class BadRow:
    """A line that is not an annotation, and why."""

    line: int
    reason: str
    text: str


def is_json_lines(name: str) -> bool:
    return posixpath.splitext(name)[1].lower() in JSON_LINES


def read_rows(raw: IO[bytes], name: str, columns: tuple[str, ...] = ()) -> Iterator[Row | BadRow]:
    """Rows of an annotation file; `name` decides the format and stands in messages.

    Raises UserError for an unknown format, a file that is not UTF-8 CSV, or a CSV that lacks one of `columns`.
    """
    suffix = posixpath.splitext(name)[1].lower()
    if suffix in JSON_LINES:
        return _json_rows(raw)
    if suffix in DELIMITERS:
        return _csv_rows(raw, name, DELIMITERS[suffix], columns)
    raise UserError(f"{name}: annotations must be one of {', '.join((*DELIMITERS, *JSON_LINES))}")


def inside(name: str, where: str) -> str:
    """A path of an annotation row in normal form. Raises UserError when it leads out of the data root."""
    normal = posixpath.normpath(name)
    if name.startswith("/") or normal == ".." or normal.startswith("../"):
        raise UserError(f"{where}: {name!r} leads out of the data root; use a path relative to it")
    return normal


def images_of(row: Row, column: str) -> list[str]:
    """The image names in a column: one string or a list of them; anything else counts as none."""
    value = row.values.get(column)
    names = value if isinstance(value, list) else [value]
    return [name for name in names if isinstance(name, str) and name]


def _csv_rows(raw: IO[bytes], name: str, delimiter: str, columns: tuple[str, ...]) -> Iterator[Row | BadRow]:
    reader = csv.DictReader(io.TextIOWrapper(raw, encoding="utf-8-sig", newline=""), delimiter=delimiter, strict=True)
    try:
        header = reader.fieldnames or ()
        missing = [column for column in columns if column not in header]
        if header and missing:
            raise UserError(f"{name}: no column {missing[0]!r}; it has {', '.join(map(repr, header))}")
        for values in reader:
            if None in values or None in values.values():
                yield BadRow(reader.line_num, f"does not have {len(header)} fields like the header", _shown(values))
            else:
                yield Row(reader.line_num, values)
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: not UTF-8 text ({error.reason}); save it as UTF-8") from None
    except csv.Error as error:
        raise UserError(f"{name}:{reader.line_num}: not CSV: {error}") from None


def _shown(values: Mapping[Any, Any]) -> str:
    return ",".join(str(value) for value in values.values())[:SHOWN_CHARACTERS]


def _json_rows(raw: IO[bytes]) -> Iterator[Row | BadRow]:
    for line, data in enumerate(raw, start=1):
        data = data.removeprefix(b"\xef\xbb\xbf") if line == 1 else data
        if not data.strip():
            continue
        try:
            values = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
            json.dumps(values, ensure_ascii=False).encode("utf-8")  # half a surrogate pair parses but cannot be written
        except (ValueError, RecursionError) as error:
            yield BadRow(line, f"not JSON: {error}", data.decode("utf-8", "replace").strip()[:SHOWN_CHARACTERS])
            continue
        if isinstance(values, dict):
            yield Row(line, values)
        else:
            yield BadRow(line, "not a JSON object", data.decode("utf-8").strip()[:SHOWN_CHARACTERS])


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")
