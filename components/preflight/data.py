"""Whether the source is there, and its rows have the columns that the config names; only the first bytes are read."""

from __future__ import annotations

import contextlib
import csv
import difflib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from components.convert.templates import parse_template
from components.errors import UserError
from components.ingest.settings import DigitsSource, FolderSource, ParquetSource, PlmSource, S3Source
from components.pipeline.config import PipelineConfig
from components.preflight.finding import Finding

STEP = "ingest"
HEAD_BYTES = 1 << 16
DIGITS_COLUMNS = ("image", "label")


@dataclass(frozen=True)
class Peek:
    """What the first bytes of the annotations show: the columns, None where they cannot be told; and whether a question
    and an answer are filled in by the config, not brought by the rows. `whole`: later rows can have no other columns."""

    columns: tuple[str, ...] | None = None
    filled: bool = False
    file: str = ""
    whole: bool = True


def source(config: PipelineConfig) -> Iterator[Finding]:
    """The source and its annotations are there, a data set of the hub is one commit."""
    try:
        for text in _source(config):
            yield Finding(text, step=STEP)
    except UserError as error:
        yield Finding(str(error), step=STEP)


def _source(config: PipelineConfig) -> Iterator[str]:
    from components.ingest.sources.catalogue import data_sets
    from components.ingest.sources.folder import data_folder
    from plm_model.checkpoint.hub import HubError, pinned

    given = config.ingest.source
    if isinstance(given, FolderSource):
        if not (data_folder(given.path) / given.annotations).is_file():
            yield f"ingest.source.annotations: {given.path}/{given.annotations}: no such file"
    elif isinstance(given, PlmSource):
        data_sets(given)
    elif isinstance(given, ParquetSource) and not Path(given.path).exists():
        try:
            pinned(given.path, "datasets/")
        except HubError as error:
            yield f"ingest.source.path: {error}"


def columns(config: PipelineConfig) -> Iterator[Finding]:
    """Each column that the config names by itself is in the header."""
    seen = peek(config)
    if not seen.columns or not seen.filled:
        return
    convert, default = config.convert, type(config.convert)()
    named = {"convert.question_column": convert.question_column}
    if config.ingest.image_column != type(config.ingest)().image_column:
        named["ingest.image_column"] = config.ingest.image_column
    if convert.answer_column != default.answer_column:
        named["convert.answer_column"] = convert.answer_column
    try:
        template = parse_template(convert.answer, {"answer": ""}, "convert.answer").columns
    except UserError as error:
        yield Finding(str(error), step="convert")
        return
    wanted = [(key, name) for key, name in named.items() if name] + [
        ("convert.answer", name) for name in template if name
    ]
    for key, name in wanted:
        if name not in seen.columns:
            near = difflib.get_close_matches(name, seen.columns, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(map(repr, seen.columns))}"
            yield Finding(f"{key}: {seen.file} has no column {name!r}; {hint}", seen.whole, "convert")


def peek(config: PipelineConfig) -> Peek:
    """A look at the first annotations; empty where they cannot be read in this way, which is for the ingest to say."""
    given = config.ingest.source
    if isinstance(given, DigitsSource):
        return Peek(DIGITS_COLUMNS, True, "the digits")
    if isinstance(given, ParquetSource):
        return _of_parquet(given)
    if not isinstance(given, FolderSource | S3Source):
        return Peek()
    place = given.path if isinstance(given, FolderSource) else given.uri.rstrip("/")
    head = _head(f"{place}/{given.annotations}")
    return _of_text(head, given.annotations) if head else Peek()


def _head(uri: str) -> bytes:
    from components.artifacts.artifact import filesystem

    try:
        if "://" not in uri:
            with Path(uri).expanduser().open("rb") as file:
                return file.read(HEAD_BYTES)
        fs, path = filesystem(uri)
        return fs.cat_file(path, 0, HEAD_BYTES)
    except Exception:  # OSError, botocore: the ingest says it with its own words
        return b""


def _of_text(head: bytes, name: str) -> Peek:
    suffix = Path(name).suffix.lower()
    try:
        text = head.decode("utf-8-sig", "ignore")
        if suffix in (".jsonl", ".ndjson"):
            return _of_json_lines(text.splitlines(), name, whole=len(head) < HEAD_BYTES)
        header = next(csv.reader(io.StringIO(text), delimiter={".csv": ",", ".tsv": "\t"}[suffix]))
    except (ValueError, KeyError, IndexError, AttributeError, StopIteration, csv.Error):
        return Peek()
    return Peek(tuple(header), True, name) if len(header) > 1 else Peek()


def _of_json_lines(lines: list[str], name: str, whole: bool) -> Peek:
    keys: dict[str, None] = {}
    for line in lines if whole else lines[:-1]:  # the last one may be cut
        with contextlib.suppress(ValueError, AttributeError, RecursionError):  # a bad row is the ingest's to reject
            keys |= dict.fromkeys(json.loads(line).keys())
    said = {"conversations", "messages", "text"} & keys.keys() or {"question", "answer"} <= keys.keys()
    return Peek(tuple(keys), not said, name, whole)


def _of_parquet(given: ParquetSource) -> Peek:
    try:
        from pyarrow.parquet import read_schema

        file = next(iter(sorted(Path(given.path).glob(given.files or "**/*.parquet"))))
        names = tuple(read_schema(file).names)
    except Exception:  # pyarrow's families; not there, or damaged: the ingest names it
        return Peek()
    return Peek(names, not {"conversations", "messages"} & set(names), file.name)
