"""A judge beside an evaluation: what its process is given, and what becomes of columns that the judge failed."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from components.evaluate.harness.launch import environment_of
from components.evaluate.harness.request import Request
from components.evaluate.judge.beside import judge_beside, without_failed
from components.evaluate.judge.settings import JudgeConfig
from tests.components.evaluate.benchmarks.judge_server import judge_server

KEY = "sk-not-to-be-seen"


def request(place: Path) -> Request:
    fields: dict[str, Any] = dict.fromkeys(Request.__dataclass_fields__)
    return Request(**{**fields, "scratch": str(place), "columns": {"A": {}}, "include": ()})


def ask(environment: dict[str, str], question: str) -> str:
    body = {"messages": [{"role": "user", "content": question}]}
    headers = {"Authorization": f"Bearer {environment['OPENAI_API_KEY']}", "Content-Type": "application/json"}
    url = f"{environment['OPENAI_API_BASE']}/chat/completions"
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers), timeout=20) as reply:
        said: str = json.load(reply)["choices"][0]["message"]["content"]
    return said


def test_the_process_asks_the_gateway_and_never_knows_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with judge_server({"sky": "blue"}) as url:
        config = JudgeConfig(base_url=f"{url}/v1", model="m", key_variable="MY_KEY", retries=0)
        with judge_beside(config, tmp_path) as beside:
            environment = {**environment_of(tmp_path, request(tmp_path), beside.hidden), **beside.environment}
            assert ask(environment, "sky") == "blue"
    assert beside.failure is None and KEY not in environment.values()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_without_a_judge_nothing_is_served(tmp_path: Path) -> None:
    with judge_beside(JudgeConfig(), tmp_path) as beside:
        assert (beside.environment, beside.hidden) == ({}, None)


def test_a_judge_that_failed_leaves_its_columns_without_a_figure(tmp_path: Path) -> None:
    config = JudgeConfig(base_url="http://127.0.0.1:9/v1", model="m", retries=0, timeout_s=2)
    with judge_beside(config, tmp_path) as beside, pytest.raises(OSError):
        ask(dict(beside.environment), "sky")
    assert (beside.failure or "").startswith("the judge gave no answer 1 times: ")
    outcome = {"figure": 0.0, "reason": None, "n": 3}
    outcomes = {"J": {**outcome, "column": {"needs": ["judge"]}}, "A": {**outcome, "column": {"needs": []}}}
    found = without_failed(outcomes, beside.failure)
    assert (found["J"]["figure"], found["J"]["reason"]) == (None, beside.failure)
    assert found["A"] == outcomes["A"] and without_failed(outcomes, None) == outcomes
