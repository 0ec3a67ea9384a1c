"""A cell of a Parquet file that should hold images: the bytes, `{bytes, path}` as the hub has them, or a list of these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.errors import Unusable
from components.rows.row import cut


def images_in(value: Any) -> list[bytes]:
    """The encoded images of a cell: the bytes, or `{bytes, path}`, or a list of them. Unusable for anything else."""
    cells = value if isinstance(value, list) else [] if is_none(value) else [value]
    found: list[Any] = [cell.get("bytes") if isinstance(cell, Mapping) else cell for cell in cells]
    for place, (cell, image) in enumerate(zip(cells, found, strict=True), start=1):
        if not isinstance(image, bytes):
            which = f"image {place} of {len(cells)}" if isinstance(value, list) else "the image"
            raise Unusable(f"{which} {instead(cell)}")
    return found


def is_none(cell: Any) -> bool:
    """Whether a cell is null, or as the hub writes a null: null bytes and no path."""
    return cell is None or (isinstance(cell, Mapping) and cell.get("bytes") is None and cell.get("path") is None)


def instead(cell: Any) -> str:
    """What a cell without bytes holds, with what to do."""
    path = cell.get("path") if isinstance(cell, Mapping) else cell
    if isinstance(path, str):
        return f"has no bytes, only the name {cut(path, 80)!r}; files beside a table are read by `kind: folder`"
    return "is none" if is_none(cell) else f"is no bytes but {type(cell).__name__}"


def suffix_of(image: bytes, place: int) -> str:
    """The ending of a file for the image. Unusable when it is none."""
    from plm_model.media.image_file import ImageError, opened

    try:
        return (opened(image).format or "bin").lower()
    except ImageError as error:
        raise Unusable(f"image {place + 1}: {error}" if place else f"the image: {error}") from None


def described(value: Any) -> Any:
    """A value for the list of rejects: how many bytes, in place of them."""
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    if isinstance(value, Mapping):
        return {key: described(each) for key, each in value.items()}
    return [described(each) for each in value[:10]] if isinstance(value, list) else value
