"""Nothing stale is reused: whatever a step runs or reads is in its key, each constant, each setting, each version."""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from components.artifacts.artifact import StepKey
from components.artifacts.code_digest import _read, _source, code_digests
from components.pipeline.config import PipelineConfig
from components.pipeline.config_loading import load_config
from components.pipeline.step import Step
from components.pipeline.steps import STEPS
from components.train.effects import FREE_TO_CHANGE

MUTATIONS = 200
OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.In: ast.NotIn,
    ast.Is: ast.IsNot,
}


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def mutants(tree: ast.Module) -> list[tuple[str, Any]]:
    """What can be changed in a module so that it does something else: kind and how, on a node of this tree."""
    found: list[tuple[str, Any]] = []
    texts = {id(statement.value) for statement in ast.walk(tree) if isinstance(statement, ast.Expr)}
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if is_for_types(node):
            continue
        waiting.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Constant) and id(node) not in texts and isinstance(node.value, int | float | str):
            other = (not node.value) if isinstance(node.value, bool) else node.value * 2 or type(node.value)(1)
            found.append(("constant", lambda node=node, other=other: setattr(node, "value", other)))
        elif isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in OPERATORS:
            found.append(("operator", lambda node=node: setattr(node, "op", OPERATORS[type(node.op)]())))
        elif isinstance(node, ast.Compare) and type(node.ops[0]) in OPERATORS:
            found.append(
                ("operator", lambda node=node: setattr(node, "ops", [OPERATORS[type(node.ops[0])](), *node.ops[1:]]))
            )
        elif isinstance(node, ast.If | ast.IfExp):
            found.append(("branch", lambda node=node: setattr(node, "test", ast.UnaryOp(ast.Not(), node.test))))
        elif isinstance(node, ast.FunctionDef) and node.args.defaults:
            found.append(("default", lambda node=node: node.args.defaults.__setitem__(0, ast.Constant("another"))))
    return found


def mutated(source: str, draw: random.Random) -> tuple[str, str] | None:
    """The module with one thing changed, and what; None where there is nothing to change."""
    tree = ast.parse(source)
    if not (possible := mutants(tree)):
        return None
    kinds = sorted({kind for kind, _ in possible})
    chosen = draw.choice(kinds)
    kind, change = draw.choice([mutant for mutant in possible if mutant[0] == chosen])
    change()
    return ast.unparse(ast.fix_missing_locations(tree)), kind


def test_two_hundred_mutations_of_code_change_the_keys_of_all_steps_that_run_it(tmp_path: Path) -> None:
    seen = {name: step.code("plm") for name, step in STEPS.items()}
    modules = sorted({module for code in seen.values() for module in code if not module.endswith(".html")})
    draw, kinds, done = random.Random(0), dict[str, int](), 0
    while done < MUTATIONS:
        module = draw.choice(modules)
        path = _source(module)
        assert path is not None
        if (made := mutated(path.read_text(), draw)) is None:
            continue
        mutant = tmp_path / f"{done}.py"
        mutant.write_text(made[0])
        digest, _ = _read(str(mutant), module, 0)
        for name, code in seen.items():
            if module in code:
                changed = StepKey(name, code=code | {module: digest})
                assert changed.digest != StepKey(name, code=code).digest, f"{made[1]} in {module}"
        kinds[made[1]] = kinds.get(made[1], 0) + 1
        done += 1
    assert kinds.keys() == {"constant", "operator", "branch", "default"}


def test_an_edit_on_the_disk_is_seen_by_the_next_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "outside"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "step.py").write_text("from outside import part\n")
    (package / "part.py").write_text("most = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = code_digests("outside.step")
    (package / "part.py").write_text("most = 2\n")
    after = code_digests("outside.step")
    assert before.keys() == after.keys() and {name for name in after if before[name] != after[name]} == {"outside.part"}


def settings_of(value: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every field of a settings object and of the sections in it: its place, and whether its class says it has no effect."""
    if not (is_dataclass(value) or isinstance(value, BaseModel)):
        return
    names = [field.name for field in fields(value)] if is_dataclass(value) else list(type(value).model_fields)
    for name in names:
        inner = getattr(value, name)
        marked = name in getattr(type(value), "WITHOUT_EFFECT", frozenset())
        if not marked and (is_dataclass(inner) or isinstance(inner, BaseModel)):
            yield from settings_of(inner, (*place, name))
        else:
            yield (*place, name), marked


def changed(value: Any, place: tuple[str, ...]) -> Any:
    """The settings with another value at a place."""
    name, *rest = place
    inner = changed(getattr(value, name), tuple(rest)) if rest else f"not {getattr(value, name)!r}"
    return replace_unchecked(value, name, inner)


def replace_unchecked(value: Any, name: str, inner: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_copy(update={name: inner})
    made = object.__new__(type(value))
    made.__dict__.update(value.__dict__ | {name: inner})
    return made


@pytest.mark.parametrize("step", STEPS.values(), ids=lambda step: step.name)
@pytest.mark.parametrize("config", ["configs/smoke.yaml", None])
def test_each_setting_that_a_step_takes_is_in_its_key_unless_its_class_says_otherwise(
    step: Step, config: str | None
) -> None:
    given = step.settings(load_config(config) if config else PipelineConfig())
    places = list(settings_of(given))
    assert places
    for place, marked in places:
        free = marked or (step.name == "train" and place[0] in FREE_TO_CHANGE - {"publish"})
        differs = step.dump(changed(given, place)) != step.dump(given)
        assert differs != free, f"{step.name}: {'.'.join(place)}"


@pytest.mark.parametrize("step", [step for step in STEPS.values() if step.libraries], ids=lambda step: step.name)
def test_another_version_of_any_library_is_another_key(step: Step) -> None:
    versions = step.versions()
    key = StepKey(step.name, libraries=versions)
    for name in step.libraries:
        assert replace(key, libraries=versions | {name: "0"}).digest != key.digest
