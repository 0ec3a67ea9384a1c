"""`make demo` as the README promises it."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """A fresh clone with an empty virtual environment."""
    target = tmp_path_factory.mktemp("fresh") / "plm"
    subprocess.run(["git", "clone", "-q", str(repository), str(target)], check=True)
    return target


@pytest.fixture(scope="module")
def demo(clone: Path) -> tuple[str, float]:
    import os

    ours = ("PREFECT_", "AWS_", "MAKE")  # a make inside of `make e2e` would say which folder it enters and leaves
    environment = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    started = time.monotonic()
    ran = subprocess.run(["make", "demo"], cwd=clone, env=environment, capture_output=True, text=True, timeout=1500)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout, time.monotonic() - started


def summary(clone: Path) -> dict[str, object]:
    return json.loads((clone / "runs/demo/summary.json").read_text())


def test_the_demo_reads_held_out_digits(demo: tuple[str, float], clone: Path) -> None:
    numbers = summary(clone)
    assert numbers["score_before"] <= 0.20 and numbers["score_after"] >= 0.92 and numbers["heldout"] >= 350  # type: ignore[operator]
    assert f"after {numbers['score_after']:.3f}" in demo[0]


def test_a_second_demo_reuses_everything(demo: tuple[str, float], clone: Path) -> None:
    ran = subprocess.run(["make", "demo"], cwd=clone, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0 and all(step["cached"] for step in summary(clone)["steps"].values())  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("edited", "rerun"),
    [
        (
            "plm_model/media/images.py",
            {"preprocess", "evaluate_base", "train", "consolidate", "evaluate", "compare", "register"},
        ),
        ("plm_model/families/plm/generation.py", {"evaluate_base", "evaluate", "compare", "register"}),
        ("README.md", set()),
    ],
)
def test_an_edit_reruns_what_runs_it(demo: tuple[str, float], clone: Path, edited: str, rerun: set[str]) -> None:
    path = clone / edited
    before = path.read_text()
    path.write_text(before + ("\nEDITED = 1\n" if edited.endswith(".py") else "\nEdited.\n"))
    ran = subprocess.run(
        [".venv/bin/plm", "finetune", "configs/demo.yaml", "--explain", "--json"],
        cwd=clone,
        capture_output=True,
        text=True,
        check=True,
    )
    path.write_text(before)
    decisions = json.loads(ran.stdout.splitlines()[-1])
    assert {decision["step"] for decision in decisions if not decision["reused"]} == rerun
    shutil.rmtree(clone / ".pytest_cache", ignore_errors=True)
