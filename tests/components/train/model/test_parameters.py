"""What is trained, how fast, and what is kept of it: parameter groups, adapters, moving average, recomputation, compilation."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from components.artifacts.artifact import Artifact, StepKey
from components.artifacts.context import StepContext
from components.artifacts.store import ArtifactStore
from components.consolidate import step as consolidate
from components.pipeline.config import PipelineConfig
from components.pipeline.steps import STEPS
from components.train.checkpoints import checkpoint
from components.train.folder import TrainingFolder
from components.train.model.assembly import check_settings, select
from components.train.model.lora import LoRALinear, add_adapters
from components.train.model.parallel import Group
from components.train.model.towers import UnknownTower
from components.train.sections import LoRASettings, ParameterGroup
from components.train.settings import TrainConfig
from components.train.update.optimizer import ShardedAdamW
from components.train.update.param_groups import UnknownParameter
from components.train.worker import TrainJob, prepare, run_rank
from plm_model.families.plm.model import build
from plm_model.families.plm.weights import initialise, load_model
from plm_model.model_directory.files import load_weights
from plm_model.packs.batch import Batch
from tests.components.train.test_gradients import EXAMPLES, odd_config
from tests.components.training_set import artifact, tiny_config, write_base, write_shards

TOKENIZER = Path(__file__).parents[4] / "configs/tokenizers/plm_tiny/tokenizer.json"
CPU = torch.device("cpu")
LORA = LoRASettings(r"^layers\..*\.(wq|w2)$|^vision_model\..*c_fc$", rank=4, alpha=8.0, train=("^vision_projector",))
SETTINGS = TrainConfig(steps=4, lr=3e-2, warmup_steps=1, pack_tokens=64, pack_media=6, checkpoint_every=4)


def batch() -> Batch:
    from plm_model.families.plm.collator import collate

    return collate(*zip(*EXAMPLES, strict=True), odd_config())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parameters")
    write_shards(folder / "shards")
    base = write_base(folder / "base", replace(tiny_config(), decoder=replace(tiny_config().decoder, vocab_size=400)))
    shutil.copy(TOKENIZER, base.local() / "tokenizer.json")
    return folder


def trained(data: Path, folder: Path, **settings: Any) -> TrainJob:
    """A training of some steps, alone, with its newest checkpoint as `folder/run/checkpoint`."""
    shards, base = artifact(data / "shards", "preprocess"), artifact(data / "base", "base")
    job = TrainJob(replace(SETTINGS, **settings), shards, base, TrainingFolder(str(folder)))
    run_rank(job, CPU)
    newest = Path(checkpoint.newest(job.folder.checkpoints) or "")
    shutil.copytree(newest, folder / "run/checkpoint")
    shutil.copy(newest / "state.json", folder / "run/train_state.json")
    return job


def restored(job: TrainJob) -> tuple[nn.Module, ShardedAdamW]:
    model, optimizer = prepare(job, Group(CPU))
    checkpoint.restore(checkpoint.newest(job.folder.checkpoints) or "", model, optimizer)
    return model.eval(), optimizer


def consolidated(job: TrainJob, folder: Path, context: StepContext, **config: Any) -> Artifact:
    inputs = {"base": job.base, "checkpoint": artifact(folder / "run", "train")}
    store, key = ArtifactStore(str(folder / "store"), folder / "cache"), StepKey("consolidate")
    with store.create(key) as out:
        consolidate.run(
            STEPS["consolidate"].settings(PipelineConfig(train=job.settings, **config)), inputs, out, context
        )
    found = store.find(key)
    assert found is not None
    return found


# Groups


def updated(settings: TrainConfig) -> dict[str, torch.Tensor]:
    """How much one update with gradients of 1 moves each parameter of a layer of ones."""
    layer = nn.Linear(2, 2)
    for parameter in layer.parameters():
        nn.init.ones_(parameter)
        parameter.grad = torch.ones_like(parameter)
    ShardedAdamW(layer, settings).step(0.1)
    return {name: 1 - p.detach().flatten()[0] for name, p in layer.named_parameters()}


def test_a_group_scales_the_rate_and_sets_the_decay_of_what_it_matches() -> None:
    plain = TrainConfig(weight_decay=0.5, clip_norm=None)
    moved = updated(replace(plain, groups=(ParameterGroup("bias", lr_scale=0.1, weight_decay=1.0),)))
    assert moved["weight"] == pytest.approx(0.1 + 0.1 * 0.5) and moved["bias"] == pytest.approx(0.01 + 0.01 * 1.0)


def test_vectors_do_not_decay_unless_everything_does() -> None:
    plain = TrainConfig(weight_decay=0.5, clip_norm=None)
    assert updated(plain)["bias"] == pytest.approx(0.1)
    assert updated(replace(plain, decay="all"))["bias"] == pytest.approx(0.1 + 0.1 * 0.5)


def test_the_first_group_that_matches_counts_and_a_frozen_one_stays() -> None:
    model = build(tiny_config())
    groups = (ParameterGroup(r"^layers\.0", lr_scale=2.0), ParameterGroup("^layers|^vision", frozen=True))
    select(model, TrainConfig(groups=groups))
    learning = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert learning == {"layers", "tok_embeddings", "norm"}
    assert not any(p.requires_grad for name, p in model.named_parameters() if name.startswith("layers.1"))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"groups": (ParameterGroup("vison"),)}, UnknownParameter, r"train\.groups: 'vison' matches no parameter"),
        ({"lora": LoRASettings("wqq")}, UnknownParameter, r"train\.lora\.pattern: 'wqq' matches no linear layer"),
        ({"lora": LoRASettings("wq", train=("hd",))}, UnknownParameter, r"train\.lora\.train: 'hd' matches no"),
        ({"recompute": {"audio": "full"}}, UnknownTower, r"no tower 'audio'; it has vision, decoder"),
    ],
)
def test_settings_that_do_not_fit_the_model_are_refused(
    settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        check_settings(build(tiny_config()), TrainConfig(**settings), world=2)


def test_a_frozen_tower_keeps_nothing_for_a_backward_pass() -> None:
    model = initialise(build(odd_config()), seed=0)
    select(model, TrainConfig(freeze=("^vision_model",)))
    features = model.vision_model(batch().media["tiles"])
    assert not features.requires_grad and model.vision_projector(features, 2, 2).requires_grad


# Adapters


def test_a_new_adapter_changes_nothing_and_all_but_it_is_frozen() -> None:
    model = initialise(build(odd_config()), seed=0)
    before = model(batch())
    select(model, TrainConfig(lora=replace(LORA, train=())))
    from components.train.model.lora import initialise_adapters

    initialise_adapters(model, seed=0)
    assert torch.equal(model(batch()), before)
    assert all(p.requires_grad == ("lora_" in name) for name, p in model.named_parameters())


@pytest.mark.case("E2")
@pytest.mark.parametrize("tied", [True, False])
def test_an_adapter_on_any_linear_layer_learns(tied: bool) -> None:
    """A weight that is used around its layer's call would leave the adapter without a gradient."""
    config = odd_config()
    config = replace(config, decoder=replace(config.decoder, tied=tied))
    model = initialise(build(config), seed=0)
    linears = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    select(model, TrainConfig(lora=LoRASettings("", rank=2)))
    from components.train.model.lora import initialise_adapters

    initialise_adapters(model, seed=0)
    model(batch(), chunk=3).sum().backward()
    assert ("output" in linears) is not tied
    assert all(model.get_parameter(f"{name}.lora_b").grad.abs().max() > 0 for name in linears)


@pytest.mark.case("E2")
def test_an_adapter_on_the_output_alone_is_trained_and_merged(
    tmp_path: Path, step_context: Callable[..., StepContext]
) -> None:
    decoder = replace(tiny_config().decoder, vocab_size=400, tied=False)
    write_shards(tmp_path / "shards")
    base = write_base(tmp_path / "base", replace(tiny_config(), decoder=decoder))
    shutil.copy(TOKENIZER, base.local() / "tokenizer.json")
    job = trained(tmp_path, tmp_path / "run", lora=LoRASettings("^output$", rank=2, alpha=4.0))
    model, _ = restored(job)
    layer = model.get_submodule("output")
    assert layer.lora_b.abs().max() > 1e-3
    merged, _ = load_model(consolidated(job, tmp_path / "run", step_context()).local())
    torch.testing.assert_close(merged.output.weight, layer.weight + 2 * layer.lora_b @ layer.lora_a)
    torch.testing.assert_close(merged.logits(batch()), model.logits(batch()), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["selective", "full"])
def test_dropout_in_an_adapter_is_the_same_when_it_is_computed_again(kind: str) -> None:
    gradients = []
    for recompute in ({}, {"vision": kind, "decoder": kind}):
        model = initialise(build(odd_config()), seed=0)
        select(model, TrainConfig(lora=replace(LORA, dropout=0.5), recompute=recompute))
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data = torch.linspace(-0.3, 0.3, parameter.numel()).reshape(parameter.shape)
        torch.manual_seed(0)
        model.train()(batch()).sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    kept, again = gradients
    assert all(torch.allclose(again[name], kept[name], atol=1e-5, rtol=1e-4) for name in kept)


def test_an_adapter_gives_what_the_peft_library_does() -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    base, theirs = nn.Sequential(nn.Linear(5, 7)), nn.Sequential(nn.Linear(5, 7))
    theirs.load_state_dict(base.state_dict())
    add_adapters(base, LoRASettings("0", rank=3, alpha=6.0))
    peft.inject_adapter_in_model(peft.LoraConfig(r=3, lora_alpha=6, target_modules=["0"]), theirs)
    nn.init.normal_(base[0].lora_a)
    nn.init.normal_(base[0].lora_b)
    theirs[0].lora_A["default"].weight.data = base[0].lora_a.data
    theirs[0].lora_B["default"].weight.data = base[0].lora_b.data
    x = torch.randn(4, 5)
    torch.testing.assert_close(base(x), theirs(x), rtol=1e-6, atol=1e-6)


def test_adapter_dropout_is_for_training_only() -> None:
    torch.manual_seed(0)
    layer = LoRALinear(nn.Linear(5, 7), LoRASettings("x", rank=3, dropout=0.5))
    nn.init.normal_(layer.lora_a)
    nn.init.normal_(layer.lora_b)
    x = torch.randn(4, 5)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


def test_adapters_are_trained_alone_saved_alone_and_merged_into_the_model(
    data: Path, tmp_path: Path, step_context: Callable[..., StepContext]
) -> None:
    job = trained(data, tmp_path, lora=LORA)
    model, optimizer = restored(job)
    base = dict(build(model.config, "cpu").named_parameters())
    start = build(model.config, "cpu")
    load_weights(start, job.base.local())
    assert all(
        torch.equal(p, dict(start.named_parameters())[name])
        for name, p in model.named_parameters()
        if not p.requires_grad and name in base
    )
    kept = {name for name in checkpoint.tensors(model, optimizer) if name.startswith("model.")}
    assert all("lora_" in name or "vision_projector" in name for name in kept)
    merged, _ = load_model(consolidated(job, tmp_path, step_context()).local())
    merged_logits, logits = merged.logits(batch()), model.logits(batch())
    assert (merged_logits - logits).abs().max() <= 1e-5
    assert (start.eval().logits(batch()) - logits).abs().max() > 1e-2


def test_what_was_frozen_is_consolidated_from_the_base_model(
    data: Path, tmp_path: Path, step_context: Callable[..., StepContext]
) -> None:
    job = trained(data, tmp_path, freeze=("^vision_model", "^layers"))
    merged, _ = load_model(consolidated(job, tmp_path, step_context()).local())
    model, _ = restored(job)
    assert all(torch.equal(p, model.get_parameter(name)) for name, p in merged.named_parameters())


# Moving average


def test_the_moving_average_equals_its_closed_form() -> None:
    torch.manual_seed(0)
    layer, decay = nn.Linear(3, 2), 0.8
    optimizer = ShardedAdamW(layer, TrainConfig(ema_decay=decay))
    weights = [layer.weight.detach().clone()]
    for _ in range(5):
        layer(torch.randn(4, 3)).square().sum().backward()
        optimizer.step(0.05)
        weights.append(layer.weight.detach().clone())
    closed = decay**5 * weights[0] + (1 - decay) * sum(decay ** (5 - n) * weights[n] for n in range(1, 6))
    assert optimizer.average is not None
    torch.testing.assert_close(optimizer.average.tensors["weight"], closed, rtol=1e-6, atol=1e-7)


def test_a_vetoed_update_leaves_the_moving_average_as_it_is() -> None:
    layer = nn.Linear(3, 2)
    optimizer = ShardedAdamW(layer, TrainConfig(ema_decay=0.5))
    assert optimizer.average is not None
    nn.init.zeros_(layer.weight)
    before = optimizer.average.tensors["weight"].clone()
    layer.weight.grad = torch.full_like(layer.weight, float("nan"))
    optimizer.step(0.1, lambda norm: torch.ones(()))
    assert torch.equal(optimizer.average.tensors["weight"], before)


def test_the_moving_average_is_resumed_and_consolidated_by_option(
    data: Path, tmp_path: Path, step_context: Callable[..., StepContext]
) -> None:
    job = trained(data, tmp_path, ema_decay=0.5, freeze=("^vision_model",))
    _, optimizer = restored(job)
    made = consolidated(job, tmp_path, step_context(), consolidate={"weights": "average"})
    merged, _ = load_model(made.local())
    assert optimizer.average is not None
    assert all(torch.equal(merged.get_parameter(n), average) for n, average in optimizer.average.tensors.items())
    assert not any(torch.equal(optimizer.parameters[n], average) for n, average in optimizer.average.tensors.items())


def test_an_average_that_is_not_kept_cannot_be_consolidated() -> None:
    with pytest.raises(ValueError, match=r"train\.ema_decay keeps none"):
        PipelineConfig.model_validate({"consolidate": {"weights": "average"}})
