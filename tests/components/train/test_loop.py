"""The engine in one process and on two gloo ranks, without Ray."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from components.artifacts.context import StepContext
from components.artifacts.files import filesystem
from components.errors import UserError
from components.train.checkpoints import checkpoint
from components.train.data.loader import prefetched
from components.train.folder import TrainingFolder
from components.train.model.parallel import Group
from components.train.sections import ProfileSettings
from components.train.settings import TrainConfig
from components.train.step import replay
from components.train.update.optimizer import ShardedAdamW
from components.train.update.param_groups import UnknownParameter, freeze
from components.train.worker import TrainJob, prepare, run_rank
from plm_model.families.plm.collator import open_collator
from plm_model.families.plm.model import build
from tests.components.training_set import artifact, tiny_config, write_base, write_shards

CPU = torch.device("cpu")
SETTINGS = TrainConfig(
    steps=6, lr=3e-3, warmup_steps=2, packs_per_step=3, pack_tokens=64, pack_media=6, checkpoint_every=3, log_every=2
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training")
    write_shards(folder / "shards")
    write_base(folder / "base", tiny_config(drop_path=0.2))
    return folder


def job(data: Path, folder: Path, **settings: Any) -> TrainJob:
    return TrainJob(
        replace(SETTINGS, **settings),
        artifact(data / "shards", "preprocess"),
        artifact(data / "base", "base"),
        TrainingFolder(str(folder)),
    )


def rank_main(rank: int, world: int, works: list[TrainJob], meeting: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    for work in works:
        run_rank(work, CPU)
    dist.destroy_process_group()


def final_weights(work: TrainJob) -> dict[str, torch.Tensor]:
    group = Group(CPU)
    model, optimizer = prepare(work, group)
    folder = checkpoint.newest(work.folder.checkpoints)
    assert folder is not None
    checkpoint.restore(folder, model, optimizer)
    return {name: tensor.clone() for name, tensor in checkpoint.tensors(model, optimizer).items()}


def metrics(work: TrainJob) -> list[dict[str, float]]:
    folder = checkpoint.newest(work.folder.checkpoints)
    assert folder is not None
    return [json.loads(line) for line in checkpoint.read_metrics(folder).splitlines()]


@pytest.fixture(scope="module")
def alone(data: Path) -> TrainJob:
    work = job(data, data / "alone")
    run_rank(work, CPU)
    return work


def test_training_lowers_the_loss(data: Path) -> None:
    work = job(data, data / "lower", steps=30, checkpoint_every=30)
    run_rank(work, CPU)
    losses = [line["train/loss"] for line in metrics(work)]
    assert losses[-1] < 0.5 * losses[0]


def test_metrics_hold_the_first_step_the_last_and_every_second(alone: TrainJob) -> None:
    assert [line["step"] for line in metrics(alone)] == [1, 2, 4, 6]


def test_chosen_steps_leave_a_trace_beside_the_checkpoints(data: Path) -> None:
    work = job(data, data / "traced", steps=3, profile=ProfileSettings(first=2, steps=1))
    run_rank(work, CPU)
    assert [path.name for path in (data / "traced" / "profiles").rglob("*.gz")] == ["trace.json.gz"]
    assert (data / "traced" / "metrics.jsonl").read_text().count("\n") == 3


def test_state_counts_what_was_trained_on(alone: TrainJob) -> None:
    state = checkpoint.read_state(checkpoint.newest(alone.folder.checkpoints) or "")
    assert state["step"] == 6 and state["restarts"] == 0 and state["tokens"] > 0 and state["media"] > 0


@pytest.fixture(scope="module")
def pairs(data: Path) -> dict[str, TrainJob]:
    """Trainings on two ranks, all in one pair of processes, which take seconds to start."""
    works = {
        "same": job(data, data / "pairs/same"),
        "grown": interrupted(job(data, data / "pairs/grown", keep_checkpoints=5)),
        "one_pack": job(data, data / "pairs/one_pack", packs_per_step=1, steps=2),
        "bfloat16": job(data, data / "pairs/bfloat16", dtype="bfloat16", steps=2),
        "frozen": job(data, data / "pairs/frozen", freeze=("^vision_model",), steps=2),
    }
    mp.spawn(rank_main, (2, list(works.values()), str(data / "meeting")), nprocs=2)
    return works


def interrupted(work: TrainJob) -> TrainJob:
    """Trained in one process, as if its last save had not been finished."""
    run_rank(work, CPU)
    Path(checkpoint.newest(work.folder.checkpoints) or "", ".metadata").unlink()
    return work


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


def test_two_ranks_train_the_model_that_one_does(pairs: dict[str, TrainJob], alone: TrainJob) -> None:
    """Three packs a step: in its second round, the second rank runs a filler."""
    together = pairs["same"]
    assert largest_difference(final_weights(together), final_weights(alone)) < 2e-5
    assert [m["train/loss"] for m in metrics(together)] == pytest.approx(
        [m["train/loss"] for m in metrics(alone)], rel=1e-4
    )


def test_both_ranks_write_their_part(pairs: dict[str, TrainJob]) -> None:
    folder = Path(checkpoint.newest(pairs["same"].folder.checkpoints) or "")
    assert sorted(path.name for path in folder.glob("*.distcp")) == ["__0_0.distcp", "__1_0.distcp"]


def test_a_rank_that_never_has_a_pack_changes_nothing(data: Path, pairs: dict[str, TrainJob]) -> None:
    work = job(data, data / "one_pack", packs_per_step=1, steps=2)
    run_rank(work, CPU)
    assert largest_difference(final_weights(work), final_weights(pairs["one_pack"])) < 2e-5


def test_a_run_resumes_on_another_number_of_ranks(pairs: dict[str, TrainJob], alone: TrainJob) -> None:
    assert largest_difference(final_weights(pairs["grown"]), final_weights(alone)) < 2e-5
    assert checkpoint.read_state(checkpoint.newest(pairs["grown"].folder.checkpoints) or "")["restarts"] == 1


def test_bfloat16_keeps_its_weights_in_float32(pairs: dict[str, TrainJob]) -> None:
    assert all(tensor.dtype == torch.float32 for tensor in final_weights(pairs["bfloat16"]).values())


def test_frozen_parameters_stay_and_have_no_state(pairs: dict[str, TrainJob]) -> None:
    weights = final_weights(pairs["frozen"])
    start = dict(prepare(pairs["frozen"], Group(CPU))[0].named_parameters())
    learned = {name: tensor for name, tensor in start.items() if not name.startswith("vision_model")}
    assert {name for name in weights if name.startswith("model.")} == {f"model.{name}" for name in learned}
    assert not any(torch.equal(weights[f"model.{name}"], tensor) for name, tensor in learned.items())
    assert not any(name.startswith("optim.vision_model") for name in weights)


def test_a_resumed_run_ends_where_the_uninterrupted_one_does(data: Path, alone: TrainJob) -> None:
    work = interrupted(job(data, data / "resumed", keep_checkpoints=5))
    run_rank(work, CPU)
    expected, found = final_weights(alone), final_weights(work)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert [line["step"] for line in metrics(work)] == [1, 2, 4, 6]


def test_a_checkpoint_before_the_first_line_since_resuming_has_the_score_from_before(data: Path) -> None:
    work = job(data, data / "scored", checkpoint_every=1, keep_checkpoints=9, log_every=100)
    run_rank(work, CPU)
    for name in checkpoint.attempts(work.folder.checkpoints)[2:]:
        Path(work.folder.checkpoints, name, ".metadata").unlink()
    run_rank(work, CPU)
    states = [
        checkpoint.read_state(f"{work.folder.checkpoints}/{name}")
        for name in checkpoint.attempts(work.folder.checkpoints)
    ]
    assert [state["restarts"] for state in states] == [0, 0, 1, 1, 1, 1]
    assert states[0]["score"] is not None and {state["score"] for state in states[:-1]} == {states[0]["score"]}


def test_freezing_nothing_that_exists_or_everything_is_refused() -> None:
    with pytest.raises(UnknownParameter, match="'vison' matches no parameter"):
        freeze(build(tiny_config()), TrainConfig(freeze=("vison",)))
    with pytest.raises(UnknownParameter, match="every parameter is frozen"):
        freeze(build(tiny_config()), TrainConfig(freeze=(".",)))


def test_only_the_newest_checkpoints_stay_and_what_a_crash_left_goes(data: Path) -> None:
    work = job(data, data / "kept", checkpoint_every=1, keep_checkpoints=2, steps=4)
    crashed = Path(work.folder.checkpoints, "step-00000009-1")
    crashed.mkdir(parents=True)
    run_rank(work, CPU)
    assert [name[:13] for name in checkpoint.attempts(work.folder.checkpoints)] == ["step-00000003", "step-00000004"]


def test_other_data_does_not_resume(data: Path) -> None:
    run_rank(job(data, data / "other", steps=1), CPU)
    with pytest.raises(UserError, match=r"other settings \(train.lr: 0.003, now 0.1; train.steps: 1, now 6\); undo"):
        run_rank(job(data, data / "other", lr=0.1), CPU)
    changed = replace(job(data, data / "other", steps=1), base=artifact(data / "base", "other"))
    with pytest.raises(UserError, match="the base model changed"):
        run_rank(changed, CPU)


def test_settings_without_effect_may_change_between_attempts(data: Path) -> None:
    run_rank(job(data, data / "free", steps=1), CPU)
    run_rank(job(data, data / "free", steps=1, log_every=1, workers=7, checkpoint_every=1, keep_checkpoints=1), CPU)


def test_a_filler_counts_one_target_and_no_media() -> None:
    filler = open_collator(tiny_config()).filler()
    assert filler.supervised == 1 and filler.media["tiles"].shape == (1, 3, 28, 28)


def test_an_error_of_the_loader_reaches_the_loop() -> None:
    def items():
        yield 1
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"), prefetched(items(), 2) as ready:
        assert next(ready) == 1
        next(ready)


def test_clipping_scales_the_gradient_and_reports_what_it_was() -> None:
    layer = torch.nn.Linear(2, 1, bias=False)
    before = layer.weight.detach().clone()
    optimizer = ShardedAdamW(layer, TrainConfig(betas=(0.0, 0.0), weight_decay=0.0))
    layer.weight.grad = torch.tensor([[3.0, 4.0]])
    assert float(optimizer.step(0.1)) == 5.0
    assert torch.allclose(layer.weight, before - 0.1, atol=1e-6) and layer.weight.grad is None


def test_optimizer_is_adamw() -> None:
    torch.manual_seed(0)
    ours, theirs = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
    theirs.load_state_dict(ours.state_dict())
    reference = torch.optim.AdamW(
        [{"params": [theirs.weight], "weight_decay": 0.1}, {"params": [theirs.bias], "weight_decay": 0.0}],
        lr=0.01,
        betas=(0.9, 0.95),
    )
    optimizer = ShardedAdamW(ours, TrainConfig(weight_decay=0.1, clip_norm=None))
    for _ in range(3):
        x = torch.randn(4, 3)
        for model in (ours, theirs):
            model(x).square().sum().backward()
        optimizer.step(0.01)
        reference.step()
        reference.zero_grad()
    assert torch.allclose(ours.weight, theirs.weight, atol=1e-7) and torch.allclose(ours.bias, theirs.bias, atol=1e-7)


def test_a_vetoed_update_leaves_weights_and_state_as_they_are() -> None:
    layer = torch.nn.Linear(2, 1)
    optimizer = ShardedAdamW(layer, TrainConfig(weight_decay=0.1))
    before = {name: p.detach().clone() for name, p in layer.named_parameters()}
    for norm in (float("nan"), 1.0):
        layer.weight.grad, layer.bias.grad = torch.full((1, 2), norm), torch.ones(1)
        optimizer.step(0.1, lambda norm: torch.ones(()))
    assert all(torch.equal(p, before[name]) for name, p in layer.named_parameters())
    assert not any(t.any() for t in (*optimizer.tensors().values(), *optimizer.updates.values()))


def test_checkpoints_on_an_object_store_resume_and_are_pruned(data: Path, alone: TrainJob, s3_bucket: str) -> None:
    work = job(data, Path("unused"))
    work = replace(work, folder=TrainingFolder(f"s3://{s3_bucket}/resume"))
    run_rank(replace(work, settings=replace(work.settings, checkpoint_every=4)), CPU)
    fs, path = filesystem(checkpoint.newest(work.folder.checkpoints) or "")
    fs.rm_file(f"{path}/.metadata")
    run_rank(work, CPU)
    assert metrics(work)[-1]["train/loss"] == metrics(alone)[-1]["train/loss"]
    assert [name[:13] for name in checkpoint.attempts(work.folder.checkpoints)] == ["step-00000004", "step-00000006"]


def test_a_resumed_run_tells_the_tracker_what_was_measured_before(
    alone: TrainJob, step_context: Callable[..., StepContext]
) -> None:
    said: list[str] = []
    context = step_context(progress=said.append)
    replay(alone.folder, context)
    assert said == ["resuming after step 6"]
    assert context.tracker.metrics["train/loss"] == metrics(alone)[-1]["train/loss"]  # type: ignore[attr-defined]
