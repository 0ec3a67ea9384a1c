"""What `plm evaluate` and `plm compare` take beside a step's config, through the command itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.cli import main

EVAL_PAGE = Path("configs/eval/README.md")


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The error that a command ends with."""
    assert main(list(arguments)) == 2
    return capsys.readouterr().err


def test_the_page_s_commands_are_understood(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Up to the models, which are not here."""
    lines = [line.split() for line in EVAL_PAGE.read_text().splitlines() if line.startswith("plm ")]
    assert [line[1] for line in lines] == ["evaluate", "compare"]
    places = [
        f"storage.root={tmp_path}/runs",
        f"storage.cache_dir={tmp_path}/c",
        f"tracking.state_dir={tmp_path}/state",
    ]
    errors = [said(capsys, *line[1:], *places) for line in lines]
    assert "models:/radiology_8b" in errors[0] and "run:radiology_8b: no run of this pipeline" in errors[1]


def test_what_the_gate_can_find_needs_held_out_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = said(capsys, "evaluate", "configs/smoke.yaml", "--power", f"storage.root={tmp_path}")
    assert "pipeline smoke has no held-out rows yet; run `plm convert` with this config" in error


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("evaluate",), "plm evaluate needs a config, or --model M --suite S"),
        (("compare", "--models", "a"), "--models needs two models or more"),
        (("evaluate", "--model", "/nowhere", "--suite", "smok"), "did you mean smoke?"),
    ],
)
def test_what_is_missing_is_one_line(
    arguments: tuple[str, ...], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert error in said(capsys, *arguments)
