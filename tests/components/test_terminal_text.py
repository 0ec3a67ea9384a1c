"""What others wrote moves no cursor, sets no title and fills no clipboard, wherever it is printed."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from components.terminal_text import one_line, visible
from flows.cli import main
from flows.commands.generate import Screen
from flows.run.progress import Progress

pytestmark = pytest.mark.case("R14")
CLIPBOARD, TITLE, CLEAR, C1 = "\x1b]52;c;aGk=\x07", "\x1b]0;mine\x07", "\x1b[2J\x1b[H", "\x9b2J"
EVIL = f"a{CLIPBOARD}b{TITLE}c{CLEAR}d{C1}e\rf\x08g\u202eh"
SHOWN = r"a\x1b]52;c;aGk=\x07b\x1b]0;mine\x07c\x1b[2J\x1b[Hd\x9b2Je\x0df\x08g\u202eh"


def test_every_control_character_is_spelled_and_all_else_stays() -> None:
    assert visible(EVIL) == SHOWN
    assert visible("über\n\t漢字 🙂 é\u200d") == "über\n\t漢字 🙂 é\u200d"
    assert one_line("a\r\nb\nc\td") == "a b c d" and visible("\udcff") == r"\udcff"


def test_an_answer_is_shown_piece_by_piece(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    for character in f"{EVIL}\nnext":
        screen.show(character)
    screen.close([f"note {EVIL}"])
    out, err = capsys.readouterr()
    assert out == f"Generation:\n{SHOWN}\nnext\n" and err == f"warning: note {SHOWN}\n"


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_lines_hold_nothing_but_our_own_erasing(terminal: bool) -> None:
    stream = io.StringIO()
    stream.isatty = lambda: terminal  # type: ignore[method-assign]
    progress = Progress(stream)
    progress.update("train", EVIL)
    progress.say("train", f"{EVIL}\n{EVIL}")
    written = stream.getvalue().replace("\r\x1b[2K", "")
    assert "\x1b" not in written and "\r" not in written and written.count(SHOWN) == 3
    assert f"{SHOWN} {SHOWN}\n" in written


def test_error_lines_show_what_a_file_is_called(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--from", f"{tmp_path}/{TITLE}", "--to", f"{tmp_path}/x", "--format", "hf"]) == 2
    err = capsys.readouterr().err
    assert r"\x1b]0;mine\x07" in err and "\x1b" not in err and "\x07" not in err
