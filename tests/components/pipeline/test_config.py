"""Configuration: layers, overrides, and errors that a person can act on."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from components.errors import ConfigError
from components.pipeline.config import PipelineConfig
from components.pipeline.config_loading import dump_config, flatten, load_config

CONFIGS = sorted(Path("configs").glob("*.yaml")) + sorted(Path("configs").glob("[fs]*/*.yaml"))
FRAGMENTS = {Path("configs/datasets.yaml"), Path("configs/stage_common.yaml")}


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def message(path: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        load_config(path, overrides)
    return str(error.value)


@pytest.mark.parametrize("path", [path for path in CONFIGS if path not in FRAGMENTS], ids=str)
def test_every_shipped_config_is_valid(path: Path) -> None:
    assert load_config(str(path)).name


def test_a_dumped_config_loads_to_an_equal_one(tmp_path: Path) -> None:
    config = load_config("configs/smoke.yaml", ["train.lr=3e-4"])
    again = load_config(write(tmp_path, "resolved.yaml", dump_config(config)))
    assert again == config


def test_extends_lays_one_file_over_another_at_any_depth(tmp_path: Path) -> None:
    write(tmp_path, "train.yaml", "steps: 7\nlr: 0.5\n")
    write(tmp_path, "base.yaml", "name: base\ntrain: {extends: train.yaml}\n")
    path = write(tmp_path, "top.yaml", "extends: base.yaml\ntrain: {lr: 0.25}\n")
    config = load_config(path)
    assert (config.name, config.train.steps, config.train.lr) == ("base", 7, 0.25)


def test_an_override_wins_over_every_file() -> None:
    assert load_config("configs/smoke.yaml", ["train.steps=3"]).train.steps == 3


def test_another_kind_of_source_replaces_the_old_one() -> None:
    config = load_config("configs/smoke.yaml", ["ingest.source={kind: folder, path: photos}"])
    assert config.ingest.source.kind == "folder"


@pytest.mark.case("R16")
def test_values_by_themselves_read_no_file() -> None:
    """What comes as values, from a flow's parameters say, cannot name a file to be read."""
    with pytest.raises(ValidationError, match="extends"):
        PipelineConfig.model_validate({"extends": "configs/smoke.yaml"})
    with pytest.raises(ValidationError, match=r"train\.extends"):
        PipelineConfig.model_validate({"train": {"extends": "configs/smoke.yaml"}})


def test_files_that_extend_each_other_are_an_error(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "extends: b.yaml\n")
    assert "circle" in message(write(tmp_path, "b.yaml", "extends: a.yaml\n"))


def test_an_unknown_key_names_file_key_and_nearest_key(tmp_path: Path) -> None:
    path = write(tmp_path, "c.yaml", "train: {learning_rate: 1, stpes: 3}\n")
    assert f"{path}: train.stpes: unknown key; did you mean train.steps?" in message(path)


def test_an_unknown_key_of_the_architecture_names_the_nearest_one(tmp_path: Path) -> None:
    path = write(tmp_path, "c.yaml", "model: {architecture: {vision: {widht: 3}}}\n")
    assert "did you mean model.architecture.vision.width?" in message(path)


def test_a_wrong_type_names_file_key_and_value(tmp_path: Path) -> None:
    path = write(tmp_path, "c.yaml", "train: {steps: many}\n")
    assert message(path).startswith(f"{path}: train.steps:")
    assert "'many'" in message(path)


def test_a_value_out_of_range_is_one_line(tmp_path: Path) -> None:
    path = write(tmp_path, "c.yaml", "convert: {test_fraction: 1.5}\n")
    assert message(path).startswith(f"{path}: convert.test_fraction:") and "\n" not in message(path)


def test_a_missing_file_is_named() -> None:
    assert message("configs/nowhere.yaml") == "configs/nowhere.yaml: no such file"


def test_a_name_that_no_file_can_have_is_one_line(tmp_path: Path) -> None:
    path = write(tmp_path, "c.yaml", 'model: {tokenizer: "a\\0b"}\n')
    assert message(path) == r"'a\x00b': no file can have this name"


def test_broken_yaml_names_the_line(tmp_path: Path) -> None:
    assert ":2: not valid YAML" in message(write(tmp_path, "c.yaml", "train:\n  steps: ]\n"))


def test_an_override_without_a_value_is_explained() -> None:
    assert "looks like" in message("configs/smoke.yaml", "train.steps")


def test_credentials_in_a_uri_are_refused_and_not_repeated(tmp_path: Path) -> None:
    text = message(write(tmp_path, "c.yaml", "tracking: {uri: 'http://me:secret@host:5000'}\n"))
    assert "credentials" in text and "secret" not in text


def test_flatten_names_every_leaf() -> None:
    assert flatten({"a": {"b": 1}, "c": [2]}) == {"a.b": 1, "c": [2]}


def test_the_prefect_form_needs_no_value(repository: Path) -> None:
    assert "required" not in PipelineConfig.model_json_schema()


def test_deployments_name_real_configs(repository: Path) -> None:
    for deployment in yaml.safe_load((repository / "prefect.yaml").read_text())["deployments"]:
        assert load_config(deployment["parameters"]["config"]).name


def test_extends_as_an_override_is_one_line() -> None:
    text = message("configs/smoke.yaml", "extends=configs/demo.yaml")
    assert text.startswith("extends=configs/demo.yaml: ") and "\n" not in text


@pytest.mark.parametrize("value", [0, 1])
def test_a_confidence_without_an_interval_is_refused_before_anything_runs(value: int) -> None:
    assert "compare.confidence" in message("configs/smoke.yaml", f"compare.confidence={value}")


@pytest.mark.case("E16")
def test_the_length_is_in_steps_or_in_epochs_and_the_upper_layer_says_which(tmp_path: Path) -> None:
    assert load_config("configs/demo.yaml", ["train.epochs=3"]).train.epochs == 3
    assert load_config("configs/demo.yaml", ["train.epochs=3"]).train.steps is None
    top = write(tmp_path, "top.yaml", f"extends: {Path('configs/demo.yaml').resolve()}\ntrain: {{epochs: 2}}\n")
    assert (load_config(top).train.steps, load_config(top).train.epochs) == (None, 2)
    back = load_config(top, ["train.steps=7"]).train
    assert (back.steps, back.epochs) == (7, None)
    both = write(tmp_path, "both.yaml", "train: {epochs: 2, steps: 3}\n")
    assert message(both).startswith(f"{both}: train: steps is 3 and epochs is 2; give one of them")
    assert load_config(write(tmp_path, "neither.yaml", "name: a\n")).train.steps == 100
    again = load_config(write(tmp_path, "dumped.yaml", dump_config(load_config(top))))
    assert again == load_config(top)
    assert "epochs is -1" in message(top, "train.epochs=-1")


@pytest.mark.case("E16")
def test_own_data_take_the_neutral_base_and_the_measure_is_named_after_the_pipeline(tmp_path: Path) -> None:
    text = f"extends: {Path('configs/base.yaml').resolve()}\nname: leaves\ningest: {{source: {{kind: folder, path: data}}}}\n"
    mine = load_config(write(tmp_path, "mine.yaml", text))
    assert (mine.evaluate.task, mine.train.epochs, mine.train.steps, mine.gate.min_gain) == ("leaves", 10, None, 0)
    assert load_config("configs/demo.yaml").evaluate.task == load_config("configs/smoke.yaml").evaluate.task == "digits"
    assert PipelineConfig().evaluate.task == "pipeline" and PipelineConfig().train.steps == 100
