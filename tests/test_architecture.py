"""The walls of the house: which package may import which, and what stays out of start-up."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable
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


# A room of plm_model -> the rooms that it may import.
MODEL_ROOMS = {
    "family": set[str](),
    "parsing": set(),
    "records": set(),
    "media": {"records"},
    "packs": set(),
    "nn": {"parsing"},
    "answers": {"parsing"},
    "model_directory": {"family", "nn", "parsing"},
    "families": {"family", "answers", "media", "model_directory", "nn", "packs", "parsing", "records"},
}
ALLOWED_WORDS = {"components/evaluate/judge/gateway.py: end_header"}  # http.server's end_headers()
# A room of components -> the rooms that its code imports; a new arrow is drawn here first.
ROOMS = {
    "artifacts": {"errors", "processes", "storage"},
    "base": {"artifacts", "errors", "model_files", "settings"},
    "champion": {"artifacts", "errors", "register", "tracking"},
    "compare": {"artifacts", "errors", "evidence", "media_files", "settings"},
    "consolidate": {"artifacts", "errors", "model_files", "settings", "train"},
    "convert": {"artifacts", "errors", "formats", "ingest", "media_files", "noted", "rows", "settings"},
    "evaluate": {"artifacts", "errors", "media_files", "model_files", "processes", "settings"},
    "evidence": set[str](),
    "formats": {"errors", "media_files", "rows"},
    "ingest": {"artifacts", "errors", "formats", "layers", "media_files", "noted", "rows", "settings", "storage"},
    "media_files": {"artifacts", "errors"},
    "model_files": {"artifacts", "errors", "layers"},
    "pipeline": {
        "artifacts",
        "base",
        "champion",
        "compare",
        "consolidate",
        "convert",
        "effects",
        "errors",
        "evaluate",
        "ingest",
        "layers",
        "preprocess",
        "processes",
        "reach",
        "register",
        "settings",
        "tracking",
        "train",
    },
    "preflight": {"base", "errors", "evaluate", "formats", "pipeline", "processes", "register", "tracking"},
    "preprocess": {"artifacts", "errors", "media_files", "model_files", "noted", "settings", "shards"},
    "processes": {"errors"},
    "register": {"artifacts", "errors", "evidence", "settings", "tracking"},
    "rows": {"artifacts", "errors", "media_files"},
    "shards": {"artifacts", "errors"},
    "storage": {"errors"},
    "tracking": {"errors", "settings"},
    "train": {"artifacts", "effects", "errors", "layers", "model_files", "processes", "shards", "terminal_text"},
}


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


def test_rooms_stand_on_each_other_as_the_table_says() -> None:
    assert arrows() == ROOMS


def test_only_the_preflight_stands_on_the_pipeline() -> None:
    assert {room for room, rooms in arrows().items() if "pipeline" in rooms} == {"preflight"}


def test_the_model_s_rooms_stand_on_each_other_as_the_table_says() -> None:
    found: dict[str, set[str]] = {}
    for path in sources("plm_model"):
        room = path.parts[1].removesuffix(".py")
        names = [
            name.split(".")
            for name in _imports(ast.parse(path.read_text()), ".".join(path.with_suffix("").parts), False)
        ]
        rooms = {parts[1] for parts in names if parts[0] == "plm_model" and len(parts) > 1}
        found.setdefault(room, set()).update(rooms - {room})
    assert {
        room: rooms - MODEL_ROOMS.get(room, set())
        for room, rooms in found.items()
        if rooms - MODEL_ROOMS.get(room, set())
    } == {}


def test_a_family_is_known_by_its_name_only() -> None:
    """Nothing outside imports a family's modules: `plm_model.family.part` finds them."""
    outside = [path for path in sources("plm_model") if "families" not in path.parts]
    for path in (*outside, *sources("components"), *sources("flows")):
        names = _imports(ast.parse(path.read_text()), ".".join(path.with_suffix("").parts), path.name == "__init__.py")
        assert not [name for name in names if name.startswith("plm_model.families")], path


WORDS_OF_PLM = (
    r"PLM[A-Z]\w*|Perception\w*|\btiles?\b|vision_projector|image_token|max_num_tiles|\b448\b|<\|image\|>|"
    r"start_header|end_header|eot_id|begin_of_text"
)


def test_no_word_of_plm_stands_outside_its_family() -> None:
    outside = [path for path in sources("plm_model") if "families" not in path.parts and path.name != "__init__.py"]
    files = [*outside, *sources("components"), *Path("components").rglob("*.html"), *sources("flows")]
    found = {f"{path}: {word}" for path in files for word in re.findall(WORDS_OF_PLM, path.read_text())}
    assert found - ALLOWED_WORDS == set()


@pytest.mark.parametrize("package", ["flows", "components", "plm_model"])
def test_no_folder_is_crowded_and_every_room_says_its_rule(package: str) -> None:
    for folder in {path.parent for path in sources(package)}:
        modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(modules) <= 16, folder
        assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text())), folder


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
    "module",
    [
        "plm_model",
        "plm_model.family",
        "plm_model.families.plm.codec",
        "components.pipeline.steps",
        "flows.commands.finetune",
    ],
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


def functions() -> list[int]:
    """Lines of every function of the three packages."""
    trees = [
        ast.parse(path.read_text()) for package in ("flows", "components", "plm_model") for path in sources(package)
    ]
    found = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return sorted((node.end_lineno or 0) - node.lineno + 1 for node in found)


def modules() -> list[int]:
    files = [path for package in ("flows", "components", "plm_model") for path in sources(package)]
    return sorted(len(path.read_text().splitlines()) for path in files if path.name != "__init__.py")


@pytest.mark.parametrize(("lines", "most"), [(modules, (105, 220, 290)), (functions, (7, 17, 60))])
def test_modules_and_functions_stay_short(lines: Callable[[], list[int]], most: tuple[int, int, int]) -> None:
    """Median, nine tenths and longest, in lines."""
    found = lines()
    here = (found[len(found) // 2], found[int(0.9 * len(found))], found[-1])
    assert all(found <= bound for found, bound in zip(here, most, strict=True)), here
