"""A judge beside an evaluation: its process is sent to the gateway; what the judge failed at is not measured."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.evaluate.judge.settings import JudgeConfig


@dataclass
class Beside:
    """What the evaluation's process is given, which variable it is not to inherit, and what went wrong in the end."""

    environment: Mapping[str, str] = field(default_factory=dict)
    hidden: str | None = None
    failure: str | None = None


@contextlib.contextmanager
def judge_beside(config: JudgeConfig, cache: Path) -> Iterator[Beside]:
    """Serve the judge of a config while the block runs; without one, the environment's own variables count."""
    if config.base_url is None:
        yield Beside()
        return
    from pydantic import SecretStr

    from components.evaluate.judge.client import JudgeClient
    from components.evaluate.judge.gateway import gateway
    from components.evaluate.judge.variables import environment
    from components.evaluate.judge.verdicts import Verdicts

    value = os.environ.get(config.key_variable)
    key = SecretStr(value) if value else None
    with JudgeClient(config, key, Verdicts(cache / "judge")) as client, gateway(client) as served:
        beside = Beside(environment(served, os.environ), config.key_variable)
        yield beside
        counts = served.counts
        if counts.failures or counts.strangers:
            lost = counts.failures + counts.strangers
            beside.failure = (
                f"the judge gave no answer {lost} times: {counts.first_failure or 'asked without its token'}"
            )


def without_failed(benchmarks: Mapping[str, Mapping[str, Any]], failure: str | None) -> dict[str, Mapping[str, Any]]:
    """The outcomes of columns; those that a judge decides have no figure where it failed, since tasks count that as 0."""
    return {
        title: {**outcome, "figure": None, "reason": outcome["reason"] or failure}
        if failure is not None and "judge" in outcome["column"]["needs"]
        else outcome
        for title, outcome in benchmarks.items()
    }
