from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pytest

from components.errors import UserError
from components.train.data.datamix import MixSource, choose_sources, parse_datamix, shares
from components.train.data.packing import deal
from components.train.data.plan import Cost, PackPlan, PlanSpec, steps_of_epochs
from components.train.data.plan_file import KEPT, stored_plan
from components.train.data.shuffle import SPAN, WINDOW, draws
from components.train.settings import TrainConfig

MESHES = ((2, 8), (8, 2), (16, 8))


def spec(examples: int = 50, packs_per_step: int = 3, seed: int = 0, **changes: object) -> PlanSpec:
    number = np.arange(examples)
    made = PlanSpec(
        tokens=(5 + (number * 7 + number // 25) % 25).astype(np.int32),
        media=(number * 5 % 3).astype(np.int32),
        sources=(MixSource("all", np.arange(examples, dtype=np.uint32), Fraction(1)),),
        seed=seed,
        pack_tokens=64,
        pack_media=5,
        packs_per_step=packs_per_step,
        cost=Cost(3, 1, 40),
    )
    return replace(made, **changes)


def mix(text: str, sizes: dict[str, int], packs_per_step: int = 4) -> PlanSpec:
    names = list(sizes)
    codes = np.repeat(np.arange(len(names)), list(sizes.values()))
    sources = choose_sources(text, names, codes, np.ones(len(codes), bool))
    return spec(len(codes), packs_per_step, sources=sources)


def flat(plan: PackPlan, steps: int) -> list[int]:
    return list(chain(*chain(*(plan.step(k).packs for k in range(steps)))))


def epoch(made: PlanSpec, number: int) -> list[np.ndarray]:
    """The packs of an epoch of a plan with one source."""
    packs, seen = [], 0
    for rows, sizes in made.packed():
        if seen // made.examples == number:
            packs += np.split(rows, np.cumsum(sizes)[:-1])
        seen += len(rows)
        if seen // made.examples > number:
            return packs
    raise AssertionError


# --- shuffle


@pytest.mark.parametrize("size", [1, 2, 3, 17, 1000, WINDOW + 1, WINDOW + SPAN + 5])
def test_an_epoch_draws_every_row_once(size: int) -> None:
    for number in (0, 3):
        rows = draws(number * size, (number + 1) * size, size, seed=7, source=1)
        assert (np.sort(rows) == np.arange(size)).all()


def test_all_orders_of_a_small_source_come_about_equally_often() -> None:
    found = Counter(tuple(draws(4 * e, 4 * e + 4, 4, seed=0, source=0)) for e in range(2400))
    assert len(found) == 24 and min(found.values()) > 60 and max(found.values()) < 145


@pytest.mark.case("E16")
@pytest.mark.parametrize("epochs", [1, 2.5])
def test_steps_of_epochs_go_so_often_through_the_examples(epochs: float) -> None:
    made = spec(5000)
    steps = steps_of_epochs(made, epochs)
    packs = steps_of_epochs(replace(made, packs_per_step=1), 1)
    assert steps == -(-packs * epochs // made.packs_per_step)
    seen = len(flat(PackPlan.make(made, steps), steps))
    assert abs(seen - epochs * made.examples) < 0.02 * epochs * made.examples
    assert steps_of_epochs(spec(2), 0.01) == 1
    mixed_steps = steps_of_epochs(mix("a:1,b:3", {"a": 300, "b": 100}), 1)
    assert abs(len(flat(PackPlan.make(mix("a:1,b:3", {"a": 300, "b": 100}), mixed_steps), mixed_steps)) - 400) < 40


def test_any_draw_is_the_same_asked_alone_or_in_turn() -> None:
    size = 3 * WINDOW + 77
    assert (
        (draws(0, 2 * size, size, seed=0, source=0)[size + 5 : size + 9]).tolist()
        == draws(size + 5, size + 9, size, seed=0, source=0).tolist()
    )


def test_neighbours_in_a_large_source_stay_within_a_window() -> None:
    """A reader with a cache needs the shards of one window at a time, and then not again in this epoch."""
    size = 4 * WINDOW
    spans = draws(0, WINDOW, size, seed=0, source=0) // SPAN
    assert len(np.unique(spans)) <= WINDOW // SPAN + 2


def test_order_in_a_shuffle_tells_nothing_of_the_row() -> None:
    one, other = (draws(e * 50_000, (e + 1) * 50_000, 50_000, seed=0, source=0) for e in (0, 1))
    for left, right in ((np.arange(50_000), one), (one, other), (one[:-1], one[1:])):
        assert abs(np.corrcoef(left, right)[0, 1]) < 0.02


# --- packing


def test_worked_example_of_dealing() -> None:
    tokens = np.array([5, 4, 3, 3, 2, 1])
    pack_of, packs = deal(tokens, np.zeros(6, int), tokens, 9, 1)
    assert packs == 2 and pack_of.tolist() == [0, 1, 1, 0, 1, 0]


def test_no_pack_exceeds_a_budget_and_none_is_empty() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        count = int(random.integers(1, 60))
        tokens, tiles = random.integers(1, 21, count), random.integers(0, 5, count)
        pack_of, packs = deal(tokens, tiles, tokens * tokens, 20, 4)
        assert np.bincount(pack_of, tokens).max() <= 20 and np.bincount(pack_of, tiles).max() <= 4
        assert len(np.unique(pack_of)) == packs and len(pack_of) == count


def test_packs_of_long_rows_with_a_tail_of_short_ones_are_full() -> None:
    """85 % rows near 9,500 tokens; a budget of 57,600 holds five of the longest there may be, and six of these."""
    random = np.random.default_rng(0)
    long, count = random.random(20_000) < 0.85, 20_000
    tokens = np.where(long, 9472 + random.integers(30, 150, count), random.integers(50, 1000, count)).astype(np.int32)
    every = (MixSource("all", np.arange(count, dtype=np.uint32), Fraction(1)),)
    made = PlanSpec(tokens, np.where(long, 37, 0).astype(np.int32), every, 0, 57_600, 370, 8, Cost(1, 0, 100))
    packs = epoch(made, 0)
    assert 1 - tokens.sum() / (len(packs) * 57_600) < 0.02


# --- plan


def test_every_example_is_in_an_epoch_once() -> None:
    assert Counter(np.concatenate(epoch(spec(), 3)).tolist()) == Counter(range(50))


def test_every_example_of_many_chunks_is_in_an_epoch_once() -> None:
    made = spec(6000)
    assert made.examples > 4 * made.chunk
    assert Counter(np.concatenate(epoch(made, 1)).tolist()) == Counter(range(6000))


def test_no_pack_of_a_step_exceeds_its_budgets() -> None:
    made = spec(500)
    plan = PackPlan.make(made, 40)
    for pack in chain(*(plan.step(k).packs for k in range(40))):
        assert made.tokens[list(pack)].sum() <= 64 and made.media[list(pack)].sum() <= 5


def test_epochs_differ_and_so_do_seeds() -> None:
    orders = [epoch(spec(), 0), epoch(spec(), 1), epoch(spec(seed=1), 0)]
    assert len({tuple(np.concatenate(order).tolist()) for order in orders}) == 3


def test_any_step_is_the_same_in_a_longer_plan() -> None:
    short, long = PackPlan.make(spec(), 10), PackPlan.make(spec(), 90)
    assert [short.step(k) for k in range(10)] == [long.step(k) for k in range(10)]


def test_steps_go_on_across_the_end_of_an_epoch() -> None:
    made = spec()
    packs = [tuple(pack.tolist()) for number in range(5) for pack in epoch(made, number)]
    plan = PackPlan.make(made, 12)
    for k in range(12):
        assert sorted(plan.step(k).packs) == sorted(packs[3 * k : 3 * k + 3])


def test_a_step_beyond_the_plan_is_refused() -> None:
    with pytest.raises(IndexError, match="step 5 is not planned; the plan has 5 steps"):
        PackPlan.make(spec(), 5).step(5)


def test_packs_of_a_step_stand_in_the_order_of_their_cost() -> None:
    made = spec(500, packs_per_step=16)
    costs = [
        made.cost.of(made.tokens[list(p)], made.media[list(p)]).sum() for p in PackPlan.make(made, 3).step(1).packs
    ]
    assert costs == sorted(costs, reverse=True) and costs[0] > costs[-1]


@pytest.mark.parametrize("world", [1, 2, 3, 4, 7])
def test_ranks_share_a_step_evenly_and_completely(world: int) -> None:
    step = PackPlan.make(spec(packs_per_step=5), 3).step(1)
    shares = [step.of_rank(rank, world) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1
    given = {number: pack for share in shares for number, pack in share if pack is not None}
    assert [given[number] for number in sorted(given)] == list(step.packs) and min(given) == step.first_pack == 5


@pytest.mark.parametrize("mesh", MESHES)
def test_ranks_of_any_mesh_train_on_different_data(mesh: tuple[int, int]) -> None:
    """The data rank of a mesh is its flat rank, whatever is replicated and whatever is sharded."""
    replicas, shards = mesh
    step = PackPlan.make(spec(2000, packs_per_step=128), 2).step(1)
    ranks = [replica * shards + shard for replica in range(replicas) for shard in range(shards)]
    packs = [pack for rank in ranks for _, pack in step.of_rank(rank, replicas * shards) if pack is not None]
    assert len(set(packs)) == len(packs) == 128 and sorted(packs) == sorted(step.packs)


def test_one_example_makes_steps_for_any_number_of_workers() -> None:
    step = PackPlan.make(spec(examples=1, packs_per_step=2), 8).step(7)
    assert step.packs == ((0,), (0,))
    assert [[pack for _, pack in step.of_rank(rank, 8)] for rank in range(8)] == [[(0,)]] * 2 + [[None]] * 6


def test_digest_changes_with_the_data_and_the_budgets() -> None:
    others = [spec(49), spec(seed=1), spec(packs_per_step=2), spec(pack_media=6), spec(cost=Cost(3, 1, 41))]
    assert len({spec().digest, *(other.digest for other in others)}) == 6
    assert spec().digest == spec().digest


def test_the_order_of_the_data_is_the_same_on_every_machine() -> None:
    """A checkpoint goes on with the plan that it was made with; what this gives may only change with VERSION."""
    assert PackPlan.make(spec(), 2).step(1).packs == ((34, 42, 12), (8, 41, 35), (3, 33, 2))


# --- datamix


def test_a_datamix_is_read_with_its_weights_normalised() -> None:
    assert parse_datamix(" a:1, b : 2.5,c:0.5") == {"a": Fraction(1, 4), "b": Fraction(5, 8), "c": Fraction(1, 8)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "'a' is not of the form name:weight"),
        ("a:1,a:2", "a is named twice"),
        ("a:x", "the weight of a is 'x', which is no number"),
        ("a:0", "the weight of a is 0; it must be positive"),
        ("a:nan", "which is no number"),
        ("", "'' is not of the form"),
    ],
)
def test_a_datamix_that_cannot_be_meant_is_refused_in_the_config(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(datamix=text)


def test_an_unknown_source_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"names radilogy, which the data set does not have; did you mean radiology\?"):
        mix("radilogy:1", {"radiology": 3, "digits": 4})


def test_worked_example_of_shares() -> None:
    weights = list(parse_datamix("a:1,b:3").values())
    assert shares(weights, 10) == (2, 8) and shares(weights, 12) == (3, 9)


def test_a_datamix_holds_within_one_percent_over_any_thousand_steps() -> None:
    made = mix("small:1,large:3,tiny:0.5", {"small": 300, "large": 5000, "tiny": 7})
    plan = PackPlan.make(made, 3000)
    bounds = np.cumsum([0, 300, 5000, 7])
    for first in (0, 137, 1999):
        rows = [row for k in range(first, first + 1000) for row in chain(*plan.step(k).packs)]
        found = np.histogram(rows, bounds)[0] / len(rows)
        assert np.abs(found - np.array([1, 3, 0.5]) / 4.5).max() < 0.01
        assert np.abs(found / (np.array([1, 3, 0.5]) / 4.5) - 1).max() < 0.03


def test_every_source_of_a_datamix_goes_through_its_examples_before_one_comes_again() -> None:
    made = mix("a:1,b:3", {"a": 40, "b": 600})
    assert sorted(draws(40, 80, 40, seed=0, source=0)) == list(range(40))
    counts: Counter[int] = Counter()
    for rows, _ in islice(made.packed(), 5):
        counts.update(rows.tolist())
        for source in (range(40), range(40, 640)):
            seen = [counts[row] for row in source]
            assert max(seen) - min(seen) <= 1


def test_without_a_datamix_sources_keep_their_natural_shares() -> None:
    codes = np.array([0] * 30 + [1] * 20)
    (source,) = choose_sources(None, ["a", "b"], codes, np.arange(50) != 3)
    assert source.weight == 1 and source.rows.tolist() == [n for n in range(50) if n != 3]


# --- stored plan


def test_a_stored_plan_is_the_plan(tmp_path: Path) -> None:
    made, stored = PackPlan.make(spec(500), 60), stored_plan(spec(500), 60, tmp_path)
    assert [stored.step(k) for k in range(60)] == [made.step(k) for k in range(60)]


def test_a_plan_is_written_once_and_old_ones_go(tmp_path: Path) -> None:
    stored_plan(spec(), 20, tmp_path)
    (first,) = (p for p in tmp_path.iterdir() if p.is_dir())
    os.utime(first / "rows.u32", (1, 1))
    stored_plan(spec(), 20, tmp_path)
    assert (first / "rows.u32").stat().st_mtime == 1
    (tmp_path / ".abandoned").mkdir()
    kept = [stored_plan(spec(seed=seed), 20, tmp_path) for seed in range(1, KEPT + 3)]
    assert len([p for p in tmp_path.iterdir() if p.is_dir()]) == KEPT
    assert kept[0].step(3) == PackPlan.make(spec(seed=1), 20).step(3)  # mapped, though its file is gone


@pytest.mark.case("R2")
@pytest.mark.parametrize("file", ["rows.u32", "starts.i64", "sums.json"])
@pytest.mark.parametrize("kind", ["flipped", "half", "empty", "gone"])
def test_a_damaged_plan_is_made_anew(tmp_path: Path, file: str, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    whole = stored_plan(spec(), 20, tmp_path)
    (place,) = (p for p in tmp_path.iterdir() if p.is_dir())
    data = (place / file).read_bytes()
    changed = {"flipped": data[:5] + bytes([data[5] ^ 1]) + data[6:], "half": data[: len(data) // 2], "empty": b""}
    if kind == "gone":
        (place / file).unlink()
    else:
        copy = place / "copy"  # a new file, since the old one is mapped
        copy.write_bytes(changed[kind])
        os.utime(copy, ns=((place / file).stat().st_mtime_ns,) * 2)
        copy.replace(place / file)
    again = stored_plan(spec(), 20, tmp_path)
    assert [again.step(k) for k in range(20)] == [whole.step(k) for k in range(20)]
    assert file in caplog.text and "the plan is made anew" in caplog.text
    assert (place / file).read_bytes() == data


def test_processes_that_ask_at_once_get_one_plan(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; sys.path.insert(0, '.')\n"
        "from tests.components.train.data.test_plan import spec, stored_plan\n"
        "print(stored_plan(spec(3000), 200, pathlib.Path(sys.argv[1])).step(150).packs[0][0])"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert len({process.communicate()[0] for process in running}) == 1
    assert len([p for p in tmp_path.iterdir() if p.is_dir()]) == 1
