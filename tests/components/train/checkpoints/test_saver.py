"""Checkpoints written beside training: what is in them, what stays, and what a full disk or a damaged file does."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp

from components.errors import UserError
from components.train.checkpoints import saver as async_save
from components.train.checkpoints.checkpoint import attempts, newest, read_state
from components.train.checkpoints.retention import best, kept
from components.train.checkpoints.saver import Saver
from components.train.checkpoints.storage import Reader, UnsafeCheckpoint, quiet, read_metadata
from components.train.hooks import save_with_patience
from components.train.measure.metrics_log import describe
from components.train.model.parallel import Group
from components.train.run import newest_for_all
from tests.components.full_disk import largest_file


class Saving:
    """A saver of one tensor of ones."""

    def __init__(self, folder: Path, numel: int = 4096, keep: int = 2, keep_best: bool = False) -> None:
        self.weight = torch.ones(numel)
        self.uri = str(folder)
        self.saver = Saver(self.uri, lambda: {"model.w": self.weight}, Group(torch.device("cpu")), keep, keep_best)

    def save(self, step: int, score: float = 1.0) -> async_save.CheckpointFailed | None:
        self.saver.start({"step": step, "score": score}, "")
        return self.saver.wait()

    def steps(self) -> list[int]:
        return [int(name[5:13]) for name in attempts(self.uri)]

    def stored(self) -> torch.Tensor:
        found = {"model.w": torch.zeros_like(self.weight)}
        with quiet():
            dcp.load(found, storage_reader=Reader(newest(self.uri) or ""), no_dist=True)
        return found["model.w"]


@pytest.fixture
def saving(tmp_path: Path) -> Saving:
    return Saving(tmp_path / "checkpoints")


def test_a_checkpoint_holds_the_step_that_it_was_begun_at(saving: Saving) -> None:
    saving.saver.start({"step": 1}, "")
    saving.saver.wait_copied()
    saving.weight += 1
    assert saving.saver.wait() is None
    assert saving.stored().unique().tolist() == [1.0]


def test_the_next_checkpoint_holds_the_next_values(saving: Saving) -> None:
    saving.save(1)
    saving.weight += 1
    saving.save(2)
    assert saving.stored().unique().tolist() == [2.0]


def test_newest_and_best_stay() -> None:
    steps = {"10": 0.9, "20": 0.4, "30": 0.6, "40": 0.5, "50": 0.7}
    assert kept(list(steps), 2) == ["40", "50"]
    assert kept(list(steps), 2, steps) == ["20", "40", "50"]


def test_the_best_checkpoint_is_kept_and_found(tmp_path: Path) -> None:
    saving = Saving(tmp_path, keep=1, keep_best=True)
    for step, score in ((1, 0.9), (2, 0.3), (3, 0.5), (4, float("nan"))):
        saving.save(step, score)
    assert saving.steps() == [2, 4]
    assert read_state(best(saving.uri) or "")["step"] == 2


def test_a_checkpoint_with_a_shortened_file_is_passed_over(saving: Saving) -> None:
    saving.save(1)
    saving.save(2)
    (file,) = Path(newest(saving.uri) or "").glob("*.distcp")
    file.write_bytes(file.read_bytes()[:-1])
    assert read_state(newest(saving.uri) or "")["step"] == 1


def test_a_checkpoint_whose_notes_cannot_be_read_is_passed_over(saving: Saving) -> None:
    for name in ("files.json", "state.json"):
        saving.save(1)
        saving.save(2)
        Path(newest(saving.uri) or "", name).write_bytes(b"")  # as a loss of power leaves what was not flushed
        assert read_state(newest(saving.uri) or "")["step"] == 1, name


@pytest.mark.case("R2")
@pytest.mark.parametrize("file", ["__0_0.distcp", ".metadata", "state.json", "metrics.jsonl", "files.json"])
def test_a_checkpoint_with_a_changed_byte_is_set_aside_for_the_one_before_it(saving: Saving, file: str) -> None:
    for step in (1, 2):
        saving.saver.start({"step": step, "score": 1.0}, f'{{"step": {step}}}\n')
        saving.saver.wait()
    path = Path(newest(saving.uri) or "", file)
    data, times, said = path.read_bytes(), path.stat(), []
    at = data.index(b"crc32") + 10 if file == "files.json" else len(data) // 2
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    group = Group(torch.device("cpu"))
    found = newest_for_all(saving.uri, group, said.append)
    assert read_state(found or "")["step"] == 1
    if file in ("__0_0.distcp", ".metadata", "metrics.jsonl"):
        assert said[0]["note"].startswith(f"checkpoint {path.parent.name} is damaged ({file} holds other bytes")
        assert describe(said[0], 9) == said[0]["note"]
    saving.save(3)
    assert saving.steps() == [1, 3], "what was set aside goes with the next one"


@pytest.mark.case("R9")
def test_equal_weights_are_equal_bytes(tmp_path: Path) -> None:
    stored = []
    for name in ("first", "second"):
        saving = Saving(tmp_path / name)
        saving.save(1)
        folder = Path(newest(saving.uri) or "")
        stored.append({file.name: file.read_bytes() for file in folder.iterdir()})
    assert stored[0] == stored[1] and ".metadata" in stored[0]


def test_old_checkpoints_that_cannot_be_removed_fail_no_save(saving: Saving, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: object) -> None:
        raise PermissionError("no right to delete")

    monkeypatch.setattr(async_save, "prune", refused)
    assert saving.save(1) is None and saving.steps() == [1]


def test_metadata_that_names_a_file_elsewhere_is_refused(saving: Saving) -> None:
    saving.save(1)
    folder = Path(newest(saving.uri) or "")
    metadata = read_metadata(str(folder))
    for index, place in metadata.storage_data.items():
        metadata.storage_data[index] = replace(place, relative_path=f"../{place.relative_path}")
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(UnsafeCheckpoint, match="outside of it"):
        read_metadata(str(folder))


def test_a_file_that_reads_back_differently_is_not_published(saving: Saving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.train.checkpoints.storage.checksum", lambda path: 0)
    assert "reads back with other contents" in str(saving.save(1))
    assert saving.steps() == []


def test_a_disk_without_room_is_named_before_anything_is_written(
    saving: Saving, monkeypatch: pytest.MonkeyPatch
) -> None:
    saving.save(1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    failure = str(saving.save(2))
    assert "needs 2,113,536 bytes, 1,000 are free" in failure and "\n" not in failure
    assert saving.steps() == [1]


def test_a_disk_that_fills_up_leaves_the_last_good_one_and_the_next_save_works(tmp_path: Path) -> None:
    saving = Saving(tmp_path, numel=1 << 20)
    saving.save(1)
    with largest_file(1 << 20):
        failure = str(saving.save(2))
    assert failure.startswith("no space left while writing a checkpoint") and "\n" not in failure
    assert saving.steps() == [1] and saving.stored().unique().tolist() == [1.0]
    saving.weight += 1
    assert saving.save(3) is None and saving.stored().unique().tolist() == [2.0]


def retry(saving: Saving, patience_s: float, on_retry: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.train.hooks.RETRY_SECONDS", 0.01)

    def again(seconds_left: float) -> None:
        on_retry()
        saving.saver.start({"step": 9}, "")

    save_with_patience(saving.saver, again, patience_s)


def test_the_last_checkpoint_waits_for_room(saving: Saving, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
        saving.save(9)
    retry(saving, 1.0, lambda: None, monkeypatch)
    assert saving.steps() == [9]


def test_a_last_checkpoint_that_finds_no_room_ends_the_training_in_one_line(
    saving: Saving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    saving.save(9)
    with pytest.raises(UserError, match=r"the last checkpoint could not be written: .* are free"):
        retry(saving, 0.02, lambda: None, monkeypatch)
