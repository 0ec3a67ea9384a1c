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

from components.errors import UserError
from components.formats.templates import parse_template
from components.pipeline.config import PipelineConfig
from components.preflight.finding import Finding

STEP = "ingest"
HEAD_BYTES = 1 << 16


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
        for text in config.ingest.source.problems():
            yield Finding(text, step=STEP)
    except UserError as error:
        yield Finding(str(error), step=STEP)


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
    head = config.ingest.source.head(HEAD_BYTES)
    if head is None:
        return Peek()
    if head.columns:
        return Peek(head.columns, not {"conversations", "messages"} & set(head.columns), head.file)
    return _of_text(head.data, head.file) if head.data else Peek()


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
