"""What a run is called says what differs from the last one."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.artifacts.store import ArtifactStore
from components.pipeline.config_loading import load_config
from flows.run.run_name import name_of_run, short


@pytest.mark.case("E15")
def test_runs_are_named_by_what_changed_since_the_last(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "runs"), tmp_path / "cache")

    def name(*overrides: str, refresh: tuple[str, ...] = ()) -> str:
        return name_of_run(load_config("configs/smoke.yaml", ["name=mine", *overrides]), store, frozenset(refresh))

    assert name() == "mine"
    assert name("train.lr=3e-4") == "mine lr=3e-4"
    assert name("train.lr=3e-4") == "mine again"
    assert name("train.lr=3e-4", refresh=("train",)) == "mine refresh train"
    assert name("train.lr=3e-4", "storage.root=elsewhere", "ray.num_cpus=2") == "mine again"
    assert name("model.seed=1", "train.seed=2") == "mine model.seed=1 lr=2e-3 train.seed=2"
    assert name() == "mine model.seed=0 train.seed=0"
    long = name("train.steps=5", "train.lora={pattern: wq}", "evaluate.limit=3", "gate.min_gain=0.5")
    assert long.startswith("mine ") and long.endswith(" more") and len(long) < 120


@pytest.mark.case("E15")
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3e-4, "3e-4"),
        (0.5, "0.5"),
        (1e-3, "1e-3"),
        (700, "700"),
        (None, "null"),
        (True, "true"),
        ("a" * 99, "a" * 24 + "…"),
    ],
)
def test_values_are_short(value: object, text: str) -> None:
    assert short(value) == text
