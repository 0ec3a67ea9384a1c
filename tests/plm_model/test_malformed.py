"""Files that are no model's, in every layout: one line with the file or the key, in no time, and never weights with NaN."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from plm_model.families.plm.layouts.detect import read_directory, write_directory
from plm_model.families.plm.weights import load, load_model
from plm_model.model_directory.safetensors_writer import WeightsError
from tests.plm_model.model_directories import own_directory

pytestmark = pytest.mark.case("R17")
DEEP = b"[" * 100_000
NOT_OBJECTS = {"a list": b"[]", "null": b"null", "a number": b"3", "deep": DEEP, "not utf-8": b"\xff{}", "empty": b""}
ODD = [None, [], {}, "x", True, False, float("nan"), float("inf"), -1, 0, 0.5, 10**30, 20_000, [[[]]], {"a": 1}]
DESCRIPTIONS = {
    "plm": ("config.json", "tokenizer.json"),
    "hf": ("config.json", "preprocessor_config.json", "tokenizer.json"),
    "meta": ("params.json",),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small model in every layout."""
    folder = tmp_path_factory.mktemp("malformed")
    own_directory(folder / "plm")
    for layout in ("hf", "meta"):
        write_directory(read_directory(folder / "plm"), folder / layout, layout)
    return folder


@pytest.fixture
def changed(models: Path) -> Iterator[Any]:
    """Gives a file other contents until the test ends."""
    kept: dict[Path, bytes | None] = {}

    def change(path: Path, data: bytes) -> None:
        kept.setdefault(path, path.read_bytes() if path.exists() else None)
        path.write_bytes(data)

    yield change
    for path, data in kept.items():
        if data is None:
            path.unlink()
        else:
            path.write_bytes(data)


def refused(directory: Path) -> str:
    """The one line that a directory is refused with."""
    with pytest.raises(ValueError, match=str(directory)) as error:
        read_directory(directory)
    line = str(error.value)
    assert "\n" not in line and len(line) < 500 and str(directory) in line, line
    return line


@pytest.mark.parametrize("data", NOT_OBJECTS.values(), ids=NOT_OBJECTS)
@pytest.mark.parametrize(("layout", "name"), [(one, name) for one, names in DESCRIPTIONS.items() for name in names])
def test_a_description_that_is_no_object_is_named(
    models: Path, changed: Any, layout: str, name: str, data: bytes
) -> None:
    changed(models / layout / name, data)
    assert name in refused(models / layout)


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every value of a JSON object, of sections too."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*path, key))


@pytest.mark.parametrize(
    ("layout", "name"), [(one, name) for one, names in DESCRIPTIONS.items() for name in names if "token" not in name]
)
def test_any_value_of_a_description_may_be_odd(models: Path, changed: Any, layout: str, name: str) -> None:
    original = json.loads((models / layout / name).read_text())
    draw = random.Random(f"{layout} {name}")
    for path in leaves(original):
        for value in draw.sample(ODD, 1):
            values = json.loads(json.dumps(original))
            holder = values
            for key in path[:-1]:
                holder = holder[key]
            holder[path[-1]] = value
            changed(models / layout / name, json.dumps(values).encode())
            try:
                read_directory(models / layout)
            except ValueError as error:
                assert "\n" not in str(error) and len(str(error)) < 500, (path, value, error)


@pytest.mark.parametrize(
    ("layout", "change", "message"),
    [
        (
            "hf",
            {"text_config": {"max_position_embeddings": None}},
            "text_config.max_position_embeddings is None; it must",
        ),
        ("hf", {"text_config": {"num_hidden_layers": 20_000}}, "decoder.layers is 20000; it must be at most 1,000"),
        (
            "hf",
            {"text_config": {"num_attention_heads": 0}},
            "text_config.num_attention_heads is 0; it must be a positive",
        ),
        ("hf", {"text_config": []}, "config.json: text_config must be an object, not a list"),
        ("hf", {"vision_config": {"model_args": {"depth": "x"}}}, "vision_config.model_args.depth is 'x'; it must be"),
        ("meta", {"model": {"n_layers": 20_000}}, "decoder.layers is 20000; it must be at most 1,000"),
        ("meta", {"model": {"n_heads": 0}}, "model.n_heads is 0; it must be a positive whole number"),
        ("plm", {"decoder": {"rope_scaling": []}}, "decoder.rope_scaling must be a mapping"),
    ],
)
def test_the_key_is_named(models: Path, changed: Any, layout: str, change: dict[str, Any], message: str) -> None:
    path = models / layout / DESCRIPTIONS[layout][0]
    values = json.loads(path.read_text())

    def lay(over: dict[str, Any], base: dict[str, Any]) -> None:
        for key, value in over.items():
            if isinstance(value, dict) and value:
                lay(value, base[key])
            else:
                base[key] = value

    lay(change, values)
    changed(path, json.dumps(values).encode())
    assert message in refused(models / layout)


@pytest.mark.parametrize(
    "data", [DEEP, b"\xff" * 40, (2**62).to_bytes(8, "little"), b"", (4).to_bytes(8, "little") + b"null"]
)
@pytest.mark.parametrize("layout", ["plm", "hf"])
def test_a_header_of_tensors_that_is_none_is_named(models: Path, changed: Any, layout: str, data: bytes) -> None:
    changed(models / layout / "model.safetensors", data)
    assert "model.safetensors" in refused(models / layout)


@pytest.mark.parametrize(
    "index", [b"[]", b"{}", b'{"weight_map": []}', b'{"weight_map": {"a": 3}}', b'{"weight_map": {"a": "/x"}}']
)
def test_an_index_that_is_none_is_named(models: Path, changed: Any, index: bytes) -> None:
    changed(models / "plm" / "model.safetensors.index.json", index)
    if index != b"{}":  # no word of another file: the one of the usual name
        assert "model.safetensors.index.json" in refused(models / "plm")


FIRST = "layers.0.attention.wq.weight"


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(()), r"has shape \(\), the model's is \(64, 64\)"),
        (torch.zeros(64, 64, dtype=torch.int32), "is stored as int32: quantised weights are not read"),
    ],
)
def test_a_tensor_that_is_none_of_ours_is_named(models: Path, changed: Any, tensor: torch.Tensor, message: str) -> None:
    for layout, name in (("plm", FIRST), ("hf", "model.language_model.layers.0.self_attn.q_proj.weight")):
        file = models / layout / "model.safetensors"
        tensors = {key: value.clone() for key, value in load_file(file).items()}  # not mapped: the file is written anew
        changed(file, b"")
        save_file(tensors | {name: tensor}, file)
        assert re.search(f"tensor {name} {message}", refused(models / layout))
    file = models / "meta" / "consolidated.pth"
    state = torch.load(file, weights_only=True)
    changed(file, b"")
    torch.save(state | {FIRST: tensor}, file)
    assert re.search(f"tensor {FIRST} {message}", refused(models / "meta"))


@pytest.mark.parametrize(
    "state", [[], {}, {"tok_embeddings.weight": torch.zeros(())}, {3: torch.zeros(2)}, {"a": None}]
)
def test_a_pth_that_is_none_is_named(models: Path, changed: Any, state: Any) -> None:
    changed(models / "meta" / "consolidated.pth", b"")
    torch.save(state, models / "meta" / "consolidated.pth")
    refused(models / "meta")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(
    models: Path, changed: Any, tmp_path: Path, value: float
) -> None:
    file = models / "plm" / "model.safetensors"
    tensors = {key: value.clone() for key, value in load_file(file).items()}
    tensors[FIRST] = tensors[FIRST].clone()
    tensors[FIRST][3, 5] = value
    changed(file, b"")
    save_file(tensors, file)
    opened = read_directory(models / "plm")
    message = f"tensor {FIRST} holds values that are not finite"
    for use in (
        lambda: load(opened, "cpu", torch.float32),
        lambda: write_directory(opened, tmp_path / "hf", "hf"),
        lambda: load_model(models / "plm"),
    ):
        with pytest.raises(WeightsError, match=message):
            use()


def test_large_finite_numbers_whose_sum_overflows_are_kept() -> None:
    from plm_model.model_directory.finite import is_finite

    assert is_finite(torch.full((4,), 3e38)) and not is_finite(torch.tensor([1e38, float("-inf")]))
