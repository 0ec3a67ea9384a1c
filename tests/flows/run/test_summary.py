"""What a run ends with: each number with its own interval, and what the gate decided and why."""

from __future__ import annotations

from typing import Any

import pytest

from flows.run.summary import last_lines, markdown

SUMMARY: dict[str, Any] = {
    "task": "digits",
    "metric": "exact_match",
    "score_before": 0.0,
    "score_after": 1.0,
    "score_before_interval": [0.0, 0.046],
    "score_after_interval": [0.954, 1.0],
    "gain": {"gain": 1.0, "ci_low": 0.925, "ci_high": 1.0, "confidence": 0.95},
    "heldout": 80,
    "failed_checkpoints": 0,
    "steps": {"train": {"seconds": 60.0, "cached": False}},
    "wall_seconds": 90.0,
    "startup_seconds": 30.0,
    "mlflow_run_id": "abc",
    "registered_model": "mine",
    "registered_model_version": "7",
    "champion": False,
    "verdict": "hold",
    "gate": "mine version 7 stays challenger: not shown to be better: digits exact_match 1.0000 against 0.9500 of ...",
    "rules": ["better failed: not shown to be better: digits", "size passed: 8.0 MB of 10.0 allowed"],
    "report": "/runs/report.html",
    "model": "/runs/model",
}


@pytest.mark.case("E19b", "E19e")
def test_the_last_lines_have_each_numbers_own_interval_and_the_gates_word() -> None:
    *_, accuracy, gain, first, second, gate = last_lines(SUMMARY)
    assert accuracy == (
        "score     exact_match before 0.000, after 1.000 (95% interval 0.954 to 1.000) on 80 held-out rows"
    )
    assert gain == "gain      +1.000 (95% interval +0.925 to +1.000)"
    assert [first, second] == [f"rule      {rule}" for rule in SUMMARY["rules"]]
    assert gate == f"gate      hold: {SUMMARY['gate']}"


@pytest.mark.case("E19b", "E19e")
def test_the_page_says_the_same() -> None:
    page = markdown(SUMMARY)
    assert "| 0.000 [0.000, 0.046] | 1.000 [0.954, 1.000] | +1.000 [+0.925, +1.000] | 80 |" in page
    assert "Registered as mine version 7, challenger." in page and f"The gate: {SUMMARY['gate']}." in page
    assert f"- {SUMMARY['rules'][1]}" in page


def test_checkpoints_that_could_not_be_written_are_the_first_line() -> None:
    assert last_lines(SUMMARY | {"failed_checkpoints": 2})[0].startswith("warning   2 checkpoints")
