"""Tables of labels (CSV, TSV) by their lines: each that is not blank is part of one `Row`, or is `Rejected` with the reason.

A quoted field may go on over several lines. Where a quote is opened and the lines up to the next one are rows themselves, it is
a lone quote: its line is rejected and the others are read. Of

    0.png,"wide
    1.png,cat
    3.png,tall"

line 1 is rejected, `cat` and `tall"` are labels. TSV has no quoting: a quote there is a letter.
"""

from __future__ import annotations

import difflib
import io
import math
import re
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

from components.errors import UserError
from components.rows.media_keys import media_column
from components.rows.row import Rejected, Row, cut, require_text_file

DELIMITERS = {".csv": ",", ".tsv": "\t"}
SEPARATORS = {",": "`,`", ";": "`;`", "\t": "tabs", "|": "`|`"}
SEPARATOR_LINE = re.compile(r'"?sep=(.)"?', re.IGNORECASE)  # Excel's first line
QUOTED = re.compile(r'"([^"]*(?:""[^"]*)*)"')
FILE_NAME = re.compile(r".*[^/]\.\w{2,5}", re.DOTALL)
NO_BLANK = re.compile(r"\S+")
# Columns that a header must have, or what says them of a header.
Required = Sequence[str] | Callable[[Collection[str]], Sequence[str]]
LINES_OF_A_ROW = 1000  # at most
CLIP_TIMES = ("start_time", "end_time")


class Unclosed(ValueError):
    """A quoted field that does not end."""


@dataclass(frozen=True)
class TableLayout:
    """How a table is written: `columns` are its header's names, `media` the place of the column that names files."""

    file: str
    delimiter: str
    quoted: bool
    columns: tuple[str, ...]
    media: int


class Lines:
    """Lines of a text without their ends, with a look at those that come next. What is no UTF-8 comes as lone surrogates."""

    def __init__(self, raw: IO[bytes]) -> None:
        text = io.TextIOWrapper(raw, encoding="utf-8", errors="surrogateescape", newline="")
        self._lines, self._ahead = iter(text), deque[str]()
        self.number = 0

    def next(self) -> str | None:
        """The next line that is not blank, with its end; None at the end of the text."""
        while self.peek(0) is not None:
            line = self.take(1)[0]
            if line.strip(" \r\n"):
                return line
        return None

    def peek(self, place: int) -> str | None:
        """A line that comes, with its end."""
        while len(self._ahead) <= place:
            if (line := next(self._lines, None)) is None:
                return None
            self._ahead.append(line.removeprefix("\ufeff"))
        return self._ahead[place]

    def take(self, count: int) -> list[str]:
        self.number += count
        return [self._ahead.popleft() for _ in range(count)]


def table_rows(
    raw: IO[bytes], name: str, delimiter: str, image_column: str, columns: Required
) -> Iterator[Row | Rejected]:
    """The rows of a table; `columns` must be in its header, and one that names files (`media_column`).

    UserError for a header that lacks or doubles a column, and for a file that is no UTF-8 text.
    """
    lines = Lines(raw)
    quoted = delimiter != "\t"
    header = lines.next()
    if header is None:
        return
    require_text_file(header.encode("utf-8", "surrogateescape"), name)
    if quoted and (written := SEPARATOR_LINE.fullmatch(without_end(header))):
        delimiter, header = written[1], lines.next() or ""
    layout = layout_of(without_end(header), f"{name}:{lines.number}", delimiter, quoted, image_column, columns)
    while (line := lines.next()) is not None:
        yield row_of(line, lines, layout)


def layout_of(
    line: str, where: str, delimiter: str, quoted: bool, image_column: str, required: Required
) -> TableLayout:
    """The layout that a header says. UserError when it is none, or lacks what is required."""
    try:
        fields = fields_of(line, delimiter, quoted)
    except ValueError as error:
        raise UserError(f"{where}: the header cannot be read: {error}") from None
    columns = tuple(field.strip() for field in fields)
    twice = [column for column, count in Counter(columns).items() if count > 1 and column]
    if twice:
        raise UserError(f"{where}: the column {twice[0]!r} stands twice in the header; rename one of them")
    media = media_column(columns, image_column)
    for column in (media, *(required(columns) if callable(required) else required)):
        if column not in columns:
            raise UserError(f"{where.rpartition(':')[0]}: {lacks(column, columns, line, delimiter)}")
    return TableLayout(where.rpartition(":")[0], delimiter, quoted, columns, columns.index(media))


def lacks(column: str, columns: Sequence[str], line: str, delimiter: str) -> str:
    """What is said of a header that lacks a column, with the likely reason."""
    said = f"no column {column!r}; it has {', '.join(map(repr, map(cut, columns)))}"
    for other, shown in SEPARATORS.items():
        if other != delimiter and column in (field.strip(' "') for field in line.split(other)):
            ours, cure = SEPARATORS.get(delimiter, repr(delimiter)), f"put the line `sep={other}` before it"
            if "\t" in (other, delimiter):
                cure = "name it .tsv" if other == "\t" else "name it .csv"
            return f"{said}; the columns are separated by {shown}, not by {ours}: {cure}"
    if line.lstrip().startswith("#"):
        return f"{said}; the first line is a comment: remove it, the first line names the columns"
    if any(FILE_NAME.fullmatch(name) for name in columns):
        return f"{said}; the first line is a row: write a line before it that names the columns, such as image,label"
    near = [name for name in columns if name.casefold() == column.casefold()]
    near = near or difflib.get_close_matches(column, columns, n=1)
    return f"{said}; did you mean {near[0]!r}?" if near else said


def row_of(line: str, lines: Lines, layout: TableLayout) -> Row | Rejected:
    """The row that begins with a line which was just taken; takes those on which it goes on."""
    number = lines.number
    try:
        try:
            fields, text = fields_of(without_end(line), layout.delimiter, layout.quoted), line
        except Unclosed:
            fields, text = continued(line, lines, layout)
        require_text(text)
        if len(fields) != len(layout.columns):
            raise ValueError(f"has {len(fields)} fields, the header {len(layout.columns)}")
        return Row(number, with_times(dict(zip(layout.columns, fields, strict=True))))
    except ValueError as error:
        return Rejected(layout.file, number, str(error), cut(without_end(line)))


def fields_of(text: str, delimiter: str, quoted: bool) -> list[str]:
    """The fields of a row. Unclosed when a quoted one does not end, ValueError when one goes on behind its quotes."""
    if not quoted or '"' not in text:
        return text.split(delimiter)
    fields, place = [], 0
    while True:
        if text.startswith('"', place):
            found = QUOTED.match(text, place)
            # A quote behind the end would be half of a pair: the field goes on, as `"""` does where a line ends.
            if found is None or text.startswith('"', found.end()):
                raise Unclosed('a quote opens and no line closes it; inside of quotes write "" for a quote')
            fields.append(found[1].replace('""', '"'))
            place = found.end()
            if place < len(text) and text[place] != delimiter:
                raise ValueError('a field goes on behind its closing quote; inside of quotes write "" for a quote')
        else:
            end = text.find(delimiter, place)
            fields.append(text[place:] if end < 0 else text[place:end])
            place += len(fields[-1])
        if place >= len(text):
            return fields
        place += 1


def continued(line: str, lines: Lines, layout: TableLayout) -> tuple[list[str], str]:
    """Fields and text of a row whose quoted field goes on over the next lines, which are taken. Unclosed: a lone quote."""
    lone = Unclosed('a quote opens that its line does not close; inside of quotes write "" for a quote')
    text = line
    for ahead in range(LINES_OF_A_ROW):
        if (more := lines.peek(ahead)) is None:
            break
        text += more
        if '"' not in more:
            continue
        try:
            fields = fields_of(without_end(text), layout.delimiter, layout.quoted)
        except Unclosed:
            continue
        except ValueError:
            break
        if swallows(without_end(line), [without_end(lines.peek(n) or "") for n in range(ahead + 1)], layout):
            break
        lines.take(ahead + 1)
        return fields, text
    raise lone


def swallows(line: str, others: Sequence[str], layout: TableLayout) -> bool:
    """Whether a line and one of those behind it are rows by themselves: have all fields, and a file's name in its place."""
    own = media_name(line, layout)
    like = FILE_NAME if own and FILE_NAME.fullmatch(own) else NO_BLANK
    names = (media_name(each, layout) for each in others)
    return bool(own and like.fullmatch(own)) and any(name and like.fullmatch(name) for name in names)


def media_name(line: str, layout: TableLayout) -> str | None:
    """What stands in the place of a file's name in a line by itself; None when the line has not all fields."""
    try:
        fields = fields_of(line, layout.delimiter, layout.quoted)
    except ValueError:
        fields = line.split(layout.delimiter)
    return fields[layout.media].strip(' "') if len(fields) == len(layout.columns) else None


def require_text(text: str) -> None:
    """ValueError for what is no text in UTF-8."""
    if "\0" in text:
        raise ValueError("holds a NUL byte")
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        byte = ord(text[error.start]) - 0xDC00
        raise ValueError(
            f"not UTF-8 text: byte 0x{byte:02x} at character {error.start}; save the file as UTF-8"
        ) from None


def with_times(values: dict[str, Any]) -> dict[str, Any]:
    """The row with the times of its video as numbers, or none. ValueError when they are none."""
    if not values.get("video"):
        return values
    return values | {key: seconds(values[key], key) for key in CLIP_TIMES if key in values}


def seconds(text: str, key: str) -> float | None:
    if not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"`{key}` is {cut(text)!r}; it must be a number of seconds")
    return int(value) if value.is_integer() else value


def without_end(line: str) -> str:
    return line.removesuffix("\n").removesuffix("\r")
