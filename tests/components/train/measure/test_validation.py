"""The loss on the test split is the mean over its targets, and measuring it changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from components.errors import UserError
from components.train.checkpoints import checkpoint
from components.train.data.loader import MicroBatch
from components.train.folder import TrainingFolder
from components.train.measure.validation import Validation, packs_of, require_test_split
from components.train.model.parallel import Group, shard
from components.train.settings import TrainConfig
from components.train.worker import TrainJob, run_rank
from plm_model.families.plm.collator import collate, open_collator
from plm_model.families.plm.model import PLM, build
from plm_model.families.plm.weights import initialise
from tests.components.training_set import artifact, example, tiny_config, write_base, write_shards

ALONE = Group(torch.device("cpu"))
TILE = np.zeros((1, 3, 28, 28), np.uint8)


def model(drop_path: float = 0.5) -> PLM:
    return initialise(build(tiny_config(drop_path)), seed=0).train()


def validation(packs: list[list[int]]) -> Validation:
    def read(number: int) -> MicroBatch:
        examples = [example(n, n % 6) for n in packs[number]]
        return MicroBatch(collate(examples, [TILE] * len(examples), tiny_config()), number, 1.0)

    return Validation(packs, read, open_collator(tiny_config()))


def test_every_target_weighs_the_same_however_the_split_is_packed() -> None:
    made = model()
    losses = [validation(packs).loss(made, ALONE) for packs in ([[0, 1, 2, 3, 4]], [[0], [1, 2, 3], [4]])]
    made.eval()
    (pack,) = [validation([[0, 1, 2, 3, 4]]).read(0)]
    assert losses == pytest.approx([made(pack.batch).mean().item()] * 2, rel=1e-6)


def test_measuring_draws_no_random_number_and_leaves_the_model_in_training() -> None:
    made, before = model(), torch.get_rng_state()
    one, other = (validation([[0, 1], [2]]).loss(made, ALONE) for _ in range(2))
    assert one == other and torch.equal(torch.get_rng_state(), before)
    assert made.training and all(p.grad is None for p in made.parameters())


def rank_main(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    group = Group.current(torch.device("cpu"))
    made = model()
    shard(made, group, TrainConfig(workers=2))
    loss = validation([[0, 1], [2], [3, 4]]).loss(made, group)
    Path(folder, str(rank)).write_text(repr(loss))
    dist.destroy_process_group()


def test_two_ranks_with_three_packs_find_what_one_does(tmp_path: Path) -> None:
    mp.spawn(rank_main, (str(tmp_path),), nprocs=2)
    found = [float(Path(tmp_path, str(rank)).read_text()) for rank in range(2)]
    assert found == pytest.approx([validation([[0, 1], [2], [3, 4]]).loss(model(), ALONE)] * 2, rel=1e-6)
    assert found[0] == found[1]


def test_packs_hold_every_example_that_fits() -> None:
    tokens, tiles = np.array([5, 9, 4, 3]), np.array([1, 1, 1, 9])
    assert packs_of(tokens, tiles, pack_tokens=8, pack_media=2) == [[0], [2]]
    assert packs_of(tokens[[0, 3, 2]], tiles[:3], pack_tokens=8, pack_media=2) == [[0], [1, 2]]
    assert packs_of(tokens[1:2], tiles[1:2], pack_tokens=8, pack_media=2) == []


def test_a_training_that_validates_takes_the_same_steps_and_measures_at_each_checkpoint(tmp_path: Path) -> None:
    write_shards(tmp_path / "shards", test=9)
    write_base(tmp_path / "base", tiny_config(drop_path=0.2))
    lines = {}
    for name, every in (("with", 2), ("without", None)):
        settings = TrainConfig(steps=5, pack_tokens=64, checkpoint_every=4, log_every=1, validate_every=every)
        inputs = (artifact(tmp_path / "shards", "preprocess"), artifact(tmp_path / "base", "base"))
        run_rank(TrainJob(settings, *inputs, TrainingFolder(str(tmp_path / name))), ALONE.device)
        lines[name] = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
    measured = {line["step"]: line["val/loss"] for line in lines["with"] if "val/loss" in line}
    trained = {name: [line["train/loss"] for line in found if "train/loss" in line] for name, found in lines.items()}
    assert list(measured) == [2, 4, 5] and trained["with"] == trained["without"]
    state = checkpoint.read_state(checkpoint.newest(str(tmp_path / "with" / "checkpoints")) or "")
    assert state["score"] == pytest.approx(measured[5], rel=1e-5)


def test_a_checkpoint_is_measured_by_a_validation_of_its_own_step(tmp_path: Path) -> None:
    settings = TrainConfig(steps=5, pack_tokens=64, checkpoint_every=1, keep_checkpoints=9, validate_every=2)
    job = TrainJob(
        settings,
        write_shards(tmp_path / "shards", test=9),
        write_base(tmp_path / "base"),
        TrainingFolder(f"{tmp_path}/out"),
    )
    run_rank(job, ALONE.device)
    states = [
        checkpoint.read_state(f"{job.folder.checkpoints}/{name}")
        for name in checkpoint.attempts(job.folder.checkpoints)
    ]
    assert [state["score"] is not None for state in states] == [False, True, False, True, True]


def test_a_test_split_that_no_pack_holds_is_refused() -> None:
    with pytest.raises(UserError, match=r"train\.validate_every: no example of the test split can be used"):
        validation([]).loss(model(), ALONE)


def test_a_validation_without_a_test_split_is_refused_at_the_start(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards")
    with pytest.raises(UserError, match=r"train.validate_every: the data set has no test split"):
        require_test_split(shards, TrainConfig(validate_every=5))
