"""Which language model judges answers, and how much may be asked of it."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from components.settings import PositiveInt, Settings, holds_credentials

ROUTE = "/chat/completions"
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _endpoint(url: str) -> str:
    """The URL without the route at its end, which every call adds."""
    if holds_credentials(url):
        raise ValueError("holds credentials; the key stands in the variable that key_variable names")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("is no endpoint; write it as https://host/v1, without ? and #")
    parts.port  # noqa: B018  # ValueError of a port that cannot be
    if not url.isascii() or any(character.isspace() for character in url):
        raise ValueError("has characters that no URL has; write them as %XX")
    return url.rstrip("/").removesuffix(ROUTE).rstrip("/")


def _variable(name: str) -> str:
    if not VARIABLE.fullmatch(name):
        raise ValueError("is the name of an environment variable, such as OPENAI_API_KEY, never the key itself")
    return name


class JudgeConfig(Settings):
    """A language model that judges answers."""

    WITHOUT_EFFECT: ClassVar[frozenset[str]] = frozenset(
        {"max_calls", "timeout_s", "retries", "parallel", "key_variable"}
    )

    base_url: Annotated[str, AfterValidator(_endpoint)] | None = Field(
        None, description="OpenAI-compatible endpoint, such as http://localhost:8000/v1; null: nothing is judged"
    )
    model: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        None, description="name of the model at the endpoint; it answers whatever model a task names"
    )
    reasoning: bool = Field(
        False,
        description="the model reasons before it answers: is sent max_completion_tokens, and no temperature",
    )
    max_calls: PositiveInt = Field(10_000, description="most calls of one evaluation, repeated ones counted")
    timeout_s: float = Field(60.0, gt=0, le=3600, description="seconds that one call may take")
    retries: int = Field(5, ge=0, le=20, description="further calls for a question that got no answer")
    parallel: int = Field(8, ge=1, le=64, description="calls at the same time")
    key_variable: Annotated[str, AfterValidator(_variable)] = Field(
        "OPENAI_API_KEY", description="environment variable that holds the key; may be unset where none is needed"
    )

    @model_validator(mode="after")
    def _names_a_model(self) -> Self:
        if self.base_url and not self.model:
            raise ValueError("base_url is set, model is not; name the model that judges")
        return self
