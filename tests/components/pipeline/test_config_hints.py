"""What the config says of a key that it does not have, and of a value where a section is meant."""

from __future__ import annotations

import re

import pytest

from components.errors import ConfigError
from components.pipeline.config import PipelineConfig
from components.pipeline.config_hints import MEANT, OTHER_WORDS, known_keys
from components.pipeline.config_loading import load_config


def message(override: str) -> str:
    with pytest.raises(ConfigError) as error:
        load_config("configs/smoke.yaml", [override])
    return str(error.value)


@pytest.mark.case("E18")
@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("train.learning_rate=1e-4", "train.lr?"),
        ("steps=5", "train.steps? (there are train.profile.steps, too)"),
        ("lora.rank=5", "train.lora.rank?"),
        ("lora.r=5", "train.lora.rank?"),
        ("num_train_epochs=3", "train.epochs?"),
        ("per_device_train_batch_size=8", "train.packs_per_step?"),
        ("train.batch_size=8", "train.packs_per_step?"),
        ("bf16=true", "train.dtype=bfloat16?"),
        ("train.bf16=true", "train.dtype=bfloat16?"),
        ("min_gain=0.1", "gate.min_gain?"),
        ("training.lr=1", "train.lr?"),
        ("train.stpes=5", "train.steps?"),
        ("gate.min_gian=0.1", "gate.min_gain?"),
        ("max_new_token=5", "evaluate.max_new_tokens?"),
        ("model.architecture.vision.widht=3", "model.architecture.vision.width?"),
    ],
)
def test_an_unknown_key_gets_the_one_that_was_meant(override: str, meant: str) -> None:
    key = override.partition("=")[0]
    said = message(override)
    assert said.endswith(f": unknown key; did you mean {meant}") and "\n" not in said, said
    assert said.startswith((f"override: {key}: ", f"override: {key.partition('.')[0]}: "))


@pytest.mark.case("E18")
@pytest.mark.parametrize(
    ("override", "key"),
    [("train.lora=true", "train.lora.pattern"), ("train=5", "train.steps"), ("convert=null", "convert.answer_column")],
)
def test_a_value_where_a_section_is_meant_names_a_key_of_it(override: str, key: str) -> None:
    assert (
        f"is a section, not a value (got {'True' if 'true' in override else '5' if '5' in override else 'None'})"
        in (message(override))
    )
    assert message(override).endswith(f"set a key of it, such as {key}=…")


@pytest.mark.case("E18")
def test_the_table_of_other_words_leads_to_keys_that_there_are_and_hides_none() -> None:
    known = {key for key, _ in known_keys(PipelineConfig)}
    assert set(OTHER_WORDS) <= known
    assert len(MEANT) == sum(len(words.split()) for words in OTHER_WORDS.values())
    hidden = {
        word
        for word, key in MEANT.items()
        if any(other.startswith("train.") and other.endswith(f".{word}") for other in known)
    }
    assert not hidden


@pytest.mark.parametrize(
    ("override", "now"),
    [
        ("train.pack_tiles=4", "train.pack_media"),
        ("convert.image_column=picture", "ingest.image_column"),
        ("train.result=best", "train.publish"),
        ("train.guards.most=3", "train.guards.max_unsound_steps"),
        ("ingest.source={kind: catalogue, registry: x.yaml, datasets: [a]}", "ingest.source.catalogue"),
    ],
)
def test_a_key_that_was_renamed_is_told_by_its_name_of_today(override: str, now: str) -> None:
    with pytest.raises(ConfigError, match=rf"unknown key; it is called {re.escape(now)} now$"):
        load_config("configs/smoke.yaml", [override])
