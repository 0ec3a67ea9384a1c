"""A model directory holds exactly the model, and says which tensor does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from plm_model.families.plm.model import PLM, build
from plm_model.families.plm.settings import PLMConfig
from plm_model.families.plm.tokenizer import Tokenizer
from plm_model.families.plm.weights import initialise, load_config, load_model, save_model, shapes_of
from plm_model.model_directory.files import load_weights, save_tensors
from plm_model.model_directory.safetensors_writer import SafetensorsWriter, WeightsError
from plm_model.nn.tensors import copy_into

TOKENIZER = Path(__file__).parents[4] / "configs" / "tokenizers" / "plm_tiny" / "tokenizer.json"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(TOKENIZER)


@pytest.fixture
def saved(model: PLM, tokenizer: Tokenizer, tmp_path: Path) -> Path:
    save_model(model, model.config, tokenizer, tmp_path / "model")
    return tmp_path / "model"


def rewrite(saved: Path, change: dict[str, torch.Tensor | None]) -> None:
    tensors = load_file(saved / "model.safetensors") | change
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, saved / "model.safetensors")


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_fresh_weights_depend_on_the_seed_alone(tiny: PLMConfig) -> None:
    torch.manual_seed(5)
    first = initialise(build(tiny), seed=1)
    assert same(first, initialise(build(tiny, device="cpu"), seed=1))
    assert not torch.equal(first.tok_embeddings.weight, initialise(build(tiny), seed=2).tok_embeddings.weight)


@pytest.mark.parametrize("variant", ["tiny", "untied"])
def test_fresh_weights_have_the_published_spread(variant: str, request: pytest.FixtureRequest) -> None:
    model = initialise(build(request.getfixturevalue(variant)), seed=0)
    parameters = dict(model.named_parameters())
    expected = {
        "tok_embeddings.weight": 64**-0.5,
        "layers.0.attention.wq.weight": 64**-0.5,
        "layers.0.feed_forward.w2.weight": 96**-0.5,
        "vision_projector.projector.0.weight": 64**-0.5,
    }
    for name, sigma in expected.items():
        assert parameters[name].std().item() == pytest.approx(sigma, rel=0.05)
        assert parameters[name].abs().max() <= 3 * sigma
    assert (parameters["norm.weight"] == 1).all() and (parameters["vision_model.ln_pre.weight"] == 1).all()
    assert (parameters["vision_model.transformer.resblocks.0.attn.in_proj_bias"] == 0).all()
    assert all(parameter.isfinite().all() for parameter in parameters.values())


def test_a_sharded_parameter_takes_its_own_rows() -> None:
    fake_pg = pytest.importorskip("torch.testing._internal.distributed.fake_pg")
    dist.init_process_group("fake", rank=1, world_size=3, store=fake_pg.FakeStore())
    try:
        parameter = distribute_tensor(torch.zeros(64), init_device_mesh("cpu", (3,)), [Shard(0)], src_data_rank=None)
        rows = torch.arange(64.0)
        copy_into(parameter, rows)
        assert torch.equal(parameter.to_local(), rows.chunk(3)[1])
    finally:
        dist.destroy_process_group()


def test_layer_scale_starts_at_the_configured_value(model: PLM) -> None:
    assert (model.vision_model.transformer.resblocks[0].ls_1.gamma == 0.1).all()


def test_a_saved_model_comes_back(model: PLM, saved: Path) -> None:
    loaded, tokenizer = load_model(saved)
    assert same(loaded, model)
    assert loaded.config == model.config and not loaded.training
    assert tokenizer.source == TOKENIZER.read_bytes()


def test_a_model_can_be_loaded_in_half_precision(model: PLM, saved: Path) -> None:
    loaded, _ = load_model(saved, dtype=torch.bfloat16)
    assert torch.equal(loaded.norm.weight, model.norm.weight.bfloat16())
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}


def test_a_directory_of_several_files_comes_back(model: PLM, tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_model(model, model.config, tokenizer, tmp_path, max_shard_bytes=100_000)
    assert not (tmp_path / "model.safetensors").exists()
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 2
    assert same(load_model(tmp_path)[0], model)


def test_the_companions_say_what_the_model_is(saved: Path, tiny: PLMConfig) -> None:
    assert json.loads((saved / "config.json").read_text())["model_type"] == "plm"
    assert load_config(saved) == tiny
    processor = json.loads((saved / "processor_config.json").read_text())
    assert processor["image_size"] == 56 and processor["max_num_tiles"] == tiny.processor.max_num_tiles


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm.weight": None}, "tensor norm.weight is missing"),
        ({"norm.bias": torch.zeros(64)}, "tensor norm.bias is not part of the model"),
        ({"norm.weight": torch.zeros(63)}, r"tensor norm.weight has shape \(63,\), the model's is \(64,\)"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named_and_nothing_is_loaded(
    change: dict[str, torch.Tensor | None], message: str, saved: Path, tiny: PLMConfig
) -> None:
    rewrite(saved, change)
    other = initialise(build(tiny), seed=9)
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(WeightsError, match=message):
        load_weights(other, saved)
    assert all(torch.equal(before[name], tensor) for name, tensor in other.state_dict().items())


def test_a_cut_file_is_refused(saved: Path) -> None:
    file = saved / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        load_model(saved)


def test_a_config_of_another_kind_is_refused(saved: Path) -> None:
    (saved / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(WeightsError, match=r"config\.json: not a model"):
        load_model(saved)


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"config\.json: cannot read it"):
        load_model(tmp_path / "nowhere")


def test_tensors_can_be_streamed_without_a_model(tiny: PLMConfig, model: PLM, tmp_path: Path) -> None:
    entries = {name: (torch.bfloat16, shape) for name, shape in shapes_of(tiny).items()}
    state = model.state_dict()
    save_tensors(tmp_path, entries, ((name, state[name]) for name in entries))
    loaded = load_file(tmp_path / "model.safetensors")
    assert list(loaded) and all(torch.equal(loaded[name], state[name].bfloat16()) for name in entries)


ENTRIES = {"a": (torch.float32, (2, 3)), "b": (torch.bfloat16, ()), "c": (torch.int64, (0,))}


def test_the_writer_makes_a_file_that_safetensors_reads(tmp_path: Path) -> None:
    transposed, scalar = torch.arange(6.0).reshape(3, 2).T, torch.tensor(1.5).bfloat16()
    tensors = {"a": transposed, "b": scalar, "c": torch.zeros(0, dtype=torch.int64)}
    with SafetensorsWriter(tmp_path / "x.safetensors", ENTRIES) as writer:
        for name, tensor in tensors.items():
            writer.write(name, tensor)
    loaded = load_file(tmp_path / "x.safetensors")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


def test_an_unfinished_file_never_appears(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    with (
        pytest.raises(WeightsError, match="tensor b was announced and never"),
        SafetensorsWriter(file, ENTRIES) as writer,
    ):
        writer.write("a", torch.zeros(2, 3))
    with (
        pytest.raises(WeightsError, match="tensor c came where a was announced"),
        SafetensorsWriter(file, ENTRIES) as writer,
    ):
        writer.write("c", torch.zeros(0))
    assert list(tmp_path.iterdir()) == []


def test_an_index_that_names_a_file_elsewhere_is_refused(saved: Path) -> None:
    elsewhere = saved.parent / "elsewhere.safetensors"
    (saved / "model.safetensors").rename(elsewhere)
    names = dict.fromkeys(load_file(elsewhere), "../elsewhere.safetensors")
    (saved / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    with pytest.raises(WeightsError, match=r"names the file \.\./elsewhere\.safetensors, outside of the directory"):
        load_model(saved)
