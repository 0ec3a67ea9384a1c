"""A client of a local endpoint, with a key, without long waits."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from components.evaluate.judge.client import JudgeClient, Waits
from components.evaluate.judge.settings import JudgeConfig
from components.evaluate.judge.verdicts import Verdicts

KEY = "sk-a-key-of-the-tests-0123456789"
MakeClient = Callable[..., JudgeClient]


def client_of(directory: Path, url: str, key: str | None = KEY, **settings: Any) -> JudgeClient:
    config = JudgeConfig(base_url=url, **{"model": "m", "timeout_s": 5.0, "retries": 3, **settings})
    waits = Waits(first_s=0.01, longest_s=0.02, longest_asked_s=0.3)
    return JudgeClient(config, SecretStr(key) if key else None, Verdicts(directory), waits)


@pytest.fixture
def make_client(tmp_path: Path) -> MakeClient:
    return functools.partial(client_of, tmp_path / "verdicts")
