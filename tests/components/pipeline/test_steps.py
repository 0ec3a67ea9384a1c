"""What a step's key holds: its own settings, the code that it runs and the libraries under it; nothing of other steps."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from components.artifacts.artifact import Artifact, StepKey
from components.pipeline.config import PipelineConfig
from components.pipeline.config_loading import load_config
from components.pipeline.steps import STEPS
from flows.run.explain import differences

CONFIG = "configs/smoke.yaml"
EVERY = frozenset(STEPS)
EVALUATIONS = frozenset({"evaluate_base", "evaluate", "evaluate_champion"})
MODEL = frozenset({"base", "train", "consolidate"}) | EVALUATIONS
# An edit of the module -> the steps that it may change, not counting those that only wait for them.
TOUCHED = {
    "components.ingest.settings": {"ingest"},
    "components.rows.table": {"ingest", "convert"},
    "components.formats.conversations": {"ingest", "convert"},
    "components.convert.settings": {"convert"},
    "components.preprocess.settings": {"preprocess"},
    "components.base.settings": {"base"},
    "components.train.settings": {"train"},
    "components.train.update.schedule": {"train"},
    "components.train.loop": {"train"},
    "components.consolidate.settings": {"consolidate"},
    "components.evaluate.settings": EVALUATIONS,
    "components.champion.settings": {"champion"},
    "components.evidence.paired": {"compare", "register"},
    "components.evidence.looks": {"register"},
    "components.compare.settings": {"compare"},
    "components.register.settings": {"register"},
    "components.register.rules": {"register"},
    "components.pipeline.config": set(),
    "components.pipeline.steps": set(),
    "plm_model.records.record": {"convert", "preprocess", *EVALUATIONS, "compare"},
    "plm_model.families.plm.conversation": {"preprocess", *EVALUATIONS},
    "plm_model.families.plm.generation": EVALUATIONS,
    "plm_model.families.plm.layouts.hf": {"base", "consolidate", *EVALUATIONS},
    "plm_model.families.plm.model": MODEL,
    "components.errors": EVERY,
}


@pytest.mark.parametrize("module", TOUCHED)
def test_an_edit_touches_only_the_steps_that_run_the_module(module: str) -> None:
    assert {name for name, step in STEPS.items() if module in step.code("plm")} == TOUCHED[module]


@pytest.mark.parametrize("step", STEPS.values(), ids=lambda step: step.name)
def test_a_step_takes_its_own_settings_and_not_the_config(step: Any) -> None:
    first = next(iter(inspect.signature(import_module(step.module).run).parameters.values()))
    assert first.annotation == type(step.settings(load_config(CONFIG))).__name__


def counted(*overrides: str) -> dict[str, Any]:
    config = load_config(CONFIG, overrides)
    return {name: step.counted(config) for name, step in STEPS.items()}


@pytest.mark.parametrize(
    ("override", "touched"),
    [
        ("name=other", {"champion", "compare", "register"}),
        ("evaluate.task=other", {"compare"}),
        ("evaluate.batch_size=3", set()),
        ("evaluate.device=cuda", set()),
        ("preprocess.parallelism=3", set()),
        ("train.log_every=3", set()),
        ("train.guards.hang_seconds=9", set()),
        ("train.guards.spike_factor=9", {"train"}),
        ("train.lr=0.5", {"train"}),
        ("train.freeze=['^vision']", {"train", "consolidate"}),
        ("ingest.image_column=picture", {"ingest", "convert"}),
        ("evaluate.max_bad_fraction=0.5", EVALUATIONS),
        ("gate.min_gain=0.5", {"champion", "register"}),
        ("tracking.mlflow_port=5001", set()),
    ],
)
def test_a_setting_touches_the_keys_of_the_steps_that_read_it(override: str, touched: set[str]) -> None:
    before, after = counted(), counted(override)
    assert {name for name in STEPS if before[name] != after[name]} == touched


def test_every_mark_names_a_field_of_its_class() -> None:
    def classes(value: Any) -> Any:
        yield type(value)
        for name in getattr(value, "__dataclass_fields__", None) or getattr(type(value), "model_fields", ()):
            yield from classes(getattr(value, name))

    for step in STEPS.values():
        for kind in classes(step.settings(PipelineConfig())):
            known = getattr(kind, "__dataclass_fields__", None) or getattr(kind, "model_fields", {})
            assert getattr(kind, "WITHOUT_EFFECT", frozenset()) <= set(known), kind


def test_another_version_of_a_library_is_another_key_and_said() -> None:
    versions = STEPS["preprocess"].versions()
    assert {"pillow", "av", "decord", "tokenizers"} <= versions.keys() and not [
        v for v in versions.values() if "+" in v
    ]
    now = StepKey("preprocess", libraries=versions)
    last = StepKey("preprocess", libraries={**versions, "pillow": "11.0.0"})
    assert now.digest != last.digest
    assert differences(last, now) == [f"library pillow: 11.0.0 -> {versions['pillow']}"]


def test_inputs_that_are_not_those_of_the_table_are_an_error() -> None:
    def artifact(step: str) -> Artifact:
        return Artifact(f"/{step}", {"step": step}, Path("/none"))

    step = STEPS["preprocess"]
    step.require_inputs({"dataset": artifact("convert"), "model": artifact("base")})
    for wrong in ({"dataset": "convert"}, {"dataset": "convert", "model": "consolidate"}):
        with pytest.raises(RuntimeError, match=r"step preprocess takes .*'model': 'base'.* but was given"):
            step.require_inputs({name: artifact(made) for name, made in wrong.items()})
