"""All batches of a fuzz run in a child process, which is started again where it dies; its death is a finding."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fuzz.batches import KINDS, ROWS

REPOSITORY = Path(__file__).parents[2]
# How many mutations of each kind a whole run makes: 2,000 rows, 500 pictures, 200 videos, 200 configs.
WHOLE = {"jsonl": 900, "csv": 600, "tsv": 200, "parquet": 300, "pictures": 500, "videos": 200, "configs": 200}
BATCH_SECONDS = 1800.0


@dataclass
class Found:
    """What a run found: findings as (kind, text), and how many mutations there were of each kind, how many were refused."""

    findings: list[tuple[str, str]] = field(default_factory=list)
    mutations: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)

    def summary(self, seed: int) -> dict[str, Any]:
        kinds = Counter(kind for kind, _ in self.findings)
        wanted = ("traceback", "slow", "counts", "differs", "stopped", "death", "message")
        return {
            "seed": seed,
            "mutations": dict(self.mutations),
            "rejected": dict(self.rejected),
            **{kind: kinds[kind] for kind in wanted},
        }


class Child:
    """The process that runs batches; `ask` gives None where it died or did not answer."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def ask(self, request: list[Any]) -> dict[str, Any] | None:
        if self.process is None:
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.fuzz.child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=REPOSITORY,
                env=environment,
            )
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            if select.select([self.process.stdout], [], [], BATCH_SECONDS)[0] and (
                line := self.process.stdout.readline()
            ):
                return json.loads(line)
        except BrokenPipeError:
            pass
        self.close()
        return None

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def requests(seed: int, share: float) -> Iterator[list[Any]]:
    """`[kind, seed, batch, rows]` of each batch, for a share of the whole run."""
    for kind in (*KINDS, "configs"):
        total = round(WHOLE[kind] * share)
        for batch in range(0, total, ROWS):
            yield [kind, seed, batch // ROWS, min(ROWS, total - batch)]


def fuzz(seed: int, share: float = 1.0, kinds: tuple[str, ...] = ()) -> Iterator[Found]:
    """What was found so far, after each batch."""
    child, found = Child(), Found()
    try:
        for request in requests(seed, share):
            kind, _, batch, rows = request
            if kinds and kind not in kinds:
                continue
            answer = child.ask(request)
            if answer is None:
                found.findings.append(("death", f"{kind} batch {batch}: the process died or did not answer"))
                continue
            found.mutations[kind] += rows
            found.rejected[kind] += answer["rejected"]
            found.findings += [(name, f"{kind} batch {batch}: {text}") for name, text in answer["findings"]]
            yield found
    finally:
        child.close()
    yield found
