"""How long a training stands still for a checkpoint: written beside the steps, against the library's own synchronous save.

    python tests/bench/checkpoint.py --json

Two ranks, 205 MB of weights and optimizer state, sharded. A step is a wait of half a second without use of the CPU, as a
step on a GPU is, then an update of every tensor, which must not begin before the copy is made. The stall is what a step
with a checkpoint takes longer than one without: medians of the rounds, of the slower rank, not below a millisecond. Where
training itself takes all cores, as on a CPU without the wait, no background save can win: it needs the same cores.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as mp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from components.train.checkpoints.saver import Saver
from components.train.checkpoints.storage import quiet
from components.train.model.parallel import Group
from tests.bench._evidence import bench, evidence

WORLD, WAIT = 2, 0.5
TENSORS, ROWS, COLUMNS = 48, 1024, 1042  # 48 x 4.27 MB = 205 MB


def tensors() -> dict[str, DTensor]:
    mesh = init_device_mesh("cpu", (WORLD,))
    return {
        f"model.{n}": distribute_tensor(torch.full((ROWS, COLUMNS), float(n)), mesh, [Shard(0)]) for n in range(TENSORS)
    }


def step(held: dict[str, DTensor], before_update: Any = lambda: None) -> None:
    """A forward and backward that wait, then an update."""
    time.sleep(WAIT)
    before_update()
    for tensor in held.values():
        tensor.to_local().add_(1.0)
    dist.barrier()


def timed(work: Any) -> float:
    dist.barrier()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def rank_main(rank: int, meeting: str, folder: str, rounds: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=WORLD)
    held = tensors()
    saver = Saver(f"{folder}/async", lambda: held, Group(torch.device("cpu"), rank, WORLD), keep=1)
    times: dict[str, list[float]] = {"plain": [], "sync": [], "async": [], "async_whole": []}

    def synchronous(number: int) -> None:
        with quiet():
            dcp.save(held, storage_writer=dcp.FileSystemWriter(f"{folder}/sync-{number}"))
        step(held)

    def beside(number: int) -> None:
        saver.start({"step": number, "score": 0.0}, "")
        step(held, saver.wait_copied)

    for number in range(rounds + 1):
        plain = timed(lambda: step(held))
        sync = timed(lambda number=number: synchronous(number))
        if rank == 0:
            shutil.rmtree(f"{folder}/sync-{number}")
        background = timed(lambda number=number: beside(number))
        rest = timed(lambda: [step(held, saver.wait_copied) for _ in range(2)])
        whole = timed(lambda: saver.wait())
        assert saver.failure is None, saver.failure
        if number:  # the first round makes the buffers of the copy
            for name, value in zip(times, (plain, sync, background, rest + whole), strict=True):
                times[name].append(value)
    gathered: list[Any] = [None] * WORLD
    dist.all_gather_object(gathered, times)
    if rank == 0:
        slower = {
            name: [max(values) for values in zip(*(one[name] for one in gathered), strict=True)] for name in times
        }
        Path(folder, "times.json").write_text(json.dumps(slower))
    dist.destroy_process_group()


def measure(rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(rank_main, (f"{folder}/meeting", folder, rounds), nprocs=WORLD)
        times = json.loads(Path(folder, "times.json").read_text())
    plain = statistics.median(times["plain"])
    stall = {name: max(statistics.median(times[name]) - plain, 1e-3) for name in ("sync", "async")}
    return evidence(
        "checkpoint",
        f"torch {torch.__version__}, {WORLD} ranks",
        "torch.distributed.checkpoint.save of the same tensors before the step, same run",
        {"sync_over_async_stall": round(stall["sync"] / stall["async"], 1)},
        {
            "megabytes": round(TENSORS * ROWS * COLUMNS * 4 / 1e6),
            "plain_step_s": round(plain, 4),
            "stall_s": {name: round(value, 4) for name, value in stall.items()},
            "rounds": rounds,
            "times_s": {name: [round(value, 3) for value in values] for name, values in times.items()},
        },
    )


if __name__ == "__main__":
    bench(__doc__, measure, rounds=7)
