"""A growing answer is shown once, in order, and nothing is shown that is taken back."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from plm_model.answers.options import GenerationOptions
from plm_model.answers.text_stream import TextStream
from plm_model.families.plm.generation import generate
from plm_model.families.plm.model import PLM
from plm_model.packs.example import Example


def shown(steps: list[str], stop: tuple[str, ...] = ()) -> list[str]:
    pieces: list[str] = []
    stream = TextStream(pieces.append, stop)
    for number, text in enumerate(steps):
        stream.update(0, text, ended=number == len(steps) - 1)
    return pieces


def test_each_character_comes_once() -> None:
    assert shown(["A", "A b", "A b", "A bird"]) == ["A", " b", "ird"]


def test_a_character_of_several_tokens_comes_when_it_is_whole() -> None:
    assert shown(["caf", "caf\ufffd", "café", "café"]) == ["caf", "é"]


def test_what_may_become_a_stop_string_waits() -> None:
    assert shown(["The E", "The East", "The East"], ("END",)) == ["The ", "East"]
    assert shown(["So E", "So EN", "So "], ("END",)) == ["So "]


def test_bytes_that_never_make_a_character_come_at_the_end() -> None:
    assert shown(["x\ufffd", "x\ufffd"]) == ["x", "\ufffd"]


@pytest.mark.parametrize("stop", [(), ("2",)])
def test_the_pieces_of_each_row_are_its_answer(
    stop: tuple[str, ...], model: PLM, make: Callable[..., tuple[Example, np.ndarray]]
) -> None:
    class Letters:
        stop_ids = (1,)

        def decode(self, ids: list[int]) -> str:
            return "".join(f"<{i}>" for i in ids)

    prompts = [make(20, seed=0), make(12, tiles=0, seed=1)]
    streams: list[list[str]] = [[], []]
    rows = [TextStream(pieces.append, stop) for pieces in streams]
    options = GenerationOptions(max_new_tokens=6, stop=stop)
    answers = generate(model, Letters(), prompts, options, on_text=lambda row, *more: rows[row].update(row, *more))
    assert ["".join(pieces) for pieces in streams] == [answer.text for answer in answers]
