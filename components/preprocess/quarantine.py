"""Rows that could not be used: kept in a file with their reason, and counted against the budget of the config."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from components.artifacts import filesystem
from components.errors import UserError
from components.preprocess.graph import Report

FILE = "quarantine.jsonl"
SHOWN = 3


def write_quarantine(file: Any, bad: Sequence[Report]) -> None:
    """One JSON object a row, {file, line, id, reason}, to an open text file."""
    for report in bad:
        row = {"file": report.file, "line": report.line, "id": report.id, "reason": report.reason}
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def require_within_budget(bad: Sequence[Report], total: int, max_bad_fraction: float, folder_uri: str) -> None:
    """UserError when more rows are bad than the config allows; then the whole quarantine lies in `folder_uri`."""
    if len(bad) <= max_bad_fraction * total:
        return
    fs, folder = filesystem(folder_uri)
    fs.makedirs(folder, exist_ok=True)
    with fs.open(f"{folder}/{FILE}", "w", encoding="utf-8") as file:
        write_quarantine(file, bad)
    shown = "; ".join(f"{report.file}:{report.line}: {report.reason}" for report in bad[:SHOWN])
    more = f"; and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
    raise UserError(
        f"{len(bad)} of {total} rows are bad, more than preprocess.max_bad_fraction={max_bad_fraction:g} allows: "
        f"{shown}{more}. All of them with their reasons: {folder_uri}/{FILE}"
    )
