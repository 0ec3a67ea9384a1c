"""The bench that needs a GPU runs, in small, on a CPU: what it will measure is at least not broken."""

from __future__ import annotations

import pytest

from tests.bench.mfu import Case, in_process


@pytest.mark.e2e  # bf16 on a CPU
@pytest.mark.parametrize("padded", [False, True], ids=["ours", "transformers"])
def test_a_case_of_the_mfu_bench_gives_a_rate(padded: bool) -> None:
    found = in_process(Case("tiny", "text", tokens=300, steps=11, padded=padded))
    assert found is not None and found["tokens_per_s"] > 0
