"""Kill trainings at random moments and compare what comes out with what nobody disturbed: `make chaos RUNS=20 SEED=0`.

Four of five trials run under torchrun's elastic agent (its own entry, `elastic_launch`; the ranks are forked from a process
that has imported torch, so that a start takes less than a second), the others through Ray Train. Each trial kills once:

    worker       one rank, by SIGKILL; the launcher starts all ranks again
    driver       the launcher itself; the same command is given again
    checkpoint   a rank, while a checkpoint is being written (its folder is there, its metadata is not)

Prints one JSON object: how many trials there were of each kind, and in how many the final weights and optimizer state
differ from the undisturbed run by sha256 (`diverged`), a checkpoint was resumed that was never whole (`partial_selected`),
or the training did not reach its last step (`unresumable`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

KINDS = ("worker", "checkpoint", "driver")
STEPS, EVERY, WORLD = 60, 6, 2
SETTINGS = {
    "steps": STEPS,
    "lr": 3e-3,
    "warmup_steps": 2,
    "packs_per_step": 2,
    "pack_tokens": 64,
    "pack_media": 6,
    "checkpoint_every": EVERY,
    "log_every": 1,
    "workers": WORLD,
    "cpus_per_worker": 0.5,
    "max_failures": 5,
}
TRIAL_SECONDS = 300.0


@dataclass(frozen=True)
class Place:
    """A folder with the inputs of all trials, and one of this trial."""

    inputs: Path
    out: Path

    @property
    def checkpoints(self) -> Path:
        return self.out / "checkpoints"

    def names(self) -> list[str]:
        return sorted(os.listdir(self.checkpoints)) if self.checkpoints.exists() else []

    def whole(self, name: str) -> bool:
        return (self.checkpoints / name / ".metadata").exists()

    def steps_logged(self) -> int:
        try:
            return (self.out / "metrics.jsonl").read_bytes().count(b"\n")
        except FileNotFoundError:
            return 0


@dataclass
class Watch:
    """Looks at a trial all the time: which checkpoints were whole at some moment, and when it is time to kill."""

    place: Place
    due: Callable[[Place], bool]
    kill: Callable[[], bool]
    seen: set[str] = field(default_factory=set)
    killed: bool = False
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Watch:
        threading.Thread(target=self._run, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(0.001):
            self.seen |= {name for name in self.place.names() if self.place.whole(name)}
            if not self.killed and self.due(self.place):
                self.killed = self.kill()


def when(kind: str, chance: random.Random) -> Callable[[Place], bool]:
    """The moment of a kill: after a random step, or while the first checkpoint after it is being written."""
    step = chance.randrange(1, STEPS - 2 * EVERY)
    if kind != "checkpoint":
        return lambda place: place.steps_logged() >= step
    return lambda place: place.steps_logged() >= step and any(not place.whole(name) for name in place.names())


def ranks_below(root: int, mark: str) -> list[int]:
    """Process ids of the ranks among the descendants of a process."""
    try:
        below = psutil.Process(root).children(recursive=True)
        return [process.pid for process in below if mark in " ".join([process.name(), *process.cmdline()])]
    except psutil.NoSuchProcess:
        return []


def trial(place: Place, kind: str, seed: int, launcher: str) -> dict[str, Any]:
    """Start, kill once, start again where the launcher is gone; says how it ended."""
    start = through_ray if launcher == "ray" else under_torchrun
    chance = random.Random(seed)
    shutil.rmtree(place.out, ignore_errors=True)
    process = start(place)

    def kill() -> bool:
        if kind == "driver":
            found = [process.pid]
        elif launcher == "ray":  # the cluster is a child of this process, the driver is not its parent
            found = ranks_below(os.getpid(), "RayTrainWorker")
        else:
            found = ranks_below(process.pid, "python")
        if not found:
            return False
        os.kill(chance.choice(found), signal.SIGKILL)
        return True

    with Watch(place, when(kind, chance), kill) as watch:
        status = process.wait(TRIAL_SECONDS)
        if kind == "driver" and watch.killed:
            status = start(place).wait(TRIAL_SECONDS)
    state = last_state(place)
    return {
        "launcher": launcher,
        "kind": kind,
        "killed": watch.killed,
        "finished": status == 0 and state.get("step") == STEPS,
        "partial": [name for name in state.get("resumed_from", []) if name not in watch.seen],
        "resumed": len(state.get("resumed_from", [])),
        "sha256": digest(place) if state.get("step") == STEPS else None,
    }


class Forked:
    """A child process that runs a function: what Popen is for a command."""

    def __init__(self, target: Callable[[], int]) -> None:
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            status = 1
            try:
                status = target()
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr)
            finally:
                os._exit(status)

    def wait(self, seconds: float) -> int:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            if found:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.02)
        os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        return -1


def under_torchrun(place: Place) -> Forked:
    """Two ranks under the elastic agent."""
    return Forked(lambda: elastic(place))


def elastic(place: Place) -> int:
    import torch  # noqa: F401 - the ranks are forked from here
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=WORLD,
        run_id=place.out.name,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=3,
        monitor_interval=0.05,
        start_method="fork",
    )
    elastic_launch(config, rank_main)(str(place.inputs), str(place.out))
    return 0


def rank_main(inputs: str, out: str) -> None:
    """What each rank runs: the command line of training without Ray."""
    from components.train.launch.torchrun import main

    log = os.open(f"{out}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    folders = ["--config", f"{inputs}/train.yaml", "--shards", f"{inputs}/shards", "--base", f"{inputs}/base"]
    status = main([*folders, "--out", out])
    if status:
        raise SystemExit(status)


def through_ray(place: Place) -> subprocess.Popen[Any]:
    """A driver process of its own on the cluster that RAY_ADDRESS names."""
    command = [sys.executable, "-m", "tests.chaos", "drive", str(place.inputs), str(place.out)]
    log = open(f"{place.out}.log", "ab")  # noqa: SIM115 - the child's
    return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def drive(inputs: Path, out: Path) -> None:
    """The training step's own way through Ray Train; killed and called again by the trials."""
    import ray

    from components.artifacts.context import StepContext
    from components.tracking.runs import SilentTracker
    from components.train.folder import TrainingFolder
    from components.train.launch.plain_settings import read_settings
    from components.train.launch.ray import fit
    from tests.components.training_set import artifact

    ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, configure_logging=False)
    context = StepContext(SilentTracker(), lambda text: None, inputs / "cache", str(out))
    folders = {"shards": artifact(inputs / "shards", "preprocess"), "base": artifact(inputs / "base", "base")}
    fit(read_settings(f"{inputs}/train.yaml"), folders, TrainingFolder(str(out)), context)


def last_state(place: Place) -> dict[str, Any]:
    whole = [name for name in place.names() if place.whole(name)]
    return json.loads((place.checkpoints / whole[-1] / "state.json").read_text()) if whole else {}


def digest(place: Place) -> str:
    """sha256 over every tensor of the newest checkpoint, weights and optimizer, by name."""
    from components.train.checkpoints.checkpoint import newest
    from components.train.checkpoints.streams import StoredTensors

    stored = StoredTensors(newest(str(place.checkpoints)) or "", "")
    sha = hashlib.sha256()
    for name in sorted(stored.shapes()):
        sha.update(name.encode())
        for piece in stored.stream(name):
            sha.update(piece)
    return sha.hexdigest()


def write_inputs(folder: Path) -> None:
    import yaml

    from tests.components.training_set import tiny_config, write_base, write_shards

    write_shards(folder / "shards")
    write_base(folder / "base", tiny_config(drop_path=0.2))
    (folder / "train.yaml").write_text(yaml.safe_dump({"train": SETTINGS}))


def run(runs: int, seed: int, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """All trials; one of five through Ray Train."""
    import torch

    torch.set_num_threads(1)
    import components.train.launch.rank  # noqa: F401 - imported once, for all ranks

    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder)
        write = Forked(lambda: write_inputs(inputs) or 0)  # forked children must not inherit threads
        assert write.wait(TRIAL_SECONDS) == 0
        calm = Place(inputs, inputs / "calm")
        assert under_torchrun(calm).wait(TRIAL_SECONDS) == 0, Path(f"{calm.out}.log").read_text()[-2000:]
        expected = digest(calm)
        by_ray = runs // 5
        plans = [("torchrun", KINDS[n % 3]) for n in range(runs - by_ray)]
        plans += [("ray", KINDS[n % 3]) for n in range(by_ray)]
        found = []
        for number, (launcher, kind) in enumerate(plans):
            if launcher == "ray" and "RAY_ADDRESS" not in os.environ:
                start_ray()
            place = Place(inputs, inputs / f"trial-{number}")
            result = trial(place, kind, seed * 1000 + number, launcher)
            result["same"] = result["sha256"] == expected
            say(json.dumps(result))
            found.append(result)
            if result["same"]:
                shutil.rmtree(place.out, ignore_errors=True)
        if "ray" in {launcher for launcher, _ in plans}:
            stop_ray()
    return summary(found, seed, time.monotonic() - began)


def summary(found: list[dict[str, Any]], seed: int, seconds: float) -> dict[str, Any]:
    return {
        "name": "chaos",
        "hardware": f"{os.cpu_count()}-core {platform.machine()} CPU",
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
        ).stdout.strip(),
        "baseline": "the same training, undisturbed; final weights and optimizer state by sha256",
        "trials": len(found),
        "diverged": sum(bool(result["sha256"]) and not result["same"] for result in found),
        "partial_selected": sum(bool(result["partial"]) for result in found),
        "unresumable": sum(not result["finished"] for result in found),
        "not_killed": sum(not result["killed"] for result in found),
        "raw": {
            "seed": seed,
            "kinds": dict(Counter(f"{result['launcher']} {result['kind']}" for result in found if result["killed"])),
            "resumed_from_a_checkpoint": sum(result["resumed"] > 0 for result in found),
            "seconds": round(seconds),
        },
    }


def start_ray() -> None:
    import ray

    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="error")
    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address


def stop_ray() -> None:
    import ray

    ray.shutdown()
    os.environ.pop("RAY_ADDRESS", None)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    result = run(arguments.runs, arguments.seed, lambda text: print(text, flush=True))
    print(json.dumps(result))
    sys.exit(bool(result["diverged"] or result["partial_selected"] or result["unresumable"]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["drive"]:
        drive(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main()
