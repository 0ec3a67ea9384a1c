"""A tenth of `make fuzz`: nothing that is brought in ends a process or changes what becomes of the good rows beside it."""

from __future__ import annotations

import random

import pytest

from tests.fuzz.batches import among
from tests.fuzz.mutate import mutated_bytes, mutated_row
from tests.fuzz.run import WHOLE, Found, fuzz

SHARE = 0.1


@pytest.fixture(scope="module")
def found() -> Found:
    *_, last = fuzz(seed=0, share=SHARE)
    return last


@pytest.mark.timeout(600)
@pytest.mark.case("D10")
@pytest.mark.case("D14")
@pytest.mark.case("D18")
def test_nothing_is_found(found: Found) -> None:
    assert found.findings == []


def test_all_kinds_were_tried_and_neither_all_nor_none_refused(found: Found) -> None:
    assert found.mutations == {kind: round(count * SHARE) for kind, count in WHOLE.items()}
    for kind in ("jsonl", "csv", "tsv", "parquet", "pictures", "videos"):
        assert 0 < found.rejected[kind] < found.mutations[kind], kind


def test_mutations_follow_the_seed() -> None:
    row = {"id": "a", "image": "a.png", "text": "x"}
    drawn = [[mutated_row(row, random.Random(seed)) for _ in range(1)] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    data = bytes(range(200))
    changed = [mutated_bytes(data, random.Random(seed)) != data for seed in range(50)]
    assert sum(changed) > 40


def test_good_rows_stand_first_last_and_between() -> None:
    assert among("abc", "12345") == ["a", "1", "2", "b", "3", "4", "5", "c"]
    assert among("abc", "") == ["a", "b", "c"]


def test_a_fault_in_a_reason_is_a_finding() -> None:
    from tests.fuzz.chain import Result, judge_reason

    result = Result()
    for reason in ("a fault of ours, KeyError in x.py:1", "takes more than 20 s", "two\nlines", ""):
        judge_reason(result, {"file": "a", "line": 1, "reason": reason})
    assert [kind for kind, _ in result.findings] == ["traceback", "slow", "message", "message"]
