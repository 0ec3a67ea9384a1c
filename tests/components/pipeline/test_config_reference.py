"""`plm config` and its page tell of every key what the types themselves say."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.errors import ConfigError
from components.pipeline.config_loading import flatten, load_config
from components.pipeline.config_reference import as_page, described, entries
from flows.cli import main


def test_every_key_has_a_meaning() -> None:
    assert not [entry.key for entry in entries() if not entry.meaning]


def test_every_key_of_a_config_is_there() -> None:
    known = {".".join(part.split(" ")[0] for part in entry.key.split(".")) for entry in entries()}
    mappings = ("train.recompute", "train.lora", "train.profile")
    missing = {key for key in flatten(load_config("configs/smoke.yaml").model_dump(mode="json")) if key not in known}
    assert {key for key in missing if not key.startswith(mappings)} == {"ingest.source.kind"}


def test_the_page_is_current() -> None:
    """`plm config --page > configs/KEYS.md` makes it."""
    assert Path("configs/KEYS.md").read_text() == as_page(entries())


def test_a_section_tells_of_its_keys_and_what_changes_no_result(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "train.guards"]) == 0
    said = capsys.readouterr().out
    assert "train.guards.spike_factor: 3.0   # number\n    A loss above" in said
    assert "train.guards.hang_seconds: 40.0   # number; no other result\n" in said


def test_an_unknown_key_gets_the_one_that_was_meant() -> None:
    with pytest.raises(ConfigError, match=r"^train\.ler: no such key; did you mean train\.lr\?$"):
        described("train.ler")
