"""Files that a row names under the usual keys: "" is none, an absolute path below the root is a relative one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from components.errors import Unusable
from components.media_files.path import path_below
from components.rows.media_keys import VIDEO, with_usual_keys
from components.rows.row import Row


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
    """The files that a row shows, each once and as it names them: its images, or where it has none, its video."""
    row = Row(row.line, with_usual_keys(row.values, image_column))
    return list(dict.fromkeys(images_of(row, image_column) or images_of(row, VIDEO)))


def with_image(row: Row, id: str, image_column: str) -> dict[str, Any]:
    """The row `with_paths` as a record: its id, its images under `image`, and all else as it stands."""
    values = {key: value for key, value in row.values.items() if value is not None or key not in ("image", "video")}
    images = values.pop(image_column, None)
    names = images_of(row, image_column)
    if images is not None and len(names) != (len(images) if isinstance(images, list) else 1):
        raise Unusable(f"`{image_column}` must be a path or a list of paths")
    record: dict[str, Any] = {"id": id}
    if images is not None:
        record["image"] = names if isinstance(images, list) else names[0]
    return record | {key: value for key, value in values.items() if key not in ("id", "image")}
