"""Parquet files with images in them, as on the Hugging Face hub, become image files and a JSONL of their rows."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from components.artifacts import ArtifactWriter
from components.config import ParquetSource
from components.errors import UserError

ROWS = "rows.jsonl"
BATCH = 64  # rows in memory at a time


def local_files(source: ParquetSource) -> dict[str, Path]:
    """The Parquet files by their path in the data set, sorted; a hub id is downloaded. UserError when there are none."""
    from plm_model.hub import HubError, dataset_directory

    try:
        folder = dataset_directory(source.path, source.files)
    except HubError as error:
        raise UserError(f"ingest.source.path: {error}") from None
    files = {file.relative_to(folder).as_posix(): file for file in sorted(folder.glob(source.files)) if file.is_file()}
    if not files:
        raise UserError(f"{source.path}: no file is called {source.files}; ingest.source.files says which to read")
    return files


def write_rows(
    source: ParquetSource, image_column: str, out: ArtifactWriter, progress: Callable[[str], None]
) -> tuple[int, int]:
    """Write `rows.jsonl` and the images that it names; how many rows and images there were."""
    rows = images = 0
    with out.open(ROWS, "w") as lines:
        for name, file in local_files(source).items():
            stem = name.removesuffix(".parquet")
            for number, row in enumerate(_rows(file, image_column)):
                names = []
                for place, image in enumerate(_images(row, image_column)):
                    names.append(_write(image, f"images/{stem}-{number:06d}{f'-{place}' if place else ''}", out))
                if names:
                    row[image_column] = names if isinstance(row[image_column], list) else names[0]
                lines.write(_line(row, f"{file}: row {number}"))
                rows, images = rows + 1, images + len(names)
                if rows % 500 == 0:
                    progress(f"{rows} rows, {images} images")
    return rows, images


def _rows(file: Path, image_column: str) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{file}: cannot be read: {str(error).splitlines()[0]}") from None
    if image_column not in table.schema_arrow.names:
        names = ", ".join(map(repr, table.schema_arrow.names))
        raise UserError(f"{file}: no column {image_column!r}; it has {names}; convert.image_column names it")
    for batch in table.iter_batches(BATCH):
        yield from batch.to_pylist()


def _images(row: Mapping[str, Any], column: str) -> list[bytes]:
    """The encoded images of a row: a cell holds the bytes, or `{bytes, path}`, or a list of them."""
    value = row[column]
    cells = value if isinstance(value, list) else [] if value is None else [value]
    found = [cell.get("bytes") if isinstance(cell, Mapping) else cell for cell in cells]
    if not all(isinstance(image, bytes) for image in found):
        raise UserError(f"column {column!r} does not hold images as bytes; give a folder with `kind: folder` instead")
    return found


def _write(image: bytes, stem: str, out: ArtifactWriter) -> str:
    name = f"{stem}.{_suffix(image)}"
    with out.open(name) as file:
        file.write(image)
    return name


def _suffix(image: bytes) -> str:
    from PIL import Image, UnidentifiedImageError

    try:
        return (Image.open(io.BytesIO(image)).format or "bin").lower()
    except (UnidentifiedImageError, OSError, ValueError):
        return "bin"  # preprocess puts the row into quarantine, with the reason


def _line(row: Mapping[str, Any], where: str) -> str:
    def text(value: Any) -> str:
        if isinstance(value, bytes):
            raise UserError(f"{where}: a column beside the image holds bytes; remove it from the file")
        return str(value)  # dates and decimals

    return json.dumps(row, ensure_ascii=False, default=text) + "\n"
