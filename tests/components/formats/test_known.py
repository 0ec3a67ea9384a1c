"""Which format a row is written in, and what ingest and convert get of it."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

import components.formats
from components.convert.settings import ConvertConfig
from components.convert.ways import Ways
from components.formats import columns, conversations, texts
from components.formats.format import Format
from components.formats.known import FORMATS, format_of
from components.rows.row import Row

TURNS = [{"from": "human", "value": "Which digit?"}, {"from": "assistant", "value": "7"}]
MESSAGES = [{"role": "user", "content": "Which digit?"}, {"role": "assistant", "content": "7"}]

EXAMPLES: list[tuple[dict[str, Any], Format, dict[str, Any]]] = [
    ({"conversations": TURNS}, conversations, {"conversations": TURNS}),
    ({"messages": MESSAGES}, conversations, {"conversations": TURNS}),
    ({"text": "a seven"}, texts, {"text": "a seven"}),
    ({"question": "Which?", "answer": "7"}, texts, {"question": "Which?", "answer": "7"}),
    (
        {"label": "7"},
        columns,
        {
            "conversations": [
                {"from": "human", "value": "What is in this image?"},
                {"from": "assistant", "value": "7"},
            ]
        },
    ),
]
IDS = ["conversations", "messages", "text", "question", "label"]


@pytest.mark.parametrize(("said", "format", "record"), EXAMPLES, ids=IDS)
def test_a_row_becomes_the_record_of_its_format(said: dict[str, Any], format: Format, record: dict[str, Any]) -> None:
    row = Row(1, {"images": "/data/./a/7.png"} | said)
    found = format_of(row.values)
    assert found is format
    assert found.media_of(row, "image") == ["/data/./a/7.png"]
    row = found.with_paths(row, "image", ["/data"])
    assert found.media_of(row, "image") == ["a/7.png"]
    way = Ways(ConvertConfig(), "image", registered=False).of(row.values)
    assert way.format is format
    assert way.format.record_of(row, "id", way) == {"id": "id", "image": "a/7.png"} | record


def test_every_format_of_the_room_is_in_the_table() -> None:
    folder = Path(next(iter(components.formats.__path__)))
    written = {
        path.stem
        for path in folder.glob("*.py")
        if any(isinstance(node, ast.FunctionDef) and node.name == "takes" for node in ast.parse(path.read_text()).body)
    }
    assert written == {format.__name__.rpartition(".")[2] for format in FORMATS}  # type: ignore[attr-defined]
