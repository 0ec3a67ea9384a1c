"""How a judge fails: for one question, for the moment, or for all of them."""

from __future__ import annotations

from components.errors import UserError


class JudgeUnavailable(UserError):
    """No further question gets an answer; the message says why and what to do. Verdicts given before are kept."""


class Unanswered(Exception):
    """One question got no answer; the text is one line that says why."""


class TryAgain(Unanswered):
    """One call failed in a way that another may not. `wait_s`: seconds that the endpoint asks to wait, if it does."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s
