"""The judge's section of the config."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from components.effects import counted
from components.evaluate.judge.settings import JudgeConfig


def test_nothing_is_judged_by_default() -> None:
    settings = JudgeConfig()
    assert settings.base_url is None and settings.max_calls == 10_000 and settings.key_variable == "OPENAI_API_KEY"


@pytest.mark.parametrize("url", ["https://host/v1", "https://host/v1/", "https://host/v1/chat/completions"])
def test_an_endpoint_is_the_same_with_and_without_its_route(url: str) -> None:
    assert JudgeConfig(base_url=url, model="m").base_url == "https://host/v1"


@pytest.mark.parametrize(
    "url",
    [
        "https://me:secret@host/v1",
        "ftp://host",
        "host/v1",
        "https://",
        "https://host/v1?key=1",
        "http://host:99999",
        "http://h/ü",
    ],
)
def test_what_is_no_endpoint_is_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        JudgeConfig(base_url=url, model="m")


def test_an_endpoint_needs_a_model() -> None:
    with pytest.raises(ValidationError, match="name the model"):
        JudgeConfig(base_url="http://host/v1")


def test_a_key_in_place_of_a_variable_s_name_is_refused() -> None:
    with pytest.raises(ValidationError, match="never the key itself"):
        JudgeConfig(key_variable="sk-abc")


def test_only_who_judges_counts() -> None:
    assert set(counted(JudgeConfig())) == {"base_url", "model", "reasoning"}
