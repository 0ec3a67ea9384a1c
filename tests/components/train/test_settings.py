"""Settings that cannot be are refused with their key, whatever the field: no trace of a library, no run with nonsense."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from components.errors import ConfigError
from components.pipeline.config import PipelineConfig
from components.train.sections import GuardSettings, LoRASettings, ParallelSettings, ParameterGroup, ProfileSettings
from components.train.settings import TrainConfig
from plm_model.answers.options import GenerationOptions
from plm_model.families.plm.settings import PLMConfig, ProcessorConfig, VisionConfig
from plm_model.nn.config import DecoderConfig, RopeScaling
from plm_model.parsing.bounds import Range, complaints, hints
from plm_model.parsing.dataclass import ConfigError as ModelConfigError
from plm_model.parsing.dataclass import parse

pytestmark = pytest.mark.case("E12")
GIVEN = {ParameterGroup: {"pattern": "x"}, LoRASettings: {"pattern": "x"}}
CLASSES = (
    *(TrainConfig, GuardSettings, LoRASettings, ParallelSettings, ParameterGroup, ProfileSettings),
    *(PLMConfig, VisionConfig, DecoderConfig, RopeScaling, ProcessorConfig, GenerationOptions),
)
ODD = (
    *(math.nan, math.inf, -math.inf, 10**20, -(10**20), 10**400, 1e308, 1e-320, -1, 0, True, None),
    *("", "x", "nan", b"x", [], [1], [math.nan] * 2, [1.5, 0.5], {}, {"x": {}}, {"vision": "sometimes"}, object()),
)
FIELDS = [(cls, name) for cls in CLASSES for name in hints(cls)]


def numbers(value: Any) -> Iterator[float]:
    """Every number inside of a value."""
    if isinstance(value, tuple | list):
        for item in value:
            yield from numbers(item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


@pytest.mark.parametrize(("cls", "name"), FIELDS, ids=lambda part: getattr(part, "__name__", part))
def test_a_field_takes_what_is_sane_and_names_itself_otherwise(cls: type, name: str) -> None:
    bounds: dict[str, Range] = getattr(cls, "BOUNDS", {})
    for value in ODD:
        try:
            made = cls(**{**GIVEN.get(cls, {}), name: value})
        except ValueError as error:
            told = str(error)
            assert name in told and "\n" not in told and len(told) < 250, told
        else:
            kept = getattr(made, name)
            assert not list(complaints(kept, hints(cls)[name], bounds.get(name), name))
            assert all(math.isfinite(number) and abs(number) <= 2**63 for number in numbers(kept)), (name, value)


def test_every_number_has_a_range() -> None:
    numeric = {
        f"{cls.__name__}.{field.name}"
        for cls in CLASSES
        for field in dataclasses.fields(cls)
        if any(kind in str(hints(cls)[field.name]) for kind in ("int", "float"))
        and "Literal" not in str(hints(cls)[field.name])
    }
    assert numeric == {f"{cls.__name__}.{name}" for cls in CLASSES for name in getattr(cls, "BOUNDS", {})}


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"betas": [1.5, 0.9]}, r"betas\[0\] is 1\.5; it must be below 1"),
        ({"betas": [0.9, math.nan]}, r"betas\[1\] is nan; it must be a finite number"),
        ({"seed": 10**20}, "seed"),
        ({"lr": math.inf}, "lr is inf; it must be at most 1,000"),
        ({"freeze": ["("]}, r"freeze is '\('; it is not a regular expression"),
        ({"groups": [{"pattern": "*"}]}, r"pattern is '\*'; it is not a regular expression"),
        ({"lora": {"pattern": "wq", "dropout": 1.0}}, "dropout is 1.0; it must be below 1"),
        ({"datamix": "a:1e999999999"}, "the weight of a is '1e999999999', which is no number"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0; it must be below 1"),
        ({"parallel": {"replicas": 10**9}}, "replicas is 1000000000; it must be at most 65,536"),
    ],
)
def test_the_config_and_the_plain_settings_refuse_alike(train: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(TrainConfig, yaml.safe_load(yaml.safe_dump(train)), "train.")
    with pytest.raises(ValueError, match="seed" if message == "seed" else message):
        PipelineConfig.model_validate({"train": train})


def test_plain_settings_name_the_whole_key() -> None:
    with pytest.raises(ValueError, match=r"^train\.guards\.spike_factor is -3\.0; it must be positive"):
        parse(TrainConfig, {"guards": {"spike_factor": -3}}, "train.")
    with pytest.raises(ValueError, match=r"^train\.steps is inf; it must be a whole number"):
        parse(TrainConfig, {"steps": math.inf}, "train.")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"decoder": {"max_seq_len": 10**12}}, "decoder.max_seq_len is 1000000000000; it must be at most 16,777,216"),
        ({"decoder": {"norm_eps": math.nan}}, "decoder.norm_eps is nan; it must be a finite number"),
        ({"decoder": {"layers": 20_000}}, "decoder.layers is 20000; it must be at most 1,000"),
        ({"vision": {"image_size": 10_000, "patch_size": 1}}, "vision.image_size / patch_size is 10000; .* 1024"),
        ({"vision": {"mlp_ratio": 1e-9}}, "vision.mlp_ratio is 1e-09; it gives an MLP without width"),
        ({"processor": {"system_prompt": None}}, "processor.system_prompt is None; it must be text"),
    ],
)
def test_a_model_that_cannot_be_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelConfigError, match=message):
        PLMConfig.from_dict(values)


def test_a_file_of_settings_names_file_and_key(tmp_path: Any) -> None:
    from components.train.launch.plain_settings import read_settings

    path = tmp_path / "train.yaml"
    path.write_text("train: {betas: [1.5, 0.9]}")
    with pytest.raises(ConfigError, match=r"train\.yaml: train\.betas\[0\] is 1\.5; it must be below 1"):
        read_settings(str(path))
