"""What one process does that `torchrun` starts: settings, device and process group around the training of a rank."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist

from components.artifacts.artifact import Artifact, artifact_at
from components.artifacts.files import absolute_uri
from components.errors import UserError
from components.processes.parent_death import end_with_parent
from components.terminal_text import one_line
from components.train.checkpoints.checkpoint import newest, read_state
from components.train.data.length import counted_in_steps
from components.train.folder import TrainingFolder
from components.train.launch.plain_settings import read_settings
from components.train.launch.torchrun import STOPPED
from components.train.measure.metrics_log import describe
from components.train.preflight import check, rejected_line
from components.train.watch.guards import TrainingDiverged
from components.train.watch.signals import Stopped, remove_touch_files
from components.train.worker import TrainJob, run_rank

WRONG = 2


def train_rank(options: argparse.Namespace) -> int:
    """Train as the command's options say; returns the exit status."""
    options.out = absolute_uri(options.out)
    if "TORCHELASTIC_RUN_ID" in os.environ:  # a rank whose agent has died would go on beside those of the next start
        end_with_parent()
    rank = int(os.environ.get("RANK", 0))
    try:
        settings = read_settings(options.config, options.overrides)
        cache = Path(tempfile.gettempdir(), "plm-cache") if "://" in options.out else Path(options.out, "cache")
        inputs = folder_artifact(options.shards, cache), folder_artifact(options.base, cache)
        settings = counted_in_steps(settings, inputs[0])
        job = TrainJob(settings, *inputs, TrainingFolder(options.out))
        left_out = check(settings, *inputs, int(os.environ.get("WORLD_SIZE", 1)), job.folder)
        if left_out and rank == 0:
            print(one_line(rejected_line(left_out)), flush=True)
        if not settings.use_gpu:
            torch.set_num_threads(max(1, int(settings.cpus_per_worker)))
        with device_of_this_process(settings.use_gpu) as device:
            if rank == 0 and not int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)):
                remove_touch_files(options.out)
            run_rank(job, device, lambda line: print(one_line(describe(line, settings.planned_steps)), flush=True))
            if rank == 0:
                say_result(job, options.json)
    except Stopped as stopped:
        return say(str(stopped), STOPPED)
    except KeyboardInterrupt:
        return say("stopped at once by a second Ctrl-C; the checkpoints before are whole", STOPPED)
    except (UserError, TrainingDiverged) as error:
        return say(f"error: {error}", WRONG)
    return 0


def say(text: str, status: int) -> int:
    if int(os.environ.get("RANK", 0)) == 0:
        print(one_line(text), file=sys.stderr, flush=True)
    return status


@contextmanager
def device_of_this_process(use_gpu: bool) -> Iterator[torch.device]:
    """The device of this rank; inside `torchrun`, with a process group."""
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    device = torch.device("cuda", local_rank) if use_gpu else torch.device("cpu")
    if use_gpu:
        torch.cuda.set_device(device)
    if "WORLD_SIZE" not in os.environ:
        yield device
        return
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    backend = "cpu:gloo,cuda:nccl" if use_gpu else "gloo"
    dist.init_process_group(backend, store=meeting_place(rank, world), rank=rank, world_size=world)
    yield device
    dist.destroy_process_group()  # not after an error: other ranks may be inside an operation


def meeting_place(rank: int, world: int) -> dist.Store:
    """The store that ranks find each other in. Names of its own for each restart: the agent keeps its store over them,
    and with it the addresses of ranks that are dead (torch 2.13), which the new ones would wait for."""
    kept_by_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(host, port, world, is_master=rank == 0 and not kept_by_agent)
    return dist.PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)


def folder_artifact(folder: str, cache: Path) -> Artifact:
    """A folder as an artifact. Its digest is that of the manifest beside it, or of names and sizes of its files.

    What is derived from it goes to `cache`: the folder, and so its digest, stays as it is.
    """
    root = Path(folder).absolute()
    if not root.is_dir():
        raise UserError(f"{folder}: no such folder")
    if found := artifact_at(str(root), cache):
        return found
    files = {path.relative_to(root).as_posix(): {"size": path.stat().st_size} for path in root.rglob("*.*")}
    digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:32]
    return Artifact(str(root), {"step": "folder", "key": digest, "digest": digest, "files": files, "counts": {}}, cache)


def say_result(job: TrainJob, as_json: bool) -> None:
    """Say where the last checkpoint is, for programs."""
    folder = newest(job.folder.checkpoints) or ""
    state = read_state(folder)
    if as_json:
        keys = ("step", "loss", "tokens", "media", "restarts", "world_size", "attempt_seconds")
        print(json.dumps({"checkpoint": folder, **{key: state[key] for key in keys}}))
