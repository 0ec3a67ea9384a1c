"""The code digest sees every project module that a component runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from components.artifacts.code_digest import code_digests
from components.pipeline.steps import STEPS

EVALUATIONS = {"evaluate", "evaluate_base", "evaluate_champion"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    package = tmp_path / "components"
    package.mkdir()
    for name, text in {
        "__init__": "",
        "step": "def run():\n    from components import lazy\n    import components.plain\n",
        "lazy": "from .deeper import thing\n",
        "deeper": "thing = 1\n",
        "plain": "",
        "apart": "",
    }.items():
        (package / f"{name}.py").write_text(text)
    return tmp_path


def digests(project: Path) -> dict[str, str]:
    source = Path(code_digests.__code__.co_filename)
    script = (
        "import importlib.util, json, sys; sys.path.insert(0, '.'); "
        f"spec = importlib.util.spec_from_file_location('digest', {str(source)!r}); "
        "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module); "
        "print(json.dumps(module.code_digests('components.step')))"
    )
    import json

    return json.loads(subprocess.check_output([sys.executable, "-S", "-c", script], cwd=project))


def test_lazy_relative_and_plain_imports_count(project: Path) -> None:
    assert set(digests(project)) == {
        "components",
        "components.step",
        "components.lazy",
        "components.deeper",
        "components.plain",
    }


def test_an_edit_in_an_indirect_import_changes_its_digest(project: Path) -> None:
    before = digests(project)
    (project / "components/deeper.py").write_text("thing = 2\n")
    after = digests(project)
    assert {name for name in after if after[name] != before[name]} == {"components.deeper"}


@pytest.mark.parametrize(
    ("module", "steps"),
    [
        ("plm_model.media.images", {"preprocess", "train", *EVALUATIONS, "compare"}),
        ("plm_model.media.image_file", {"ingest", "preprocess", "train", *EVALUATIONS, "compare"}),
        ("plm_model.families.plm.generation", EVALUATIONS),
        ("plm_model.families.plm.model", {"base", "train", "consolidate", *EVALUATIONS}),
        ("plm_model.families.plm.conversation", {"preprocess", *EVALUATIONS}),
        ("components.ingest.sources.s3_listing", {"ingest"}),
        ("components.train.data.plan", {"train"}),
    ],
)
def test_an_edit_reaches_the_steps_that_run_it(module: str, steps: set[str]) -> None:
    assert {name for name, step in STEPS.items() if module in step.code("plm")} == steps


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ('"""What it is."""\n# why\nthing = (\n    1\n)\n', True),
        ("thing = 1  # much\n\n\n", True),
        ("from typing import TYPE_CHECKING\nthing = 1\n", False),
        ("thing = -1\n", False),
        ("thing = '1'\n", False),
    ],
)
def test_comments_docstrings_and_formatting_do_not_count(project: Path, text: str, same: bool) -> None:
    before = digests(project)
    (project / "components/deeper.py").write_text(text)
    assert (digests(project) == before) is same


def test_a_text_that_a_function_returns_counts_and_one_that_stands_alone_does_not(project: Path) -> None:
    (project / "components/deeper.py").write_text("def thing():\n    'a'\n    return 'b'\n")
    before = digests(project)
    (project / "components/deeper.py").write_text("def thing():\n    return 'b'\n")
    assert digests(project) == before
    (project / "components/deeper.py").write_text("def thing():\n    return 'c'\n")
    assert digests(project) != before


def test_imports_for_types_alone_do_not_count(project: Path) -> None:
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import components.apart\nthing = 1\n"
    (project / "components/deeper.py").write_text(text)
    assert "components.apart" not in digests(project)
