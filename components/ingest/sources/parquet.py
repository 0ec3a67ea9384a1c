"""Parquet files with images in them, as on the Hugging Face hub, become image files and a JSONL of their rows.

A cell that cannot be used is a row of the list of rejects, with its file and its number, from 1; what ends the step is a file
that is damaged itself. Columns that hold bytes beside the images are left out.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from components.artifacts.artifact import ArtifactWriter
from components.artifacts.context import StepContext
from components.errors import Unusable, UserError
from components.ingest.parts import Part
from components.ingest.sources.folder import source_file
from components.ingest.sources.origin import Check, Head, digest_of_files
from components.ingest.sources.parquet_cells import described, images_in, suffix_of
from components.ingest.sources.parquet_columns import Columns, columns_of, whole_in
from components.ingest.sources.parquet_files import EVERY, chosen_files
from components.noted import Noted
from components.rows.rejected import RejectedList
from components.rows.row import Rejected, cut
from components.settings import LocalPath, Settings

ROWS = "rows.jsonl"
BATCH = 64  # rows in memory at a time


class ParquetSource(Settings):
    """Parquet files with images in them, of a folder or of a data set on the Hugging Face hub."""

    on_disk: ClassVar[bool] = True

    kind: Literal["parquet"] = "parquet"
    path: LocalPath = Field(description="a folder, or owner/name@commit")
    files: str | None = Field(
        None,
        description="which files below it, such as data/train-*.parquet; default: all but a test or validation split",
    )
    check: Check = "times"

    def fingerprint(self) -> str:
        """Digest of the names, sizes and versions of its files; of a data set of the hub, its commit."""
        folder = Path(self.path)
        if not folder.is_dir():
            return f"hub data set {self.path}"
        found = (file for file in sorted(folder.glob(self.files or EVERY)) if file.is_file())
        return digest_of_files(source_file(str(file), file, self.check) for file in found)

    def bring(self, image_column: str, out: ArtifactWriter, context: StepContext) -> list[Part]:
        """The images and the rows."""
        return [write_rows(self, image_column, out, context)]

    def problems(self) -> Iterator[str]:
        """Neither a folder nor one commit of the hub."""
        from plm_model.model_directory.hub import HubError, pinned

        if not Path(self.path).exists():
            try:
                pinned(self.path, "datasets/")
            except HubError as error:
                yield f"ingest.source.path: {error}"

    def head(self, most: int) -> Head | None:
        """The columns of the first file."""
        try:
            from pyarrow.parquet import read_schema

            file = next(iter(sorted(Path(self.path).glob(self.files or EVERY))))
            return Head(file.name, columns=tuple(read_schema(file).names))
        except Exception:  # pyarrow's families; not there, or damaged: the ingest names it
            return None


@dataclass
class ParquetRows:
    """Writes the rows of Parquet files into an artifact, and counts them."""

    image_column: str
    out: ArtifactWriter
    rejects: RejectedList
    rows: int = 0
    images: int = 0
    noted: Noted = field(default_factory=Noted)
    places: list[tuple[int, str, int]] = field(default_factory=list)  # as in Part

    def write(self, name: str, number: int, row: dict[str, Any] | str, columns: Columns, lines: Any) -> None:
        """Write one row, `number` in its file from 1; a text instead of a row says why it cannot be read."""
        self.rows += 1
        try:
            if isinstance(row, str):
                raise Unusable(row)
            values, odd = columns.clean({key: value for key, value in row.items() if key != self.image_column})
            images = [(data, suffix_of(data, place)) for place, data in enumerate(images_in(row[self.image_column]))]
            line = json.dumps(row | values | self._named(name, number, row, images), ensure_ascii=False, default=str)
            line.encode("utf-8")
        except (ValueError, RecursionError) as error:
            shown = {key: described(value) for key, value in row.items()} if isinstance(row, dict) else None
            self.rejects.add(Rejected(name, number, " ".join(str(error).split()), shown))
            return
        stem = image_stem(name, number)
        for place, (data, suffix) in enumerate(images):
            with self.out.open(image_name(stem, place, suffix)) as file:
                file.write(data)
        written = self.rows - self.rejects.count
        if not self.places or self.places[-1][1] != name or written - self.places[-1][0] != number - self.places[-1][2]:
            self.places.append((written, name, number))
        self.noted.add(["not_a_number"] if odd else [], f"{name}:{number}")
        self.images += len(images)
        lines.write(line + "\n")

    def _named(self, name: str, number: int, row: Mapping[str, Any], images: list[tuple[bytes, str]]) -> dict[str, Any]:
        """The image column with the names of the files that the images become."""
        names = [image_name(image_stem(name, number), place, suffix) for place, (_, suffix) in enumerate(images)]
        value = row[self.image_column]
        return {self.image_column: names if isinstance(value, list) else names[0] if names else None}


def write_rows(source: ParquetSource, image_column: str, out: ArtifactWriter, context: StepContext) -> Part:
    """Write `rows.jsonl`, the images that it names and the rejects, if any; counts and last line say all of it."""
    chosen = chosen_files(source.path, source.files)
    with RejectedList(out) as rejects:
        writing = ParquetRows(image_column, out, rejects)
        left_out = write_files(chosen.files, writing, context)
    out.counts.update(
        rows=writing.rows,
        used=writing.rows - rejects.count,
        repaired=0,
        rejected=rejects.count,
        files=writing.images + 1,
        fetched=writing.images + 1,
        reused=0,
        files_left_out=len(chosen.left_out),
        noted=writing.noted.to_json(),
    )
    bytes_left = f"columns left out, they hold bytes: {', '.join(map(repr, left_out))}" if left_out else ""
    found = f"{writing.rows} rows, {writing.images} images, {rejects.said()}"
    context.progress("; ".join(filter(None, (found, writing.noted.line(), bytes_left, chosen.said()))))
    return Part(ROWS, places=tuple(writing.places))


def write_files(files: Mapping[str, Path], writing: ParquetRows, context: StepContext) -> list[str]:
    """Write the rows of all files; the columns that were left out."""
    whole = whole_columns(files)
    left_out: dict[str, None] = {}
    with writing.out.open(ROWS, "w") as lines:
        for name, file in files.items():
            with damage_named(file), opened(file) as table:
                columns = columns_of(table.schema_arrow, writing.image_column, str(file), whole)
                left_out |= dict.fromkeys(columns.left_out)
                for number, row in enumerate(rows_of(table, columns), start=1):
                    writing.write(name, number, row, columns, lines)
                    if writing.rows % 500 == 0:
                        context.progress(f"{writing.rows} rows, {writing.images} images")
    return list(left_out)


def whole_columns(files: Mapping[str, Path]) -> frozenset[str]:
    """The columns of floats whose numbers are whole in every file that has them."""
    whole: set[str] = set()
    other: set[str] = set()
    for file in files.values():
        with damage_named(file), opened(file) as table:
            found = whole_in(table)
            whole |= found
            other |= set(table.schema_arrow.names) - found
    return frozenset(whole - other)


@contextlib.contextmanager
def damage_named(file: Path) -> Iterator[None]:
    """Damage of a file itself as a UserError that names it."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk
        reason = cut(" ".join(str(error).split()) or type(error).__name__)
        raise UserError(f"{file}: cannot be read: {reason}; the file is damaged: get it again") from None


def opened(file: Path) -> Any:
    """The Parquet file; pages with a checksum are compared with it."""
    import pyarrow.parquet as pq

    return pq.ParquetFile(file, page_checksum_verification=True)


def rows_of(table: Any, columns: Columns) -> Iterator[dict[str, Any] | str]:
    """The rows of a file in order; a text where a row has a value that Python cannot hold."""
    for batch in table.iter_batches(BATCH, columns=list(columns.read)):
        try:
            yield from batch.to_pylist()
        except (ValueError, OverflowError, ArithmeticError):
            yield from (row_of(batch.slice(number, 1)) for number in range(batch.num_rows))


def row_of(one: Any) -> dict[str, Any] | str:
    for name in one.schema.names:
        try:
            one[name].to_pylist()
        except (ValueError, OverflowError, ArithmeticError) as error:
            return f"column {name!r} cannot be read: {cut(str(error))}"
    row: dict[str, Any] = one.to_pylist()[0]
    return row


def image_stem(name: str, number: int) -> str:
    return f"images/{name.removesuffix('.parquet')}-{number - 1:06d}"


def image_name(stem: str, place: int, suffix: str) -> str:
    return f"{stem}{f'-{place}' if place else ''}.{suffix}"
