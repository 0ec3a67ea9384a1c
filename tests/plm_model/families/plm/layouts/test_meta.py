"""The release layout: whole or in parts, tied as the original has it, and there and back without a bit changed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from plm_model.families.plm.layouts.detect import detect_layout, open_model, read_directory, write_directory
from plm_model.families.plm.layouts.meta_params import params_json, read_params
from plm_model.families.plm.settings import PLMConfig, ProcessorConfig
from plm_model.families.plm.weights import save_companions, shapes_of
from plm_model.model_directory.files import save_tensors
from plm_model.model_directory.safetensors_writer import WeightsError
from tests.plm_model.model_directories import (
    SCALED,
    TOKENIZER,
    UNTIED,
    VARIANTS,
    reference_directory,
    release,
    tokenizer,
)

EXTRA = {"model": {"use_new_thing": 3, "vision_model": {"odd": True}}, "data": {"seed": 1}, "dump_dir": "x"}


def state_of(directory: Path) -> dict[str, torch.Tensor]:
    return torch.load(directory / "consolidated.pth", weights_only=True)


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(
        torch.equal(left[name], right[name]) and left[name].dtype == right[name].dtype for name in left
    )


def edit(path: Path, change: dict[str, Any]) -> None:
    values = json.loads(path.read_text())
    merge(values, change)
    path.write_text(json.dumps(values))


def json_of(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "params.json").read_text())


def merge(values: dict[str, Any], change: dict[str, Any]) -> None:
    for key, value in change.items():
        if isinstance(value, dict) and isinstance(values.get(key), dict):
            merge(values[key], value)
        else:
            values[key] = value


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_a_release_reads_back_as_the_same_model(config: PLMConfig, dtype: torch.dtype, tmp_path: Path) -> None:
    state = release(tmp_path, config, dtype)
    opened = read_directory(tmp_path / "meta")
    assert opened.config == config and opened.layout == "meta" and opened.notes == ()
    assert all(torch.equal(state[name], tensor) for name, tensor in opened.stream())
    text = "Which digit is in the image? <|image|> 123"
    assert opened.tokenizer.encode(text) == read_directory(tmp_path / "own").tokenizer.encode(text)


@pytest.mark.case("E3")
def test_a_tied_output_with_other_numbers_is_kept_as_an_output_of_its_own(tmp_path: Path) -> None:
    state = release(tmp_path)
    head = state["tok_embeddings.weight"] * 2
    torch.save(state | {"output.tied_module.weight": head}, tmp_path / "meta" / "consolidated.pth")
    opened = read_directory(tmp_path / "meta")
    assert not opened.config.decoder.tied and "is not the embedding" in opened.notes[0]
    assert torch.equal(dict(opened.stream())["output.weight"], head)


def test_a_tied_output_is_a_second_name_for_one_copy(tmp_path: Path) -> None:
    state = release(tmp_path)
    assert "output.weight" not in state
    assert state["output.tied_module.weight"].data_ptr() == state["tok_embeddings.weight"].data_ptr()
    size = sum(t.numel() * 4 for name, t in state.items() if name != "output.tied_module.weight")
    assert (tmp_path / "meta" / "consolidated.pth").stat().st_size < 1.2 * size


def test_parts_and_wrapped_states_are_read(tmp_path: Path) -> None:
    state = release(tmp_path, UNTIED)
    folder = tmp_path / "meta"
    expected = {name: tensor.clone() for name, tensor in read_directory(folder).stream()}
    (folder / "consolidated.pth").unlink()
    for number, part in enumerate((list(state)[:20], list(state)[20:])):
        torch.save({"model": {name: state[name] for name in part}}, folder / f"consolidated.{number:02d}.pth")
    assert same(dict(read_directory(folder).stream()), expected)


def test_parts_that_slice_a_tensor_are_refused(tmp_path: Path) -> None:
    state = release(tmp_path)
    folder = tmp_path / "meta"
    (folder / "consolidated.pth").rename(folder / "consolidated.00.pth")
    torch.save({"norm.weight": state["norm.weight"]}, folder / "consolidated.01.pth")
    with pytest.raises(
        WeightsError, match=r"consolidated\.01\.pth: tensor norm\.weight is in consolidated\.00\.pth too"
    ):
        read_directory(folder)


def test_the_release_in_a_subfolder_is_found(tmp_path: Path) -> None:
    release(tmp_path)
    (tmp_path / "meta").rename(tmp_path / "original")
    assert detect_layout(tmp_path) == ("meta", tmp_path / "original")


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_hf_to_meta_to_hf_changes_no_bit(config: PLMConfig, tmp_path: Path) -> None:
    pytest.importorskip("timm")
    reference_directory(tmp_path / "a", config)
    write_directory(read_directory(tmp_path / "a"), tmp_path / "b", "meta")
    write_directory(read_directory(tmp_path / "b"), tmp_path / "c", "hf")
    assert same(load_file(tmp_path / "a" / "model.safetensors"), load_file(tmp_path / "c" / "model.safetensors"))
    own, back = json.loads(TOKENIZER.read_text()), json.loads((tmp_path / "c" / "tokenizer.json").read_text())
    assert own["model"]["vocab"] == back["model"]["vocab"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("between", ["hf", "own"])
def test_meta_to_another_and_back_changes_no_bit_and_no_field(
    between: str, config: PLMConfig, dtype: torch.dtype, tmp_path: Path
) -> None:
    before = release(tmp_path, config, dtype)
    edit(tmp_path / "meta" / "params.json", EXTRA)
    write_directory(read_directory(tmp_path / "meta"), tmp_path / "b", between)
    write_directory(read_directory(tmp_path / "b"), tmp_path / "c", "meta")
    assert same(before, state_of(tmp_path / "c"))
    assert json_of(tmp_path / "c") == json_of(tmp_path / "meta")
    ranks = [(tmp_path / folder / "tokenizer.model").read_bytes() for folder in ("c", "meta")]
    assert ranks[0] == ranks[1]


def test_unknown_fields_are_accepted_and_listed(tmp_path: Path) -> None:
    release(tmp_path)
    edit(tmp_path / "meta" / "params.json", EXTRA)
    opened = read_directory(tmp_path / "meta")
    assert opened.config == SCALED
    listed = opened.notes[0].partition("not used: ")[2].split(", ")
    assert {"model.use_new_thing", "model.vision_model.odd", "data.seed", "dump_dir"} <= set(listed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm.weight": None}, "tensor norm.weight is missing"),
        ({"norm.bias": torch.zeros(64)}, "tensor norm.bias is not part of the model"),
        ({"norm.weight": torch.zeros(63)}, r"tensor norm.weight has shape \(63,\), the model's is \(64,\)"),
        ({"step": 7}, "step is not a tensor"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    state = release(tmp_path) | change
    file = tmp_path / "meta" / "consolidated.pth"
    torch.save({name: tensor for name, tensor in state.items() if tensor is not None}, file)
    with pytest.raises(WeightsError, match=message):
        read_directory(tmp_path / "meta")


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    release(tmp_path)
    torch.save({"norm.weight": Path("x")}, tmp_path / "meta" / "consolidated.pth")
    with pytest.raises(WeightsError, match=r"consolidated\.pth: cannot read the tensors"):
        read_directory(tmp_path / "meta")


def test_a_rank_file_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    release(tmp_path)
    file = tmp_path / "meta" / "tokenizer.model"
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:600]))
    with pytest.raises(WeightsError, match=r"tokenizer\.model: its 600 tokens do not belong to a vocabulary of 1,010"):
        read_directory(tmp_path / "meta")


PUBLISHED = {
    "model": {
        "dim": 2048,
        "n_layers": 16,
        "n_heads": 32,
        "n_kv_heads": 8,
        "ffn_dim_multiplier": 1.5,
        "multiple_of": 256,
        "norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "use_scaled_rope": True,
        "rope_scale_factor": 32,
        "low_freq_factor": 1,
        "high_freq_factor": 4,
        "old_context_len": 8192,
        "weight_tying": True,
        "max_seqlen": 11520,
        "pooling_ratio": 2,
        "vision_model": {"image_size": 448, "patch_size": 14, "width": 1024, "layers": 23, "heads": 16}
        | {"mlp_ratio": 4.0, "use_cls_token": True, "ls_init_value": 0.1, "drop_path": 0.1, "pool_type": "none"},
    },
    "data": {"vision_input_type": "thumb+tile", "max_num_tiles": 36, "max_video_frames": 32},
}


def test_the_published_sizes_are_understood() -> None:
    config, _ = read_params(PUBLISHED, 128256, 128002)
    scaling = config.decoder.rope_scaling
    assert scaling is not None and (scaling.factor, scaling.high_freq_factor) == (32.0, 4.0)
    assert config == replace(PLMConfig(), decoder=replace(PLMConfig().decoder, rope_scaling=scaling))
    large = {"model": PUBLISHED["model"] | {"dim": 4096, "ffn_dim_multiplier": 1.3, "multiple_of": 1024}}
    assert read_params(large, 128256, 128002)[0].decoder.hidden_dim == 14336
    assert (
        read_params({"model": PUBLISHED["model"] | {"rope_scale_factor": 1}}, 128256, 128002)[0].decoder.rope_scaling
        is None
    )


def test_any_width_of_the_feed_forward_can_be_written() -> None:
    for hidden in (96, 100, 170, 171, 1000):
        config = replace(SCALED, decoder=replace(SCALED.decoder, hidden_dim=hidden))
        assert read_params(params_json(config, torch.float32, "tokenizer.model"), 1010, 1002)[0] == config


def test_how_media_are_read_is_kept_where_the_original_has_no_field_for_it() -> None:
    assert "jpeg_dct_scaling" not in params_json(SCALED, torch.float32, "tokenizer.model")["data"]
    config = replace(SCALED, processor=ProcessorConfig(jpeg_dct_scaling=True, system_prompt="Be kind."))
    read, unknown = read_params(params_json(config, torch.float32, "tokenizer.model"), 1010, 1002)
    assert read == config and unknown == []


def test_an_original_whose_model_was_changed_keeps_its_other_fields() -> None:
    config = replace(SCALED, processor=ProcessorConfig(max_num_tiles=4))
    params = params_json(SCALED, torch.float32, "tokenizer.model")
    merge(params, EXTRA)
    changed = params_json(config, torch.bfloat16, "tokenizer.model", params)
    assert changed["model"]["use_new_thing"] == 3 and changed["data"]["max_num_tiles"] == 4
    assert read_params(changed, 1010, 1002)[0] == config


PEAK = """
import sys, threading, time
import torch
from plm_model.families.plm.layouts.detect import open_model
torch.set_num_threads(1)
def anonymous():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon"))
open_model(sys.argv[2])  # what is imported at the first use is no cost of a model
before, peak, done = anonymous(), 0, threading.Event()
def watch():
    global peak
    while not done.is_set():
        peak = max(peak, anonymous())
        time.sleep(0.001)
thread = threading.Thread(target=watch)
thread.start()
model, _ = open_model(sys.argv[1], dtype=torch.bfloat16)
done.set(); thread.join()
print((max(peak, anonymous()) - before) * 1024 / sum(p.numel() * p.element_size() for p in model.parameters()))
"""


@pytest.mark.e2e
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("layout", ["own", "hf", "meta"])
def test_loading_costs_the_model_and_little_more(layout: str, tmp_path: Path) -> None:
    decoder = replace(SCALED.decoder, dim=1024, hidden_dim=4096, layers=8)
    config = replace(SCALED, decoder=decoder, vision=replace(SCALED.vision, width=256))
    for name, written in (("own", config), ("small", SCALED)):
        entries = {key: (torch.bfloat16, shape) for key, shape in shapes_of(written).items()}
        save_companions(written, tokenizer(), tmp_path / name)
        save_tensors(tmp_path / name, entries, ((key, torch.ones(shape)) for key, (_, shape) in entries.items()))
    if layout != "own":
        write_directory(read_directory(tmp_path / "own"), tmp_path / layout, layout)
    place = tmp_path / layout
    out = subprocess.run(
        [sys.executable, "-c", PEAK, str(place), str(tmp_path / "small")], capture_output=True, text=True, check=True
    )
    assert float(out.stdout) < 1.15


def test_a_model_opens_from_a_release(tmp_path: Path) -> None:
    state = release(tmp_path)
    model, own_tokenizer = open_model(tmp_path / "meta")
    assert not model.training and torch.equal(model.norm.weight, state["norm.weight"])
    assert own_tokenizer.image_id == 1002
