"""Sharded checkpoints that are whole or not there: every rank writes its part, and `.metadata` appears last.

    <uri>/step-00000200-<attempt>/   state.json  metrics.jsonl  __0_0.distcp  __1_0.distcp  .metadata

`.metadata` is put in place by one rename (or one put) after every rank has reported its file written; a folder without it
is what a crash left, is never read, and goes with the next save. Every save has a folder of its own, so that none is
written over.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn

from components.artifacts import filesystem
from components.train.optimizer import ShardedAdamW
from components.train.parallel import Group
from components.train.storage import METADATA, quiet, reader, writer

STATE = "state.json"
METRICS = "metrics.jsonl"


def tensors(model: nn.Module, optimizer: ShardedAdamW) -> dict[str, Tensor]:
    """What a checkpoint holds: `model.<name>` and `optim.<name>.exp_avg|exp_avg_sq`. The numbers are in `state.json`."""
    weights = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    return weights | {f"optim.{name}": tensor for name, tensor in optimizer.tensors().items()}


def save(
    uri: str,
    model: nn.Module,
    optimizer: ShardedAdamW,
    state: Mapping[str, Any],
    metrics: str,
    group: Group,
    keep: int,
) -> None:
    """Write a checkpoint below `uri`; all ranks call it. `state` (JSON, with its `step`) and `metrics` are rank 0's.

    The newest `keep` whole checkpoints stay.
    """
    folder = f"{uri}/step-{state['step']:08d}-{shared_stamp(group)}"
    fs, path = filesystem(folder)
    if group.rank == 0:
        fs.makedirs(path, exist_ok=True)
        fs.pipe_file(f"{path}/{METRICS}", metrics.encode())
        fs.pipe_file(f"{path}/{STATE}", json.dumps(state, indent=1).encode())
    if group.world > 1:
        dist.barrier()
    with quiet():
        dcp.save(tensors(model, optimizer), storage_writer=writer(folder))
    if group.rank == 0:
        prune(uri, keep)


def restore(folder: str, model: nn.Module, optimizer: ShardedAdamW) -> dict[str, Any]:
    """Load a checkpoint into a model and optimizer of any world size; each rank reads its parts. Returns its state."""
    with quiet():
        dcp.load(tensors(model, optimizer), storage_reader=reader(folder))
    state = read_state(folder)
    optimizer.resume_after(state["step"])
    return state


def read_state(folder: str) -> dict[str, Any]:
    """The JSON state of a checkpoint."""
    fs, path = filesystem(folder)
    return json.loads(fs.cat_file(f"{path}/{STATE}"))


def read_metrics(folder: str) -> str:
    """The lines of metrics up to a checkpoint's step."""
    fs, path = filesystem(folder)
    return fs.cat_file(f"{path}/{METRICS}").decode()


def newest(uri: str) -> str | None:
    """URI of the newest whole checkpoint below `uri`."""
    whole = [name for name in attempts(uri) if is_whole(f"{uri}/{name}")]
    return f"{uri}/{whole[-1]}" if whole else None


def attempts(uri: str) -> list[str]:
    """Names of all checkpoint folders below `uri`, whole or not, oldest first."""
    fs, path = filesystem(uri)
    with contextlib.suppress(FileNotFoundError):
        names = (entry.rstrip("/").rpartition("/")[2] for entry in fs.ls(path, detail=False))
        return sorted(name for name in names if name.startswith("step-"))
    return []


def is_whole(folder: str) -> bool:
    fs, path = filesystem(folder)
    return fs.exists(f"{path}/{METADATA}")


def prune(uri: str, keep: int) -> None:
    """Remove all but the newest `keep` whole checkpoints, and what crashes left. Only call while none is being written."""
    names = attempts(uri)
    kept = [name for name in names if is_whole(f"{uri}/{name}")][-max(keep, 1) :]
    for name in set(names) - set(kept):
        fs, path = filesystem(f"{uri}/{name}")
        with contextlib.suppress(FileNotFoundError):
            fs.rm_file(f"{path}/{METADATA}")  # first, so that a half-removed one is not taken for whole
        with contextlib.suppress(FileNotFoundError):
            fs.rm(path, recursive=True)


def shared_stamp(group: Group) -> int:
    """The time in ms at rank 0, the same on every rank."""
    stamp = torch.tensor([time.time_ns() // 1_000_000])
    if group.world > 1:
        dist.broadcast(stamp, 0)
    return int(stamp)
