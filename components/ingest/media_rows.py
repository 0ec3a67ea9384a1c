"""Rows whose media are named as the artifact names them: "" is none, an absolute path below the root is a relative one.

Ingest and convert read annotation files through this, so that they agree on which rows there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

from components.ingest.annotations import read_rows
from components.ingest.media_keys import VIDEO, with_usual_keys
from components.ingest.row import BadRow, Row
from components.ingest.table import Required
from components.media_files.path import OutsideRoot, path_below


def rows_with_paths(
    raw: IO[bytes],
    name: str,
    image_column: str,
    columns: Required = (),
    roots: Sequence[str] = (),
    refused: Mapping[int, str] | None = None,
) -> Iterator[Row | BadRow]:
    """The rows of an annotation file, as `read_rows` gives them, with paths relative to the data root.

    `roots` are the ways in which absolute paths spell that root; `refused` are lines that are bad rows for a known reason.
    """
    for row in read_rows(raw, name, image_column, columns):
        if isinstance(row, BadRow):
            yield row
        elif refused and row.line in refused:
            yield BadRow(row.line, refused[row.line], row.values)
        else:
            try:
                yield with_paths(row, image_column, roots)
            except OutsideRoot as error:
                yield BadRow(row.line, str(error), row.values)


def with_paths(row: Row, image_column: str, roots: Sequence[str] = ()) -> Row:
    """The row with its media's paths in normal form, under `image_column` and `video`, and None for an empty text or list.

    OutsideRoot for what is no path.
    """
    values = with_usual_keys(row.values, image_column)
    changed = {key: in_normal_form(values[key], roots) for key in {image_column, VIDEO} if key in values}
    return Row(row.line, {**values, **changed})


def in_normal_form(value: Any, roots: Sequence[str]) -> Any:
    if isinstance(value, list):
        return [in_normal_form(each, roots) for each in value] or None
    if not isinstance(value, str):
        return value
    return path_below(value, roots) if value.strip() else None


def images_of(row: Row, column: str) -> list[str]:
    """The image names in a column: one string or a list of them; anything else counts as none."""
    value = row.values.get(column)
    names = value if isinstance(value, list) else [value]
    return [name for name in names if isinstance(name, str) and name]


def media_of(row: Row, image_column: str) -> list[str]:
    """The files that a row `with_paths` shows, each once: its images, or where it has none, its video."""
    return list(dict.fromkeys(images_of(row, image_column) or images_of(row, VIDEO)))
