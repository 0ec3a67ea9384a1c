"""What only a GPU can show: between two log points, nothing waits for the device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from components.train.loop import Hooks, train
from components.train.model.assembly import assemble
from components.train.model.parallel import Group
from components.train.settings import TrainConfig
from plm_model.families.plm.model import build
from plm_model.families.plm.weights import initialise
from tests.components.train.test_gradients import FOUR, odd_config, step

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture
def one_rank(tmp_path: Path) -> Iterator[Group]:
    dist.init_process_group("cpu:gloo,cuda:nccl", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield Group.current(torch.device("cuda", 0))
    dist.destroy_process_group()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_steps_between_log_points_do_not_wait_for_the_device(one_rank: Group, dtype: str) -> None:
    settings = TrainConfig(steps=10**6, log_every=10**6, dtype=dtype, ema_decay=0.9)
    model = build(odd_config(drop_path=0.1))

    def fill(model: Any, device: torch.device, added: frozenset[str]) -> None:
        initialise(model, 0, device)

    optimizer = assemble(model, fill, settings, one_rank)
    works = [step(FOUR, one_rank) for _ in range(5)]

    def refuse_waiting(work: Any) -> None:
        torch.cuda.set_sync_debug_mode("error")  # once the first step has made its streams and workspaces

    try:
        train(model, optimizer, renumbered(works), settings, one_rank, Hooks(after_step=refuse_waiting))
    finally:
        torch.cuda.set_sync_debug_mode("default")


def renumbered(works: list[Any]) -> Iterator[Any]:
    """As steps 2, 3 and so on: the first step is a log point."""
    for number, work in enumerate(works, start=2):
        yield replace(work, step=number)
