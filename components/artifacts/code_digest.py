"""Digests of the source that a component runs: its module, every project module it imports, and their templates.

Imports are read with `ast` wherever they stand, inside functions too, so a lazily imported module counts as well. Of a module
counts what it does: comments, docstrings and formatting do not.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PROJECT_PACKAGES = ("flows", "components", "plm_model")


def code_digests(module: str) -> dict[str, str]:
    """{module name: hex sha256 of what its source means} for `module` and all that it imports, transitively, of its own package
    and of the project."""
    seen: dict[str, str] = {}
    waiting = [module]
    ours = {*PROJECT_PACKAGES, module.split(".")[0]}
    while waiting:
        name = waiting.pop()
        if name in seen or (path := _source(name)) is None:
            continue
        digest, imports = _read(str(path), name, path.stat().st_mtime_ns)
        seen[name] = digest
        seen.update(_templates(path.parent, name.rpartition(".")[0]))
        waiting.extend(found for found in imports if found.split(".")[0] in ours)
    return dict(sorted(seen.items()))


def code_of(*modules: str) -> dict[str, str]:
    """`code_digests` of several modules together, such as a step and what it finds by name, which no import shows."""
    return dict(sorted({name: digest for module in modules for name, digest in code_digests(module).items()}.items()))


def _templates(folder: Path, package: str) -> dict[str, str]:
    """Templates that lie beside a module: what is rendered is code, too."""
    return {f"{package}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.html")}


@cache
def _read(path: str, name: str, modified: int) -> tuple[str, tuple[str, ...]]:
    tree = ast.parse(Path(path).read_bytes())
    imports = tuple(_imports(tree, name, path.endswith("__init__.py")))
    return hashlib.sha256(_meaning(tree).encode()).hexdigest(), imports


def _meaning(tree: ast.Module) -> str:
    """The tree without lines and columns, and without texts that stand alone, such as docstrings."""
    for node in ast.walk(tree):
        for block in ("body", "orelse", "finalbody"):
            statements = getattr(node, block, None)
            if isinstance(statements, list):
                setattr(node, block, [statement for statement in statements if not _is_text(statement)])
    return ast.dump(tree)


def _is_text(statement: ast.AST) -> bool:
    alone = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(alone, ast.Constant) and isinstance(alone.value, str)


def _imports(tree: ast.AST, name: str, is_package: bool) -> Iterator[str]:
    for node in _that_run(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, name, is_package)
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from names


def _that_run(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those below `if TYPE_CHECKING`."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting.extend(node.orelse)
        else:
            waiting.extend(ast.iter_child_nodes(node))


def _absolute(node: ast.ImportFrom, name: str, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = name.split(".")
    parts = parts[: len(parts) - node.level + (1 if is_package else 0)]
    return ".".join([*parts, node.module] if node.module else parts)


def _source(name: str) -> Path | None:
    """The file of a project module, or None where the name is an attribute of one (`from module import name`)."""
    root, *rest = name.split(".")
    spec = importlib.util.find_spec(root)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations))).joinpath(*rest)
    for path in (folder / "__init__.py", folder.with_suffix(".py")):
        if path.is_file():
            return path
    return None
