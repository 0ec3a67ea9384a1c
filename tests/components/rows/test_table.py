"""Tables of labels as people's programs write them: every line is a row or a reject, and the text is what the file says."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from components.errors import UserError
from components.rows.annotations import read_rows
from components.rows.row import Rejected, Row

pytestmark = pytest.mark.case("D14")

NO_END = "a quote opens that its line does not close"
BEHIND = "a field goes on behind its closing quote"


def read(text: str | bytes, name: str = "labels.csv", columns: tuple[str, ...] = ("label",)) -> list[Row | Rejected]:
    raw = text if isinstance(text, bytes) else text.encode()
    return list(read_rows(io.BytesIO(raw), name, "image", columns))


def labels(rows: list[Row | Rejected]) -> list[tuple[int, str, str]]:
    """(line, image, label) of each row; (line, "!", the reason's beginning) of each that is bad."""
    return [
        (row.line, row.values["image"], row.values["label"])
        if isinstance(row, Row)
        else (row.line, "!", row.reason.partition(";")[0].partition(":")[0])
        for row in rows
    ]


TABLES = {
    "a lone quote that a later one seems to close": (
        'image,label\n0.png,"wide\n1.png,cat\n2.png,dog\n3.png,tall"\n4.png,bird\n',
        [
            (2, "!", NO_END),
            (3, "1.png", "cat"),
            (4, "2.png", "dog"),
            (5, "3.png", 'tall"'),
            (6, "4.png", "bird"),
        ],
    ),
    "a lone quote before an inch": (
        'image,label\n0.png,"5 inch nail\n1.png,cat\n3.png,7 inch" nail\n4.png,bird\n',
        [(2, "!", NO_END), (3, "1.png", "cat"), (4, "3.png", '7 inch" nail'), (5, "4.png", "bird")],
    ),
    "a quote that nothing closes": (
        'image,label\n0.png,a\n1.png,"5 inch\n2.png,dog\n',
        [(2, "0.png", "a"), (3, "!", NO_END), (4, "2.png", "dog")],
    ),
    "a lone quote where names have no ending": (
        'label,image\n"wide,img/000\ncat,img/001\ntall",img/002\n',
        [(2, "!", NO_END), (3, "img/001", "cat"), (4, "img/002", 'tall"')],
    ),
    "quoted text of several lines": (
        'image,label\n0.png,"line one of 0.png\nline two, with ""quotes"""\n1.png,"a\n\nb"\n',
        [(2, "0.png", 'line one of 0.png\nline two, with "quotes"'), (4, "1.png", "a\n\nb")],
    ),
    "quoted text of several lines before the name": (
        'label,image\n"one, and more\ntwo",0.png\nthree,1.png\n',
        [(2, "0.png", "one, and more\ntwo"), (4, "1.png", "three")],
    ),
    "text behind a quoted field": (
        'image,label\n0.png,"Big" sign\n1.png,cat\n',
        [(2, "!", BEHIND), (3, "1.png", "cat")],
    ),
    "quotes in the middle of a field": ('image,label\n0.png,5" nail\n', [(2, "0.png", '5" nail')]),
    "a field longer than Python's csv takes": (
        "image,label\n0.png,x\n1.png," + "long " * 30_000 + '\n2.png,"' + "more " * 30_000 + '"\n',
        [(2, "0.png", "x"), (3, "1.png", "long " * 30_000), (4, "2.png", "more " * 30_000)],
    ),
    "too few and too many fields": (
        "image,label\n0.png,x\n1.png\n2.png,a,b\n3.png,\n,y\n",
        [
            (2, "0.png", "x"),
            (3, "!", "has 1 fields, the header 2"),
            (4, "!", "has 3 fields, the header 2"),
            (5, "3.png", ""),
            (6, "", "y"),
        ],
    ),
    "blank lines": ("image,label\n\n0.png,x\n\n\n1.png,y\n   \n", [(3, "0.png", "x"), (6, "1.png", "y")]),
    "a byte-order mark and CRLF": (
        "\ufeffimage,label\r\n0.png,x\r\n1.png,y\r\n",
        [(2, "0.png", "x"), (3, "1.png", "y")],
    ),
    "CR alone": ("image,label\r0.png,x\r1.png,y\r", [(2, "0.png", "x"), (3, "1.png", "y")]),
    "files of one header put together": (
        "image,label\n0.png,x\n\ufeffimage,label\n",
        [(2, "0.png", "x"), (3, "image", "label")],
    ),
    "a NUL byte": ("image,label\n0.png,x\0y\n2.png,y\n", [(2, "!", "holds a NUL byte"), (3, "2.png", "y")]),
    "text that looks like numbers": (
        "image,label\n0.png,007\n1.png,1e3\n2.png,TRUE\n3.png,NaN\n4.png,null\n",
        [(2, "0.png", "007"), (3, "1.png", "1e3"), (4, "2.png", "TRUE"), (5, "3.png", "NaN"), (6, "4.png", "null")],
    ),
    "blanks in the header": ("image, label\n0.png, x\n", [(2, "0.png", " x")]),
    "a header in quotes": ('"image","label"\n"0.png","x"\n', [(2, "0.png", "x")]),
    "Excel's line that names the separator": ("sep=;\nimage;label\n0.png;a,b\n", [(3, "0.png", "a,b")]),
    "columns without a name": ("image,label,,\n0.png,x,,\n", [(2, "0.png", "x")]),
}


@pytest.mark.parametrize("kind", TABLES)
def test_every_line_of_a_csv_is_a_row_or_a_bad_one(kind: str) -> None:
    text, expected = TABLES[kind]
    assert labels(read(text)) == expected


def test_a_line_that_is_not_utf8_is_a_bad_row_among_good_ones() -> None:
    rows = read("image,label\n0.png,x\n1.png,café\n2.png,thé\n".encode("latin-1"))
    assert labels(rows)[0] == (2, "0.png", "x")
    assert [row.reason for row in rows[1:]] == [
        "not UTF-8 text: byte 0xe9 at character 9; save the file as UTF-8",
        "not UTF-8 text: byte 0xe9 at character 8; save the file as UTF-8",
    ]


@pytest.mark.parametrize(
    "text",
    [
        'image\tlabel\n0.png\t"Big" sign\n1.png\tcat\n',
        'image\tlabel\n0.png\t"what a day\n1.png\tcat\n3.png\t"hello\n',
    ],
)
def test_a_quote_in_a_tsv_is_a_letter(text: str) -> None:
    expected = [tuple(line.split("\t")) for line in text.splitlines()[1:]]
    assert [row[1:] for row in labels(read(text, "labels.tsv"))] == expected


HEADERS = {
    "image,label,label\n0.png,a,b\n": r"^labels\.csv:1: the column 'label' stands twice in the header; rename one",
    "image,label,image\n0.png,a,1.png\n": r"^labels\.csv:1: the column 'image' stands twice",
    "image;label\n0.png;x\n": r"separated by `;`, not by `,`: put the line `sep=;` before it$",
    "image\tlabel\n0.png\tx\n": r"separated by tabs, not by `,`: name it \.tsv$",
    "0.png,x\n1.png,y\n": r"the first line is a row: write a line before it that names the columns, such as image,label",
    "Image,Label\n0.png,x\n": r"no column 'image'; it has 'Image', 'Label'; did you mean 'Image'\?$",
    "imagee,label\n0.png,x\n": r"did you mean 'imagee'\?$",
    "image,Label\n0.png,x\n": r"no column 'label'; it has 'image', 'Label'; did you mean 'Label'\?$",
    "# made by tool\nimage,label\n0.png,x\n": r"the first line is a comment: remove it",
    'image,"label\n0.png,x\n': r"^labels\.csv:1: the header cannot be read: a quote opens",
}


@pytest.mark.parametrize("text", HEADERS)
def test_a_header_that_cannot_be_is_one_line_with_the_cure(text: str) -> None:
    with pytest.raises(UserError, match=HEADERS[text]) as caught:
        read(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("code", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize(
    ("name", "text"), [("labels.csv", "image,label\n0.png,x\n"), ("r.jsonl", '{"image": "0.png"}\n')]
)
def test_utf16_is_said(code: str, name: str, text: str) -> None:
    with pytest.raises(UserError, match=rf"^{name}: UTF-(16|32) text; save it as UTF-8$"):
        read(text.encode(code), name)


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("llava.json", r"`jq -c '\.\[\]' FILE\.json > FILE\.jsonl` makes"),
        ("labels.xlsx", "save it as CSV UTF-8"),
        ("rows.jsonl.gz", "unpack it"),
        ("t.parquet", "`kind: parquet` reads it"),
    ],
)
def test_another_kind_of_file_is_refused_with_what_to_do(name: str, cure: str) -> None:
    with pytest.raises(UserError, match=rf"^{name}: annotations must be one of .*{cure}"):
        read(b"PK", name)


def test_a_workbook_that_is_called_csv_is_said() -> None:
    with pytest.raises(UserError, match=r"^labels\.csv: not text; save it as UTF-8$"):
        read(b"PK\x03\x04\x14\x00\x06\x00\x08\x00")


JSON_LINES = {
    b'{"image": "a.png", "image": "b.png"}': "not JSON: the key 'image' stands twice",
    b'{"image": "a.png", "conversations": [{"from": "human", "from": "gpt"}]}': "the key 'from' stands twice",
    b'{"image": "caf\xe9.png"}': "not JSON: 'utf-8' codec can't decode byte 0xe9",
    b'{"image": "a\x00.png"}': "not JSON: Invalid control character",
    b'{"score": NaN}': "not JSON: NaN is not a JSON number",
    b'{"score": 1e999}': "not JSON: Out of range float",
    b'{"n": ' + b"9" * 5000 + b"}": "not JSON: Exceeds the limit",
    b'{"image": "\\ud83d"}': "not JSON: .*surrogates not allowed",
    b'{"id": "two"} {"id": "objects"}': "not JSON: Extra data",
    b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}": "stand in each other more than 400 deep",
    b'{"a": ' + b"[" * 450 + b"]" * 450 + b"}": "stand in each other more than 400 deep",
    b'[{"image": "a.png"}]': "not a JSON object but a JSON array; write one object a line",
    b"[": "a JSON array; write one object a line",
    b"null": "not a JSON object",
    b"{'id': 'single_quotes'}": "not JSON: Expecting property name",
}


@pytest.mark.parametrize("line", JSON_LINES, ids=range(len(JSON_LINES)))
def test_a_line_that_is_no_json_object_is_a_bad_row_with_the_reason(line: bytes) -> None:
    good, bad, last = read(b'{"image": "0.png"}\n' + line + b'\n{"image": "1.png"}\n', "rows.jsonl")
    assert isinstance(good, Row) and isinstance(last, Row) and last.line == 3
    with pytest.raises(ValueError, match=JSON_LINES[line]):
        raise ValueError(bad.reason)
    assert bad.line == 2 and len(str(bad.row)) < 250


def test_odd_lines_of_json_are_rows() -> None:
    nested = '{"a": ' + "[" * 300 + "]" * 300 + "}"
    lines = [
        "\ufeff" + '{"a": "bom"}\r',
        "   ",
        "\ufeff" + '{"a": "in the middle"}',
        '{"a": "a\u2028b\u0085c"}',
        nested,
    ]
    rows = read("\n".join(lines), "rows.jsonl")
    assert [row.line for row in rows if isinstance(row, Row)] == [1, 3, 4, 5]
    assert rows[2].values == {"a": "a\u2028b\u0085c"}


FIELDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"), max_size=8)


def quoted(field: str) -> str:
    return '"' + field.replace('"', '""') + '"'


@given(st.lists(st.tuples(FIELDS, FIELDS), max_size=6))
@example([("", '"\r')])
def test_what_is_written_with_quotes_is_read_as_it_was(rows: list[tuple[str, str]]) -> None:
    text = "label,image\n" + "".join(f"{quoted(label)},{quoted(image)}\n" for label, image in rows)
    found = read(text)
    assert [(row.values["label"], row.values["image"]) for row in found if isinstance(row, Row)] == rows


PIECES = st.sampled_from(["a.png", "b", ",", '"', '""', "\n", "\r\n", " ", "x.png,y\n", '"z'])


@given(st.lists(PIECES, max_size=25).map("".join))
def test_rows_of_any_table_begin_on_lines_with_something_in_them(body: str) -> None:
    rows = read("image,label\n" + body)
    starts = [row.line for row in rows]
    assert starts == sorted(set(starts))
    own = ("image,label\n" + body).split("\n")
    filled = [number for number, line in enumerate(own, start=1) if line.strip(" \r") and number > 1]
    assert (starts[:1] or [None]) == (filled[:1] or [None]), "no line before the first row has anything in it"
    assert set(starts) <= set(filled)
    assert all(isinstance(row, Rejected) or len(row.values) == 2 for row in rows)


def test_counts_of_an_ingest_and_of_its_conversion_close(ingested: Callable[..., Any], tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for n in range(5):
        (data / f"{n}.png").write_bytes(b"image %d" % n)
    text = 'image,label\n0.png,"wide\n1.png,cat\n2.png\n3.png,tall"\n4.png,\n'
    (data / "labels.csv").write_text(text)
    said: list[str] = []
    raw, dataset = ingested({"kind": "folder", "path": str(data)}, said.append)
    assert {name: raw.counts[name] for name in ("rows", "used", "repaired", "rejected")} == {
        "rows": 5,
        "used": 3,
        "repaired": 0,
        "rejected": 2,
    }
    assert f"5 rows, 2 rejected, such as labels.csv:2: {NO_END}" in "\n".join(said)
    assert [(reject["line"], reject["reason"][:14]) for reject in lines(raw)] == [
        (2, NO_END[:14]),
        (4, "has 1 fields, "),
    ]
    assert (dataset.counts["rows"], dataset.counts["train"], dataset.counts["rejected"]) == (5, 2, 3)
    assert [reject["line"] for reject in lines(dataset)] == [2, 4, 6]


def lines(artifact: Any) -> Iterator[dict[str, Any]]:
    return (json.loads(line) for line in artifact.open("rejected.jsonl").read().splitlines())
