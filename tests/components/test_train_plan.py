from __future__ import annotations

from collections import Counter
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from components.errors import UserError
from components.train.plan import PackPlan
from components.train.settings import TrainConfig
from components.train.shards import Index, ShardReader, plan_packs, read_index
from tests.components.training_set import example, tiny_config, write_shards


def plan(examples: int = 50, packs_per_step: int = 3, seed: int = 0) -> PackPlan:
    tokens = np.random.default_rng(1).integers(5, 30, examples)
    return PackPlan(
        tokens, np.ones(examples, int), seed=seed, pack_tokens=64, pack_tiles=4, packs_per_step=packs_per_step
    )


def test_every_example_is_in_an_epoch_once() -> None:
    assert Counter(chain(*plan().epoch(3))) == Counter(range(50))


def test_no_pack_exceeds_its_budgets() -> None:
    made = plan()
    packs = made.epoch(0)
    assert max(made.tokens[list(pack)].sum() for pack in packs) <= 64 and max(map(len, packs)) <= 4


def test_epochs_differ_and_so_do_seeds() -> None:
    assert len({tuple(plan().epoch(0)), tuple(plan().epoch(1)), tuple(plan(seed=1).epoch(0))}) == 3


def test_any_step_is_the_same_asked_alone_or_in_turn() -> None:
    in_turn = plan()
    steps = [in_turn.step(k) for k in range(30)]
    assert plan().step(29) == steps[29] and in_turn.step(2) == steps[2]


def test_steps_go_on_across_the_end_of_an_epoch() -> None:
    made = plan()
    flat = list(chain(*(made.step(k).packs for k in range(20))))
    assert flat == list(chain(*(made.epoch(e) for e in range(10))))[:60]


@pytest.mark.parametrize("world", [1, 2, 3, 4, 7])
def test_ranks_share_a_step_evenly_and_completely(world: int) -> None:
    step = plan(packs_per_step=5).step(1)
    shares = [step.of_rank(rank, world) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1
    given = {number: pack for share in shares for number, pack in share if pack is not None}
    assert [given[number] for number in sorted(given)] == list(step.packs) and min(given) == step.first_pack == 5


def test_one_example_makes_steps_for_any_number_of_workers() -> None:
    made = plan(examples=1, packs_per_step=2)
    assert made.step(7).packs == ((0,), (0,))


def test_digest_changes_with_the_data_and_the_budgets() -> None:
    assert len({plan().digest, plan(49).digest, plan(seed=1).digest, plan(packs_per_step=2).digest}) == 4


def test_an_example_larger_than_a_pack_is_named() -> None:
    index = Index(["a", "b"], ["d", "d"], ["s", "s"], np.arange(2), np.array([10, 99]), np.array([1, 1]))
    with pytest.raises(UserError, match=r"example b has 99 tokens, more than train.pack_tokens=64"):
        plan_packs(index, TrainConfig(pack_tokens=64))


def test_reader_gives_each_row_as_it_was_written(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", examples=23, per_shard=9)
    index = read_index(shards.local("train/index.parquet"))
    reader = ShardReader(index, shards.local, tiny_config(), cache_bytes=20_000)
    for number in (22, 3, 9, 8, 0, 22):
        found, tiles = reader.read(number)
        assert found.tokens.tolist() == example(number, number % 6).tokens.tolist()
        assert tiles.shape == (1, 3, 28, 28) and tiles.flat[0] == 20 + 30 * (number % 8)
