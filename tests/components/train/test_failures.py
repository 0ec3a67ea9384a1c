"""What a run does about bad numbers, signals, touch files and restarts: in one process, on real steps."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from components.errors import UserError
from components.train import worker
from components.train.checkpoints import checkpoint
from components.train.checkpoints.room import checkpoint_bytes
from components.train.data.loader import StepWork, step_work
from components.train.folder import TrainingFolder
from components.train.measure.metrics_log import describe
from components.train.model.parallel import Group
from components.train.preflight import check
from components.train.sections import GuardSettings
from components.train.settings import TrainConfig
from components.train.watch.guards import TrainingDiverged
from components.train.watch.signals import CHECKPOINT_NOW, Stopped, ask
from components.train.worker import TrainJob, prepare, run_rank
from plm_model.families.plm.model import build
from tests.components.full_disk import largest_file
from tests.components.training_set import artifact, tiny_config, write_base, write_shards

CPU = torch.device("cpu")
SETTINGS = TrainConfig(
    steps=12, lr=3e-3, warmup_steps=2, packs_per_step=2, pack_tokens=64, pack_media=6, checkpoint_every=4, log_every=3
)
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("failures")
    write_shards(folder / "shards")
    write_base(folder / "base", tiny_config(drop_path=0.2))
    return folder


def job(data: Path, out: Path, **settings: Any) -> TrainJob:
    inputs = artifact(data / "shards", "preprocess"), artifact(data / "base", "base")
    return TrainJob(replace(SETTINGS, **settings), *inputs, TrainingFolder(str(out)))


def state(work: TrainJob) -> dict[str, Any]:
    return checkpoint.read_state(checkpoint.newest(work.folder.checkpoints) or "")


def final(work: TrainJob) -> Tensors:
    model, optimizer = prepare(work, Group(CPU))
    checkpoint.restore(checkpoint.newest(work.folder.checkpoints) or "", model, optimizer)
    return {name: tensor.clone() for name, tensor in checkpoint.tensors(model, optimizer).items()}


def same(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


Plant = Callable[[int, float], dict[int, list[str]]]


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Plant:
    """Weigh the packs of a step by something absurd; gives the records of each step that was read."""

    def change(step: int, weight: float) -> dict[int, list[str]]:
        seen: dict[int, list[str]] = {}

        def planted(*arguments: Any, **options: Any) -> Iterator[StepWork]:
            for work in step_work(*arguments, **options):
                seen[work.step] = [name for micro in work.micro_batches for name in micro.ids]
                if work.step == step:
                    bad = tuple(replace(micro, weight=weight) for micro in work.micro_batches)
                    work = replace(work, micro_batches=bad)
                yield work

        monkeypatch.setattr(worker, "step_work", planted)
        return seen

    return change


NAN = float("nan")
SPIKES = {"spike_window": 4, "spike_factor": 3.0}


@pytest.mark.parametrize(
    ("weight", "guards", "kind"),
    [
        (NAN, GuardSettings(on_nonfinite="skip"), "nonfinite"),
        (50.0, GuardSettings(on_spike="skip", **SPIKES), "spike"),
    ],
)
def test_an_unsound_step_is_skipped_and_its_records_are_noted(
    data: Path, tmp_path: Path, plant: Plant, weight: float, guards: GuardSettings, kind: str
) -> None:
    seen = plant(7, weight)
    work = job(data, tmp_path, guards=guards)
    run_rank(work, CPU)
    (found,) = state(work)["anomalies"]
    assert (found["step"], found["kind"], found["reaction"]) == (7, kind, "skip")
    assert sorted(found["ids"]) == sorted(seen[7])
    assert state(work)["updates"] == 11 and all(t.isfinite().all() for t in final(work).values())


@pytest.mark.parametrize(
    ("weight", "guards"),
    [
        (NAN, {"on_nonfinite": "roll_back"}),
        (50.0, {"on_spike": "roll_back", **SPIKES}),
    ],
)
def test_rolling_back_leaves_the_step_out_and_ends_where_skipping_does(
    data: Path, tmp_path: Path, plant: Plant, weight: float, guards: dict[str, Any]
) -> None:
    plant(7, weight)
    back = job(data, tmp_path / "back", guards=GuardSettings(**guards))
    run_rank(back, CPU)
    assert state(back)["left_out"] == [7] and state(back)["updates"] == 11 and state(back)["restarts"] == 0
    skipping = {name: "skip" if value == "roll_back" else value for name, value in guards.items()}
    skipped = job(data, tmp_path / "skip", guards=GuardSettings(**skipping))
    run_rank(skipped, CPU)
    assert same(final(back), final(skipped))


def test_rolling_back_before_the_first_checkpoint_starts_afresh(data: Path, tmp_path: Path, plant: Plant) -> None:
    plant(2, NAN)
    work = job(data, tmp_path, steps=4, guards=GuardSettings(on_nonfinite="roll_back"))
    run_rank(work, CPU)
    assert state(work)["left_out"] == [2] and state(work)["updates"] == 3


@pytest.mark.parametrize(("weight", "guards"), [(NAN, {}), (50.0, {"on_spike": "stop", **SPIKES})])
def test_stopping_names_the_step_and_its_records(
    data: Path, tmp_path: Path, plant: Plant, weight: float, guards: dict[str, Any]
) -> None:
    seen = plant(7, weight)
    with pytest.raises(TrainingDiverged, match=r"step 7: .*; records e\d+.* and \d more") as raised:
        run_rank(job(data, tmp_path, guards=GuardSettings(**guards)), CPU)
    assert "\n" not in str(raised.value)
    (line,) = [json.loads(line) for line in (tmp_path / "anomalies.jsonl").read_text().splitlines()]
    assert sorted(line["ids"]) == sorted(seen[7]) and len(seen[7]) > 8


def test_too_many_unsound_steps_end_the_training(data: Path, tmp_path: Path, plant: Plant) -> None:
    plant(2, NAN)
    with pytest.raises(TrainingDiverged, match=r"1 unsound steps are more than train.guards.max_unsound_steps=0"):
        run_rank(job(data, tmp_path, guards=GuardSettings(on_nonfinite="skip", max_unsound_steps=0)), CPU)


def test_guards_change_nothing_in_a_sound_run(data: Path, tmp_path: Path) -> None:
    plain, guarded = job(data, tmp_path / "plain"), job(data, tmp_path / "guarded")
    guarded = replace(guarded, settings=replace(guarded.settings, guards=GuardSettings(on_spike="skip")))
    for work in (plain, guarded):
        run_rank(work, CPU)
    assert same(final(plain), final(guarded))


@pytest.fixture(scope="module")
def every_step(data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainJob:
    """A run that has kept a checkpoint of every step, over more than an epoch."""
    work = job(data, tmp_path_factory.mktemp("every"), checkpoint_every=1, keep_checkpoints=99)
    run_rank(work, CPU)
    return work


def epoch_end(work: TrainJob) -> int:
    """The last step whose data is of the first epoch alone."""
    from components.shards.reader import INDEX, read_index
    from components.train.data.plan import Cost, PackPlan
    from components.train.data.selection import plan_spec

    spec, _ = plan_spec(read_index(work.shards.local(INDEX)), work.settings, Cost())
    plan = PackPlan.make(spec, work.settings.steps)
    return max(step for step in range(1, work.settings.steps) if plan.step(step - 1).epoch < 1)


@pytest.mark.parametrize("point", ["start", "epoch", "after epoch", "last"])
def test_steps_trained_are_steps_asked_wherever_a_run_was_cut(every_step: TrainJob, tmp_path: Path, point: str) -> None:
    end = epoch_end(every_step)
    cut = {"start": 0, "epoch": end, "after epoch": end + 1, "last": 12}[point]
    again = replace(every_step, folder=TrainingFolder(str(tmp_path)))
    for name in checkpoint.attempts(every_step.folder.checkpoints):
        if int(name[5:13]) <= cut:
            shutil.copytree(Path(every_step.folder.checkpoints, name), Path(again.folder.checkpoints, name))
    run_rank(again, CPU)
    assert same(final(again), final(every_step))
    assert {name: state(again)[name] for name in ("step", "tokens", "updates")} == {
        name: state(every_step)[name] for name in ("step", "tokens", "updates")
    }


def test_a_touch_file_makes_a_checkpoint_now(data: Path, tmp_path: Path) -> None:
    work = job(data, tmp_path, steps=2000, checkpoint_every=2000)
    ask(work.folder.uri, CHECKPOINT_NOW)
    with pytest.raises(Stopped), signals(work, lambda: checkpoint.newest(work.folder.checkpoints)):
        run_rank(work, CPU)
    assert not Path(work.folder.uri, CHECKPOINT_NOW).exists()


@pytest.mark.case("E11")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_a_checkpoint_that_the_next_run_goes_on_from(
    data: Path, tmp_path: Path, number: signal.Signals
) -> None:
    work = job(data, tmp_path, steps=2000, checkpoint_every=2000)
    began = time.monotonic()
    live = Path(work.folder.uri, "metrics.jsonl")
    stopped = pytest.raises(Stopped, match=r"stopped after step \d+ of 2000; its checkpoint is whole")
    with stopped, signals(work, lambda: live.exists() and live.stat().st_size, number):
        run_rank(work, CPU)
    assert time.monotonic() - began < 30
    stopped_at = state(work)["step"]
    assert 0 < stopped_at < 2000


@pytest.mark.case("E11")
def test_a_stop_before_the_first_step_is_heard_before_it(data: Path, tmp_path: Path) -> None:
    work = job(data, tmp_path, checkpoint_every=4)
    with pytest.raises(Stopped, match="stopped before step 1 of 12; nothing was trained yet"):
        stopped_at_once(work)
    run_rank(replace(work, settings=replace(work.settings, steps=12)), CPU)
    with pytest.raises(Stopped, match="stopped before step 13 of 12; the checkpoint of step 12 is whole"):
        stopped_at_once(work)


def stopped_at_once(work: TrainJob) -> None:
    """A training that hears SIGTERM while its model is prepared."""
    with pytest.MonkeyPatch.context() as patch:
        usual = worker.prepare
        patch.setattr(worker, "prepare", lambda *given: (os.kill(os.getpid(), signal.SIGTERM), usual(*given))[1])
        run_rank(work, CPU)


class signals:
    """A signal to this process, once training goes on and `ready()` holds."""

    def __init__(
        self, work: TrainJob, ready: Callable[[], Any] = lambda: True, number: signal.Signals = signal.SIGTERM
    ) -> None:
        self.ready, self.number, self.ended = ready, number, threading.Event()

    def __enter__(self) -> None:
        def send() -> None:
            while not self.ended.wait(0.2):
                if signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, None) and self.ready():
                    time.sleep(1.0)
                    return os.kill(os.getpid(), self.number)

        threading.Thread(target=send, daemon=True).start()

    def __exit__(self, *error: object) -> None:
        self.ended.set()


# Checkpoints that cannot be written


@pytest.mark.case("R6")
def test_checkpoints_that_fail_are_told_at_once_and_counted(data: Path, tmp_path: Path) -> None:
    work, lines = job(data, tmp_path, checkpoint_every=2, log_every=1), []
    with contextlib.ExitStack() as full:
        full.enter_context(largest_file(40_000))

        def send(line: dict[str, Any]) -> None:
            if "text" in line:
                lines.append(describe(line, 12))
            if len(lines) == 2:
                full.close()

        run_rank(work, CPU, send)
    assert lines[0].startswith("step 2/12  no checkpoint of step 2 could be written (1 so far): no space left while")
    assert lines[1].startswith("step 4/12  no checkpoint of step 4 could be written (2 so far): no space left while")
    assert len(lines) == 2 and state(work)["failed_checkpoints"] == 2 and state(work)["step"] == 12
    kept = checkpoint.read_metrics(checkpoint.newest(work.folder.checkpoints) or "")
    assert [json.loads(line)["train/failed_checkpoints"] for line in kept.splitlines() if "text" in line] == [1, 2]


@pytest.mark.case("R6")
def test_a_training_whose_checkpoints_all_fail_stops(data: Path, tmp_path: Path) -> None:
    work = job(data, tmp_path, checkpoint_every=2, max_failed_checkpoints=2)
    message = r"2 checkpoints in a row could not be written, so training ends at step 6 \(.*=2\): no space left"
    with largest_file(40_000), pytest.raises(UserError, match=message):
        run_rank(work, CPU)
    assert checkpoint.newest(work.folder.checkpoints) is None
    run_rank(work, CPU)
    assert state(work)["step"] == 12


@pytest.mark.case("R6")
def test_a_disk_without_room_for_all_that_is_kept_is_named_before_the_start(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = job(data, tmp_path, keep_checkpoints=2)
    one = checkpoint_bytes(build(tiny_config()), work.settings)
    run_rank(work, CPU)
    assert sum(path.stat().st_size for path in Path(checkpoint.newest(work.folder.checkpoints) or "").iterdir()) < one
    checks = partial(check, work.settings, work.shards, work.base, 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=3 * one - 1))
    message = rf"2 checkpoints and one that is written need {3 * one:,} bytes .* {3 * one - 1:,} are free"
    with pytest.raises(UserError, match=message):
        checks(TrainingFolder(f"{tmp_path}/elsewhere"))
    assert checks(work.folder) == checks(TrainingFolder("s3://bucket")) == []  # what lies there will go
