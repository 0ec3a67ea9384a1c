"""Asks a judge: what it has said is found again, what may yet succeed is tried again, and the number of calls has an end."""

from __future__ import annotations

import contextlib
import math
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from pydantic import SecretStr

from components.evaluate.judge.endpoint import Endpoint
from components.evaluate.judge.failures import JudgeUnavailable, TryAgain, Unanswered
from components.evaluate.judge.settings import JudgeConfig
from components.evaluate.judge.verdicts import Verdicts, question_key

IN_A_ROW = 10  # questions without an answer after which the endpoint counts as gone
STRIPES = 4096  # locks of questions; two questions share one so seldom that it costs nothing


@dataclass(frozen=True)
class Waits:
    """Seconds between two calls for one question: doubled each time, at most `longest_s`; shortened at random by up to
    half, so that threads do not come back together. What an endpoint asks for counts up to `longest_asked_s`."""

    first_s: float = 0.5
    longest_s: float = 30.0
    longest_asked_s: float = 60.0

    def after(self, attempt: int, asked_s: float | None) -> float:
        """The wait after a failed attempt (0 = the first one): 0.5, 1, 2, 4 … 30 s, less what chance takes."""
        own = min(self.first_s * 2.0**attempt, self.longest_s) * random.uniform(0.5, 1.0)
        if asked_s is None or math.isnan(asked_s):
            return own
        return max(own, min(asked_s, self.longest_asked_s))


@dataclass(frozen=True)
class Answer:
    """A chat completion as the endpoint gave it, and whether it was there before."""

    reply: Mapping[str, Any]
    kept_before: bool

    @property
    def text(self) -> str:
        return text_of(self.reply)

    @property
    def complete(self) -> bool:
        return is_complete(self.reply)


class JudgeClient:
    """Asks the model of the settings; threads may share it. A context manager.

    Once it has raised JudgeUnavailable, or is closed, it sends nothing more: questions that wait are given up for the same
    reason, and only kept verdicts are still found.
    """

    def __init__(
        self, settings: JudgeConfig, key: SecretStr | None, verdicts: Verdicts, waits: Waits | None = None
    ) -> None:
        self.settings = settings
        self._endpoint = Endpoint(settings, key)
        self._verdicts = verdicts
        self._waits = waits or Waits()
        self._slots = threading.BoundedSemaphore(settings.parallel)
        self._stripes = tuple(threading.Lock() for _ in range(STRIPES))
        self._counting = threading.Lock()
        self._ended = threading.Event()
        self._end_reason = ""
        self._calls = 0
        self._failed_in_a_row = 0

    @property
    def calls(self) -> int:
        """Calls sent so far, repeated ones counted."""
        return self._calls

    def ask(self, body: Mapping[str, Any], accept: Callable[[str], bool] = bool) -> Answer:
        """The judge's answer to a chat-completions request, whose `model` is replaced by that of the settings.

        Kept, and found again, is an answer that is complete and that `accept` takes. The same question is under way once
        at a time. Raises Unanswered for this question, JudgeUnavailable where no other would fare better.
        """
        asked = adapted(body, self.settings)
        key = question_key(asked)
        with self._stripes[int(key[:8], 16) % STRIPES]:
            kept = self._verdicts.find(key)
            if kept is not None and is_complete(kept) and accept(text_of(kept)):
                return Answer(kept, kept_before=True)
            reply = self._counted_reply(asked)
            if is_complete(reply) and accept(text_of(reply)):
                self._verdicts.keep(key, reply)
            return Answer(reply, kept_before=False)

    def close(self) -> None:
        self._end("the judge is no longer asked, the evaluation has ended")
        self._endpoint.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _counted_reply(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The endpoint's reply; many questions in a row without one are the endpoint's fault, not theirs."""
        try:
            reply = self._reply(body)
        except JudgeUnavailable as error:
            self._end(str(error))
            raise
        except Unanswered as error:
            if self._failed(error):
                raise JudgeUnavailable(self._end_reason) from None
            raise
        with self._counting:
            self._failed_in_a_row = 0
        return reply

    def _failed(self, error: Unanswered) -> bool:
        """Count a question without an answer; whether that was the last one that is asked."""
        with self._counting:
            self._failed_in_a_row += 1
            gone = self._failed_in_a_row >= IN_A_ROW
        if gone:
            self._end(
                f"{IN_A_ROW} questions in a row got no answer, the last one: {error}; see to the endpoint and start again, "
                "what it has said is kept"
            )
        return gone

    def _end(self, reason: str) -> None:
        """Send nothing from now on; the first reason stays."""
        with self._counting:
            self._end_reason = self._end_reason or reason
        self._ended.set()

    def _reply(self, body: Mapping[str, Any]) -> dict[str, Any]:
        attempts = self.settings.retries + 1
        for attempt in range(attempts):
            try:
                with self._sending():
                    return self._endpoint.send(body)
            except TryAgain as error:
                reason, wait = str(error), self._waits.after(attempt, error.wait_s)
            if attempt + 1 < attempts:
                self._ended.wait(wait)
        raise Unanswered(f"{reason} ({attempts} calls)")

    @contextlib.contextmanager
    def _sending(self) -> Iterator[None]:
        """One of the calls that may be under way at the same time, and of those that may be made at all."""
        with self._slots:
            most = self.settings.max_calls
            with self._counting:
                if self._end_reason:
                    raise JudgeUnavailable(self._end_reason)
                if self._calls >= most:
                    raise JudgeUnavailable(f"evaluate.judge.max_calls={most} are used up; raise it")
                self._calls += 1
            yield


def adapted(body: Mapping[str, Any], settings: JudgeConfig) -> dict[str, Any]:
    """A request for the model of the settings; a reasoning model has max_completion_tokens and no temperature."""
    asked = {**body, "model": settings.model}
    if settings.reasoning:
        asked.pop("temperature", None)
        longest = asked.pop("max_tokens", None)
        if longest is not None:
            asked.setdefault("max_completion_tokens", longest)
    return asked


def text_of(reply: Mapping[str, Any]) -> str:
    """The text of a reply's first choice."""
    return str(reply["choices"][0]["message"].get("content") or "")


def is_complete(reply: Mapping[str, Any]) -> bool:
    """Whether the model ended each choice by itself, not at a limit or a filter, and said something."""
    return all(
        choice.get("finish_reason") == "stop" and (choice["message"].get("content") or "").strip()
        for choice in reply["choices"]
    )
