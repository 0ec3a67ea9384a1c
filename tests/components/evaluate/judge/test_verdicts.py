"""Verdicts are kept by content, whole or not at all."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from components.evaluate.judge.verdicts import Verdicts, question_key

BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "?"}], "temperature": 0, "max_tokens": 9}
KEEPS_FOR_EVER = """
import sys
from pathlib import Path
from components.evaluate.judge.verdicts import Verdicts
verdicts = Verdicts(Path(sys.argv[1]))
while True:
    verdicts.keep("ab" * 32, {"text": "x" * 1_000_000})
"""


@pytest.mark.parametrize(
    "change",
    [{"model": "n"}, {"messages": []}, {"temperature": 1}, {"max_tokens": 8}, {"seed": 1}, {"response_format": {}}],
)
def test_whatever_changes_an_answer_changes_the_key(change: dict[str, Any]) -> None:
    assert question_key({**BODY, **change}) != question_key(BODY)


def test_order_and_the_caller_s_name_change_nothing() -> None:
    assert question_key(dict(reversed(BODY.items()))) == question_key({**BODY, "user": "me"}) == question_key(BODY)


def test_text_that_is_no_unicode_has_a_key() -> None:
    assert len(question_key({"messages": "\ud800"})) == 64


def test_what_is_kept_is_found(tmp_path: Path) -> None:
    verdicts, key = Verdicts(tmp_path / "new"), question_key(BODY)
    assert verdicts.find(key) is None
    verdicts.keep(key, {"text": "ü"})
    assert Verdicts(tmp_path / "new").find(key) == {"text": "ü"}


@pytest.mark.parametrize(
    "text", ["", "{", "\0" * 100, "[]", '{"format": 1, "key": "other", "reply": {}}', "[" * 100_000]
)
def test_a_damaged_file_is_no_verdict_and_can_be_replaced(tmp_path: Path, text: str) -> None:
    verdicts, key = Verdicts(tmp_path), question_key(BODY)
    verdicts.keep(key, {})
    (path,) = tmp_path.rglob("*.json")
    path.write_text(text)
    assert verdicts.find(key) is None
    verdicts.keep(key, {"text": "new"})
    assert verdicts.find(key) == {"text": "new"}


def test_threads_keep_and_find_whole_verdicts(tmp_path: Path) -> None:
    verdicts, reply = Verdicts(tmp_path), {"text": "x" * 100_000}

    def work(_: int) -> bool:
        verdicts.keep("ab" * 32, reply)
        return verdicts.find("ab" * 32) == reply

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(64)))
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_a_writer_that_is_killed_leaves_a_whole_verdict(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", KEEPS_FOR_EVER, str(tmp_path)])
    verdicts = Verdicts(tmp_path)
    try:
        while verdicts.find("ab" * 32) is None:
            time.sleep(0.01)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert verdicts.find("ab" * 32) == {"text": "x" * 1_000_000}
