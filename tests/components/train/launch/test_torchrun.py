"""Training without Ray: the command in a process of its own, with little installed, stopped, hung and started again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest
import yaml

from components.errors import ConfigError
from components.pipeline.config import PipelineConfig
from components.shards.reader import INDEX, read_index
from components.train.checkpoints.checkpoint import newest, read_state
from components.train.data.length import counted_in_steps
from components.train.data.plan import Cost, PackPlan
from components.train.data.selection import plan_spec
from components.train.launch.plain_settings import read_settings
from components.train.launch.torchrun import main
from tests.components.training_set import artifact, tiny_config, write_base, write_shards

BLOCKED = ("pydantic", "ray", "mlflow", "prefect", "decord", "av", "s3fs", "lmms_eval", "sklearn", "pandas")
WITHOUT_MUCH = f"""
import importlib.util, sys
blocked, find = {BLOCKED!r}, importlib.util.find_spec
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(name)
importlib.util.find_spec = lambda name, of=None: None if name.partition(".")[0] in blocked else find(name, of)
sys.meta_path.insert(0, Missing())
from components.train.launch.torchrun import main
sys.exit(main(sys.argv[1:]))
"""
TRAIN = {"steps": 6, "lr": 3e-3, "warmup_steps": 2, "packs_per_step": 2, "pack_tokens": 64, "checkpoint_every": 3}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("launch")
    write_shards(folder / "shards")
    write_base(folder / "base", tiny_config())
    (folder / "train.yaml").write_text(yaml.safe_dump({"train": TRAIN}))
    return folder


def arguments(inputs: Path, out: Path) -> list[str]:
    folders = ["--config", f"{inputs}/train.yaml", "--shards", f"{inputs}/shards", "--base", f"{inputs}/base"]
    return [*folders, "--out", str(out)]


def test_training_needs_torch_and_little_else(inputs: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_MUCH, *arguments(inputs, tmp_path), "--json"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-2000:]
    assert json.loads(run.stdout.splitlines()[-1])["step"] == 6


def test_the_same_command_goes_on_where_the_last_one_ended(inputs: Path, tmp_path: Path) -> None:
    before = sorted(path for path in inputs.rglob("*"))
    assert main([*arguments(inputs, tmp_path), "train.checkpoint_every=2"]) == 0
    last = newest(f"{tmp_path}/checkpoints") or ""
    Path(last, ".metadata").unlink()  # as if its save had been cut off
    assert main(arguments(inputs, tmp_path)) == 0
    assert read_state(newest(f"{tmp_path}/checkpoints") or "")["restarts"] == 1
    assert sorted(path for path in inputs.rglob("*")) == before


@pytest.mark.case("E16")
def test_epochs_are_trained_as_the_steps_that_go_once_through_the_shards(inputs: Path, tmp_path: Path) -> None:
    assert main([*arguments(inputs, tmp_path), "train.epochs=1"]) == 0
    state = read_state(newest(f"{tmp_path}/checkpoints") or "")
    settings = counted_in_steps(
        read_settings(f"{inputs}/train.yaml", ["train.epochs=1"]), artifact(inputs / "shards", "preprocess")
    )
    assert state["step"] == settings.steps != 6 and settings.epochs is None
    plan = PackPlan.make(plan_spec(read_index(inputs / "shards" / INDEX), settings, Cost())[0], settings.steps)
    last_packs = sum(len(pack) for pack in plan.step(settings.steps - 1).packs)
    seen = int(plan.starts[settings.steps * settings.packs_per_step])
    assert 40 <= seen < 40 + last_packs


def test_other_settings_are_refused_with_status_2(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(arguments(inputs, tmp_path))
    assert main([*arguments(inputs, tmp_path), "train.lr=0.5"]) == 2
    assert "train.lr: 0.003, now 0.5" in capsys.readouterr().err


def test_settings_that_do_not_fit_the_model_end_with_status_2(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments(inputs, tmp_path), "train.freeze=['^vison']"]) == 2
    assert "'^vison' matches no parameter" in capsys.readouterr().err


TRAINING = [path for path in sorted(Path("configs").rglob("*.yaml")) if "\ntrain:" in path.read_text()]


@pytest.mark.parametrize("path", TRAINING, ids=str)
def test_plain_settings_are_those_of_the_config(path: Path) -> None:
    from components.layers import read_file

    expected = PipelineConfig.model_validate({"train": read_file(str(path)).values["train"]}).train
    assert asdict(read_settings(str(path))) == asdict(expected)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"stpes": 3}, r"train.stpes: unknown key; did you mean train\.steps\?"),
        ({"guards": {"on_spike": "explode"}}, r"train.guards.on_spike is 'explode'; it must be one of"),
        ({"lr": "fast"}, r"train.lr is 'fast'; it must be a number"),
        ({"steps": 1.5}, r"train\.steps is 1\.5; it must be a whole number"),
        ({"betas": [0.9]}, r"train\.betas is \[0\.9\]; it must be a list of 2"),
        ({"steps": 0}, r"steps is 0; it must be positive"),
    ],
)
def test_wrong_settings_name_their_key(tmp_path: Path, section: dict[str, object], message: str) -> None:
    (tmp_path / "train.yaml").write_text(yaml.safe_dump({"train": section}))
    with pytest.raises(ConfigError, match=message):
        read_settings(str(tmp_path / "train.yaml"))


def test_overrides_are_laid_over_the_file(inputs: Path) -> None:
    settings = read_settings(f"{inputs}/train.yaml", ["train.lr=1e-4", "train.guards.on_spike=skip"])
    assert (settings.lr, settings.guards.on_spike, settings.steps) == (1e-4, "skip", 6)


@pytest.mark.case("E11")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_torch_is_imported_ends_in_a_sentence(
    inputs: Path, tmp_path: Path, number: signal.Signals
) -> None:
    command = [sys.executable, "-m", "components.train.launch.torchrun", *arguments(inputs, tmp_path / "out")]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=interruptible_again)
    caught = 0
    while not caught & 1 << (signal.SIGTERM - 1):  # the handler is in place
        status = Path(f"/proc/{run.pid}/status").read_text()
        caught = int(re.search(r"SigCgt:\s*(\w+)", status)[1], 16)
    run.send_signal(number)
    assert run.communicate(timeout=60)[1] == "stopped; the same command resumes\n"
    assert run.returncode == 75


def interruptible_again() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Torchrun:
    """Two ranks, started as a shell would; output goes to a file."""

    def __init__(self, inputs: Path, out: Path, *options: str) -> None:
        self.out, self.log = out, Path(f"{out}.log")
        ranks = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "2"]
        command = [sys.executable, *ranks, "-m", "components.train.launch.torchrun", *arguments(inputs, out), *options]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def ranks(self) -> list[psutil.Process]:
        found = psutil.Process(self.process.pid).children()
        return [process for process in found if "components.train.launch.torchrun" in " ".join(process.cmdline())]

    def wait_for(self, what: Callable[[], object], seconds: float) -> float:
        """Seconds until `what()` holds."""
        began = time.monotonic()
        while not what():
            assert time.monotonic() - began < seconds, self.log.read_text()[-3000:]
            assert self.process.poll() is None or what(), self.log.read_text()[-3000:]
            time.sleep(0.1)
        return time.monotonic() - began

    def steps(self) -> int:
        path = self.out / "metrics.jsonl"
        return int(json.loads(path.read_text().splitlines()[-1])["step"]) if path.exists() and path.read_text() else 0


@pytest.mark.e2e
def test_sigterm_under_torchrun_leaves_a_checkpoint_within_30_seconds(inputs: Path, tmp_path: Path) -> None:
    run = Torchrun(inputs, tmp_path / "out", "train.steps=100000", "train.checkpoint_every=100000")
    run.wait_for(lambda: run.steps() >= 20, 240)
    run.process.send_signal(signal.SIGTERM)
    assert run.wait_for(lambda: run.process.poll() is not None, 30) < 30
    assert read_state(newest(f"{run.out}/checkpoints") or "")["step"] >= 20
    assert re.search(r"stopped after step \d+ of 100000; its checkpoint is whole", run.log.read_text())


@pytest.mark.e2e
@pytest.mark.case("E11")
def test_ctrl_c_under_torchrun_leaves_a_checkpoint(inputs: Path, tmp_path: Path) -> None:
    """From a terminal it reaches the agent and every rank, and each rank once more through the agent."""
    run = Torchrun(inputs, tmp_path / "out", "train.steps=100000", "train.checkpoint_every=100000")
    run.wait_for(lambda: run.steps() >= 20, 240)
    os.killpg(run.process.pid, signal.SIGINT)
    run.wait_for(lambda: run.process.poll() is not None, 60)
    assert read_state(newest(f"{run.out}/checkpoints") or "")["step"] >= 20
    assert len(re.findall(r"stopped after step \d+ of 100000; its checkpoint is whole", run.log.read_text())) == 1


@pytest.mark.e2e
@pytest.mark.parametrize("rank", [0, 1])
def test_a_stopped_rank_is_named_with_its_stack_and_the_run_goes_on(inputs: Path, tmp_path: Path, rank: int) -> None:
    run = Torchrun(inputs, tmp_path / "out", "train.steps=3000", "train.checkpoint_every=20")
    run.wait_for(lambda: newest(f"{run.out}/checkpoints"), 240)
    victim = next(p for p in run.ranks() if p.environ()["RANK"] == str(rank))
    victim.send_signal(signal.SIGSTOP)
    assert run.wait_for(lambda: list(run.out.glob("hangs/*.txt")), 70) < 60
    report = next(run.out.glob("hangs/*.txt")).read_text()
    assert f"rank {rank} does not answer" in report.splitlines()[0]
    assert f"rank {rank}: host " in report and ", stopped" in report and "thread MainThread" in report
    before = run.steps()
    run.wait_for(lambda: run.steps() > before, 240)
    os.killpg(run.process.pid, signal.SIGKILL)
