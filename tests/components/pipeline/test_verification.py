"""`plm verify`: every damaged file below a storage root is named, whatever kind of file it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from components.artifacts.artifact import StepKey
from components.artifacts.store import ArtifactStore
from components.pipeline.config import PipelineConfig
from components.pipeline.last_run import remember_key
from components.pipeline.verification import keys_below, keys_of, verify
from components.train.checkpoints.checkpoint import newest
from components.train.checkpoints.saver import Saver
from components.train.model.parallel import Group
from flows.cli import main

pytestmark = pytest.mark.case("R2")
CONFIG = PipelineConfig.model_validate({"name": "mine"})


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    """Two artifacts, the second of the pipeline `mine`, and on another disk a checkpoint that could be resumed."""
    import torch

    store = ArtifactStore(str(tmp_path / "runs"), tmp_path / "cache", str(tmp_path / "disk"))
    for number, step in enumerate(("ingest", "convert")):
        key = StepKey(step, config={"n": number})
        with store.create(key) as out:
            out.write_json("numbers.json", [1, 2, 3])
        if step == "convert":
            remember_key(CONFIG, store, key)
    weight = torch.ones(8)
    saver = Saver(f"{tmp_path}/disk/train/0123/checkpoints", lambda: {"w": weight}, Group(torch.device("cpu")), 2)
    saver.start({"step": 1}, "")
    assert saver.wait() is None
    return store


def flip(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:1] + bytes([data[1] ^ 1]) + data[2:])


def test_what_is_sound_is_counted(store: ArtifactStore) -> None:
    result = verify(store, keys_below(store), lambda damaged: pytest.fail(str(damaged)))
    assert (result.artifacts, result.checkpoints, result.damaged) == (2, 1, [])
    assert result.files == 2 + 4  # tensors, their table, the state and the metrics of the checkpoint
    assert verify(store, keys_of(CONFIG, store), print).artifacts == 1


def test_each_damaged_file_is_one_line_and_the_status_is_1(
    store: ArtifactStore, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (raw,) = Path(store.root).glob("artifacts/ingest/*/*/numbers.json")
    (manifest,) = Path(store.root).glob("artifacts/convert/*/manifest.json")
    checkpoint = newest(f"{tmp_path}/disk/train/0123/checkpoints") or ""
    flip(raw)
    manifest.write_bytes(b"[]")
    flip(Path(checkpoint, "__0_0.distcp"))
    status = main(["verify", f"storage.root={store.root}", f"storage.resume_root={tmp_path}/disk", "--json"])
    lines = capsys.readouterr().out.splitlines()
    assert status == 1
    assert sorted(lines[:3]) == sorted(
        [
            f"damaged: {manifest} is no JSON object",
            f"damaged: {raw} holds other bytes than were recorded",
            f"damaged: {checkpoint} __0_0.distcp holds other bytes than were written",
        ]
    )
    assert lines[3].endswith("3 damaged")
    assert [entry["uri"] for entry in json.loads(lines[-1])["damaged"]].count(str(raw)) == 1


def test_one_pipeline_is_looked_at_by_its_config(
    store: ArtifactStore, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (raw,) = Path(store.root).glob("artifacts/ingest/*/*/numbers.json")
    flip(raw)
    Path("mine.yaml").write_text("name: mine\n")
    assert main(["verify", "mine.yaml", f"storage.root={store.root}"]) == 0
    assert "1 artifacts" in capsys.readouterr().out
    assert main(["verify", f"storage.root={store.root}"]) == 1
