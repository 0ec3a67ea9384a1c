"""A language model that judges answers, behind an OpenAI-compatible endpoint; a judge that gives no answer is an error."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from components.errors import UserError

PATH = "/chat/completions"
DEFAULT_MODEL = "Llama-3.3-70B-Instruct"  # the judge of PLM-VideoBench's published figures
ATTEMPTS = 4
SECONDS = 120.0  # of one request
WORTH_ANOTHER_TRY = (408, 409, 429, 500, 502, 503, 504)


class JudgeError(UserError):
    """The judge cannot be asked, or gives no answer."""


@dataclass(frozen=True)
class Judge:
    """An endpoint, up to and without `/chat/completions`, and the model that answers there; waits `pause` seconds, then
    twice as long, after a request that failed."""

    url: str
    key: str = field(repr=False)
    model: str = DEFAULT_MODEL
    pause: float = 1.0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Judge | None:
        """The judge that OPENAI_API_BASE, OPENAI_BASE_URL or OPENAI_API_URL names, with OPENAI_API_KEY and MODEL_VERSION;
        None when none is named."""
        names = ("OPENAI_API_BASE", "OPENAI_BASE_URL", "OPENAI_API_URL")
        url = next((environment[name] for name in names if environment.get(name)), None)
        if url is None:
            return None
        base = url.rstrip("/").removesuffix(PATH)
        return cls(base, environment.get("OPENAI_API_KEY", "none"), environment.get("MODEL_VERSION", DEFAULT_MODEL))

    def answer(self, question: str, max_tokens: int = 1024) -> str:
        """What the judge says to a question, at temperature 0. JudgeError when it says nothing."""
        body = {"model": self.model, "temperature": 0, "max_tokens": max_tokens}
        reply = self._post({**body, "messages": [{"role": "user", "content": question}]})
        try:
            text = reply["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            text = None
        if not text:
            raise JudgeError(f"the judge {self.model} at {self.url} answered with no text: {str(reply)[:200]}")
        return str(text).strip()

    def _post(self, body: Mapping[str, Any]) -> Any:
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.url + PATH, json.dumps(body).encode(), headers)
        for attempt in range(ATTEMPTS):
            try:
                with urllib.request.urlopen(request, timeout=SECONDS) as response:
                    return json.load(response)
            except (OSError, ValueError) as error:
                code = error.code if isinstance(error, urllib.error.HTTPError) else None
                if attempt == ATTEMPTS - 1 or (code is not None and code not in WORTH_ANOTHER_TRY):
                    raise JudgeError(f"the judge {self.model} at {self.url} cannot be asked: {error}") from None
                time.sleep(self.pause * 2**attempt)
        raise AssertionError("the last attempt returns or raises")


def required_judge() -> Judge:
    """The judge of the environment. JudgeError when none is named."""
    if (judge := Judge.from_environment()) is None:
        raise JudgeError(
            "this benchmark needs a judge: set OPENAI_API_BASE to an OpenAI-compatible endpoint, such as "
            "http://127.0.0.1:8000/v1, and OPENAI_API_KEY and MODEL_VERSION where it wants them"
        )
    return judge
