"""What a check found: a sentence with what, where and the cure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """`refuses`: a start would fail, so it is not made; else it is only said.

    `step` is the step that would meet it, where it is one: a start that does not run this step has no such problem.
    """

    text: str
    refuses: bool = True
    step: str | None = None
