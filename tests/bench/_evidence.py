"""What every bench prints: one JSON object, its ratios beside what is needed to judge them."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
from collections.abc import Callable, Mapping
from typing import Any


def evidence(
    name: str, used: str, baseline: str, ratio: Mapping[str, Any], raw: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A bench's result. `used` says which of the machine and of which libraries; `raw` holds what the ratios come from."""
    return {
        "name": name,
        "hardware": f"{os.cpu_count()}-core {platform.machine()} CPU, {used}",
        "commit": commit(),
        "baseline": baseline,
        "ratio": dict(ratio),
        "raw": dict(raw or {}),
    }


def commit() -> str:
    """The commit that is checked out, in short."""
    run = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return run.stdout.strip() or "unknown"


def bench(doc: str, measure: Callable[..., dict[str, Any]], **numbers: int) -> None:
    """A bench's command line: `--NAME N` for each of `numbers`, which `measure` takes by name, and `--json`."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    result = measure(**{name: getattr(arguments, name) for name in numbers})
    print(json.dumps(result) if arguments.json else json.dumps(result, indent=2))
