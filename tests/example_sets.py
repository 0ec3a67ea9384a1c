"""The small data sets that `configs/dummy_datasets.py` makes, in a folder of a test's own."""

from __future__ import annotations

import runpy
from collections.abc import Sequence
from pathlib import Path

import yaml

CONFIGS = Path(__file__).parents[1] / "configs"


def example_registry(folder: Path, names: Sequence[str]) -> Path:
    """Make the sets and register those of these names (of `configs/datasets.yaml`) with absolute paths; their registry."""
    made = folder / "runs" / "dummy_datasets"
    runpy.run_path(str(CONFIGS / "dummy_datasets.py"))["make"](made)
    shipped = yaml.safe_load((CONFIGS / "datasets.yaml").read_text())
    entries = {name: {key: str(folder / path) for key, path in shipped[name].items()} for name in names}
    (folder / "datasets.yaml").write_text(yaml.safe_dump(entries))
    return folder / "datasets.yaml"
