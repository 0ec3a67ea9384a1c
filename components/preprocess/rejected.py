"""Rows that could not be used: kept in a file with their reason, and counted against the budget of the config."""

from __future__ import annotations

import itertools
import json
from typing import Any

from components.artifacts.files import filesystem
from components.errors import UserError
from components.preprocess.outcome import Outcome

FILE = "rejected.jsonl"
SHOWN = 3


def write_rejected(file: Any, outcome: Outcome) -> None:
    """One JSON object a bad row, {file, line, id, reason}, and `place` where the user's own line is known, to an open text
    file."""
    for row in outcome.bad_rows():
        if row["place"] is None:
            del row["place"]
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def require_within_budget(outcome: Outcome, max_bad_fraction: float, folder_uri: str) -> None:
    """UserError when more rows are bad than the config allows; then all of them lie in `folder_uri`."""
    bad, good = (sum(table.num_rows for table in tables.values()) for tables in (outcome.bad, outcome.good))
    if bad <= max_bad_fraction * (bad + good):
        return
    fs, folder = filesystem(folder_uri)
    fs.makedirs(folder, exist_ok=True)
    with fs.open(f"{folder}/{FILE}", "w", encoding="utf-8") as file:
        write_rejected(file, outcome)
    first = itertools.islice(outcome.bad_rows(), SHOWN)
    shown = "; ".join(f"{row['place'] or row['file'] + ':' + str(row['line'])}: {row['reason']}" for row in first)
    more = f"; and {bad - SHOWN} more" if bad > SHOWN else ""
    raise UserError(
        f"{bad} of {bad + good} rows are bad, more than preprocess.max_bad_fraction={max_bad_fraction:g} allows: "
        f"{shown}{more}. All of them with their reasons: {folder_uri}/{FILE}"
    )
