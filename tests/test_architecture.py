"""The walls of the house: which package may import which, and what stays out of start-up."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

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
