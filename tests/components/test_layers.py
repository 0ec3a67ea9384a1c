"""YAML that is too large, too deep or without end is refused in one line, before anything walks through it."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.errors import ConfigError
from components.layers import MOST_CHARACTERS, read_file

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)


@pytest.mark.case("R17")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "its anchors make it more than 20,000 values"),
        ("a: &a {b: *a}", "its anchors make it more than 20,000 values"),
        ("[" * 50_000, "is nested too deeply"),
        ("a: " + "{b: " * 20_000, "is nested too deeply"),
        ("# much\n" * (MOST_CHARACTERS // 7 + 1), "characters, more than a config can have"),
        ("a: 2020-13-45", "not valid YAML: a date, or a value"),
        ("[]", "must hold a mapping of keys, not list"),
    ],
    ids=["laughs", "itself", "lists", "mappings", "large", "date", "list"],
)
def test_yaml_beyond_any_config_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        read_file(str(path))
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.case("R17")
def test_ordinary_anchors_are_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("base: &base {lr: 1, steps: 2}\ntrain: {<<: *base, steps: 3}\n")
    assert read_file(str(path)).values["train"] == {"lr": 1, "steps": 3}
