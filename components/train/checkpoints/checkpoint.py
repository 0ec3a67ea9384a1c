"""Sharded checkpoints that are whole or not there: every rank writes its part, and `.metadata` appears last.

    <uri>/step-00000200-<attempt>/   state.json  metrics.jsonl  __0_0.distcp  __1_0.distcp  files.json  .metadata

`.metadata` is put in place by one rename (or one put) after every rank's file has been written and looked at; a folder
without it is what a crash left, is never read, and goes with the next save. Every save has a folder of its own, so that
none is written over. `components.train.checkpoints.saver` writes them, this is what they hold and how they are read.

The order of the data and the random numbers of every pack are functions of the seed and the step; so the numbers in
`state.json` are all that a run needs to go on, on any number of ranks. `components.train.checkpoints.sums` tells whether a
checkpoint is still what was written.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from typing import Any

from fsspec.implementations.local import LocalFileSystem
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict_loader

from components.artifacts.files import filesystem
from components.train.checkpoints.storage import METADATA, FileRecords, Reader, quiet
from components.train.checkpoints.sums import FILES as FILES
from components.train.checkpoints.sums import STATE as STATE
from components.train.checkpoints.sums import notes_records, read_records
from components.train.folder import METRICS as METRICS
from components.train.update.optimizer import ShardedAdamW


def tensors(model: nn.Module, optimizer: ShardedAdamW) -> dict[str, Tensor]:
    """What a checkpoint holds: `model.<name>`, `optim.<name>.exp_avg|exp_avg_sq` and, where one is kept, `ema.<name>`.

    Frozen parameters are those of the base model, and are not in it. The numbers are in `state.json`.
    """
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    weights = {f"model.{name}": tensor for name, tensor in model.state_dict().items() if name not in frozen}
    averages = optimizer.average.tensors if optimizer.average else {}
    return (
        weights
        | {f"optim.{name}": tensor for name, tensor in optimizer.tensors().items()}
        | {f"ema.{name}": tensor for name, tensor in averages.items()}
    )


def restore(folder: str, model: nn.Module, optimizer: ShardedAdamW) -> dict[str, Any]:
    """Load a checkpoint into a model and optimizer of any world size; each rank reads its parts. Returns its state."""
    with quiet():
        state_dict_loader.load(tensors(model, optimizer), storage_reader=Reader(folder))
    state = read_state(folder)
    optimizer.resume_after(state["updates"])
    return state


def write_notes(folder: str, state: Mapping[str, Any], metrics: str) -> None:
    """Make the folder of a checkpoint, with its state and its lines of metrics."""
    fs, path = filesystem(folder)
    fs.makedirs(path, exist_ok=True)
    put(fs, f"{path}/{METRICS}", metrics.encode())
    put(fs, f"{path}/{STATE}", json.dumps(state, indent=1).encode())


def write_records(folder: str, records: FileRecords) -> None:
    """Note size and checksum of every file: `records` are those of tensors, the others are read here."""
    fs, path = filesystem(folder)
    put(fs, f"{path}/{FILES}", json.dumps(records | notes_records(folder), indent=1, sort_keys=True).encode())


def put(fs: Any, path: str, data: bytes) -> None:
    """Write a file that survives a loss of power, as those of the tensors do."""
    if not isinstance(fs, LocalFileSystem):
        fs.pipe_file(path, data)
        return
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def read_state(folder: str) -> dict[str, Any]:
    """The JSON state of a checkpoint. Raises ValueError where it is none."""
    fs, path = filesystem(folder)
    state = json.loads(fs.cat_file(f"{path}/{STATE}"))
    if not isinstance(state, dict):
        raise ValueError(f"{folder}/{STATE}: is no JSON object")
    return state


def read_metrics(folder: str) -> str:
    """The lines of metrics up to a checkpoint's step."""
    fs, path = filesystem(folder)
    text: str = fs.cat_file(f"{path}/{METRICS}").decode()
    return text


def newest(uri: str) -> str | None:
    """URI of the newest whole checkpoint below `uri`."""
    return next((f"{uri}/{name}" for name in reversed(attempts(uri)) if is_whole(f"{uri}/{name}")), None)


def attempts(uri: str) -> list[str]:
    """Names of all checkpoint folders below `uri`, whole or not, oldest first."""
    fs, path = filesystem(uri)
    with contextlib.suppress(FileNotFoundError):
        names = (entry.rstrip("/").rpartition("/")[2] for entry in fs.ls(path, detail=False))
        return sorted(name for name in names if name.startswith("step-"))
    return []


def is_whole(folder: str) -> bool:
    """Whether a checkpoint was published, can be read, and each of its files still has the size that was written."""
    fs, path = filesystem(folder)
    if not fs.exists(f"{path}/{METADATA}"):
        return False
    sizes = {name.rpartition("/")[2]: info["size"] for name, info in fs.find(path, detail=True).items()}
    records = read_records(folder)
    try:
        read_state(folder)
    except (ValueError, FileNotFoundError):
        return False
    return bool(records) and all(sizes.get(name) == record["size"] for name, record in records.items())
