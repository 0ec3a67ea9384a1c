"""The walls of the house: which package may import which, and what stays out of start-up."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from components.artifacts.code_digest import _imports

FORBIDDEN = {"plm_model": {"components", "flows"}, "components": {"flows"}}
HEAVY = {"torch", "ray", "lmms_eval", "transformers"}
MODEL_MAY_IMPORT = {
    "torch",
    "numpy",
    "PIL",
    "yaml",
    "safetensors",
    "transformers",
    "tokenizers",
    "tiktoken",
    "plm_model",
}
MODEL_MAY_IMPORT |= {"decord", "av", "huggingface_hub"}


def sources(package: str) -> list[Path]:
    return sorted(path for path in Path(package).rglob("*.py"))


def imports(path: Path, module_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if module_level_only else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_go_one_way(package: str) -> None:
    wrong = {str(path): imports(path) & FORBIDDEN[package] for path in sources(package)}
    assert not {path: names for path, names in wrong.items() if names}


def arrows() -> dict[str, set[str]]:
    """Room of `components/` -> the rooms that its code imports when it runs."""
    found: dict[str, set[str]] = {}
    for path in Path("components").glob("*/**/*.py"):
        names = _imports(ast.parse(path.read_text()), ".".join(path.with_suffix("").parts), is_package=False)
        ours = [name.split(".") for name in names if name.startswith("components.")]
        room = path.parts[1]
        found.setdefault(room, set()).update(parts[1] for parts in ours if len(parts) > 2 and parts[1] != room)
    return found


def test_no_room_is_imported_by_one_that_it_imports() -> None:
    TopologicalSorter(arrows()).prepare()  # CycleError names the circle


def test_only_the_preflight_stands_on_the_pipeline() -> None:
    assert {room for room, rooms in arrows().items() if "pipeline" in rooms} == {"preflight"}


def test_only_the_harness_imports_lmms_eval() -> None:
    users = {str(path.parent) for path in sources("components") if "lmms_eval" in imports(path)}
    assert users == {"components/evaluate/harness"}


def test_components_know_no_prefect() -> None:
    assert not [path for path in sources("components") if "prefect" in imports(path)]


def test_flows_import_nothing_heavy_at_module_level() -> None:
    wrong = {str(path): imports(path, module_level_only=True) & HEAVY for path in sources("flows")}
    assert not {path: names for path, names in wrong.items() if names}


def test_the_model_needs_few_packages() -> None:
    allowed = MODEL_MAY_IMPORT | set(sys.stdlib_module_names)
    wrong = {str(path): imports(path) - allowed for path in sources("plm_model")}
    assert not {path: names for path, names in wrong.items() if names}


@pytest.mark.parametrize(
    "module", ["plm_model", "plm_model.config", "components.pipeline.steps", "flows.commands.finetune"]
)
def test_these_modules_load_neither_torch_nor_ray(module: str) -> None:
    script = f"import sys, {module}; print(sorted({HEAVY!r} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "[]"


def test_the_repository_names_no_machine_and_no_registry_host() -> None:
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True)
    words = ("/work" + "/main", "/root" + "/", "pythonhosted" + ".org", "pypi" + ".org")
    for name in listed.stdout.splitlines():
        path = Path(name)
        if path.suffix in {".py", ".md", ".yaml", ".toml", ".txt", ".html"} or path.name in {"Makefile", "Dockerfile"}:
            text = path.read_text()
            assert not [word for word in words if word in text], name
