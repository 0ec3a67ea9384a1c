"""One call of a judge's endpoint: an answer, or an error that says whether another call can help. The key is never told.

As OpenAI describes it: https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
from pydantic import SecretStr

from components.errors import UserError
from components.evaluate.judge.failures import JudgeUnavailable, TryAgain, Unanswered
from components.evaluate.judge.settings import ROUTE, JudgeConfig

LARGEST_REPLY = 1_000_000  # bytes
LONGEST_QUOTE = 300  # characters of what the endpoint says of an error
SHORTEST_SECRET = 12  # characters; a shorter key (`EMPTY`, `none`) is a word that texts may hold
MASK = "[key]"
PASSES = frozenset({408, 409, 425, 429})  # and every 5xx: the same call may succeed later


class Endpoint:
    """Calls `<base_url>/chat/completions`; threads may share it. It follows no redirect: the key stays with its host."""

    def __init__(self, settings: JudgeConfig, key: SecretStr | None) -> None:
        if not settings.base_url:
            raise UserError("evaluate.judge.base_url is not set, so that nothing can be judged; name an endpoint")
        self._settings = settings
        self._url = settings.base_url + ROUTE
        self._key = _sound_key(key, settings.key_variable)
        self._http = httpx.Client(timeout=settings.timeout_s, limits=httpx.Limits(max_connections=None))

    def send(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The endpoint's answer to a request. Raises TryAgain, Unanswered or JudgeUnavailable."""
        started = time.monotonic()
        content = json.dumps(body).encode()
        try:
            with self._http.stream("POST", self._url, content=content, headers=self._headers()) as response:
                data = self._read(response, started + self._settings.timeout_s)
        except httpx.TimeoutException:
            raise self._too_slow() from None
        except httpx.HTTPError as error:  # a refused or broken connection, or no HTTP at all
            raise TryAgain(self._said(f"{type(error).__name__}: {error}")) from None
        if response.status_code == 200:
            return self._reply(data)
        raise self._refusal(response, data)

    def close(self) -> None:
        self._http.close()

    def _headers(self) -> dict[str, str]:
        secret = {"Authorization": f"Bearer {self._key.get_secret_value()}"} if self._key else {}
        # Without compression the limit on a reply's size is one on what arrives.
        return {"Content-Type": "application/json", "Accept-Encoding": "identity", **secret}

    def _read(self, response: httpx.Response, deadline: float) -> bytes:
        """The body. httpx limits the wait for each piece; here the whole answer has a limit, in time and in size."""
        data = b""
        for piece in response.iter_raw():
            data += piece
            if len(data) > LARGEST_REPLY:
                raise Unanswered(self._said(f"its answer is longer than {LARGEST_REPLY} bytes"))
            if time.monotonic() > deadline:
                raise self._too_slow()
        return data

    def _reply(self, data: bytes) -> dict[str, Any]:
        try:
            found = self._masked(json.loads(data))
            messages = [choice["message"] for choice in found["choices"]]
            texts = [message.get("content") for message in messages]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            texts = []
        if not texts or not all(text is None or isinstance(text, str) for text in texts):
            raise TryAgain(self._said("its answer is no chat completion"))
        return dict(found)

    def _refusal(self, response: httpx.Response, data: bytes) -> Exception:
        """The error that a status stands for."""
        status, quote = response.status_code, self._masked(_message(data))[:LONGEST_QUOTE]
        said = self._said(f"HTTP {status}" + (f", {quote}" if quote else ""))
        if status in PASSES or status >= 500:
            return TryAgain(said, _asked_wait(response.headers.get("Retry-After")))
        if status in (401, 403):
            return JudgeUnavailable(
                f"{said}; set a valid key in {self._settings.key_variable}, with access to the model"
            )
        if status == 404:
            return JudgeUnavailable(
                f"{said}; it has no {ROUTE} or no model {self._settings.model}: check base_url and model"
            )
        if 300 <= status < 400:
            return JudgeUnavailable(f"{said}; redirects are not followed, give the final address as base_url")
        return Unanswered(
            f"{said}; the model may not take this question or its options, evaluate.judge.reasoning tells which it takes"
        )

    def _too_slow(self) -> TryAgain:
        return TryAgain(self._said(f"no whole answer within timeout_s={self._settings.timeout_s:g}"))

    def _said(self, text: str) -> str:
        return f"evaluate.judge.base_url={self._settings.base_url}: {self._masked(text)}"

    def _masked(self, value: Any) -> Any:
        """A JSON value without the key: an endpoint may quote it."""
        secret = self._key.get_secret_value() if self._key else ""
        if len(secret) < SHORTEST_SECRET:
            return value
        if isinstance(value, str):
            return value.replace(secret, MASK)
        if isinstance(value, list):
            return [self._masked(each) for each in value]
        if isinstance(value, dict):
            return {self._masked(name): self._masked(each) for name, each in value.items()}
        return value


def _sound_key(key: SecretStr | None, variable: str) -> SecretStr | None:
    """The key without space around it, None where it is empty. Raises UserError where no header can hold it."""
    text = key.get_secret_value().strip() if key else ""
    if not text.isascii() or not text.isprintable() or " " in text:
        raise UserError(f"the key in {variable} has spaces or characters that no key has; copy it again")
    return SecretStr(text) if text else None


def _message(data: bytes) -> str:
    """What an error's body says, in one line; empty where it holds no message."""
    try:
        error = json.loads(data)["error"]
        text = error if isinstance(error, str) else error["message"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    line = " ".join(str(text).split())
    return "".join(filter(str.isprintable, line))


def _asked_wait(header: str | None) -> float | None:
    """Seconds of a Retry-After header, which is a number or a date; None where there is none that can be read."""
    if not header:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
