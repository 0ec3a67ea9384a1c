"""What people fill in beside a config file: every key of it, typed and described, and nothing that they did not fill in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from components.errors import ConfigError
from components.pipeline.config import StorageConfig
from components.pipeline.config_loading import flatten, load_config
from components.pipeline.config_overrides import Overrides, config_of

pytestmark = pytest.mark.case("E1")
SMOKE = "configs/smoke.yaml"


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return Overrides.model_json_schema()


def sections(schema: dict[str, Any], node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """(dotted key, schema) of every key below a node, through references and unions; items of lists are left out."""
    if reference := node.get("$ref"):
        node = schema["$defs"][reference.rpartition("/")[2]]
    for member in node.get("anyOf", ()):
        yield from sections(schema, member, path)
    for name, key in node.get("properties", {}).items():
        dotted = f"{path}.{name}".strip(".")
        yield dotted, key
        yield from sections(schema, key, dotted)


def test_no_key_is_preset_and_none_is_required(schema: dict[str, Any]) -> None:
    keys = dict(sections(schema, schema))
    assert len(keys) > 150
    assert not [dotted for dotted, key in keys.items() if "default" in key]
    items = {"ParameterGroup"}  # items of lists, which are given whole
    assert {name for name, section in schema["$defs"].items() if section.get("required")} <= items


def test_the_keys_are_those_of_the_config(schema: dict[str, Any]) -> None:
    keys = {dotted for dotted, _ in sections(schema, schema)}
    config = flatten(load_config(SMOKE).model_dump(mode="json"))
    free = ("train.recompute.", "model.architecture.")
    assert {key for key in config if not key.startswith(free)} <= keys
    assert {"ingest.source.path", "train.lora.rank", "model.architecture.vision.width"} <= keys


def test_keys_are_typed_and_described(schema: dict[str, Any]) -> None:
    keys = dict(sections(schema, schema))
    assert keys["train.schedule"]["enum"] == ["cosine", "linear", "constant", "inverse_sqrt", "wsd"]
    assert keys["train.pack_tokens"] == {
        "description": "Token budget of a pack.",
        "title": "pack_tokens",
        "type": "integer",
    }
    assert keys["evaluate.batch_size"]["exclusiveMinimum"] == 0
    described = {name: field.description for name, field in StorageConfig.model_fields.items()}
    assert {name: keys[f"storage.{name}"]["description"] for name in described} == described


@pytest.mark.parametrize("untouched", [{}, Overrides(), [], Overrides.model_validate({"train": {}, "ingest": {}})])
def test_what_nobody_filled_in_changes_nothing(untouched: Any) -> None:
    assert config_of(SMOKE, untouched) == load_config(SMOKE)


@pytest.mark.parametrize(
    ("given", "texts"),
    [
        ({"train": {"steps": 5}}, ["train.steps=5"]),
        ({"train": {"lr": 1e-05}}, ["train.lr=1.0e-05"]),
        ({"train": {"guards": {"max_unsound_steps": 3}}}, ["train.guards.max_unsound_steps=3"]),
        ({"train": {"betas": [0.8, 0.9]}}, ["train.betas=[0.8, 0.9]"]),
        ({"train": {"clip_norm": None}}, ["train.clip_norm=null"]),
        ({"convert": {"answer": "it: # {answer}"}}, ["convert.answer='it: # {answer}'"]),
        ({"ingest": {"source": {"limit": 7}}}, ["ingest.source.limit=7"]),
        ({"ingest": {"source": {"kind": "folder", "path": "a"}}}, ["ingest.source={kind: folder, path: a}"]),
        ({"model": {"architecture": {"decoder": {"dim": 64}}}}, ["model.architecture.decoder.dim=64"]),
        ({"storage": {"root": "s3://b/r"}, "gate": {"min_gain": 0.5}}, ["storage.root=s3://b/r", "gate.min_gain=0.5"]),
    ],
)
def test_a_key_that_is_filled_in_is_the_only_change(given: dict[str, Any], texts: list[str]) -> None:
    wanted = load_config(SMOKE, texts)
    assert config_of(SMOKE, Overrides.model_validate(given)) == config_of(SMOKE, given) == wanted != load_config(SMOKE)


def test_a_list_of_texts_is_taken_as_on_the_command_line() -> None:
    assert config_of(SMOKE, ["train.steps=5", "name=mine"]).name == "mine"


@pytest.mark.parametrize(
    "wrong", [{"extends": SMOKE}, {"train": {"extends": SMOKE}}, {"train": {"stpes": 3}}, {"train": {"steps": "many"}}]
)
def test_keys_that_are_none_and_wrong_types_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Overrides.model_validate(wrong)


def test_values_that_cannot_be_name_their_key() -> None:
    with pytest.raises(ConfigError, match=r"override: train: steps is -1"):
        config_of(SMOKE, {"train": {"steps": -1}})
