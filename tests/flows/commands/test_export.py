"""`plm export`: every direction, nothing half written, and a hub id only with its commit."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from flows.cli import main
from tests.plm_model.model_directories import SCALED, own_directory

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    own_directory(tmp_path / "own", dtype=torch.bfloat16)
    return tmp_path / "own"


def export(source: object, target: Path, layout: str, *more: str) -> int:
    return main(["export", "--from", str(source), "--to", str(target), "--format", layout, *more])


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("way", [("hf", "meta", "own"), ("meta", "hf", "own"), ("own", "own")])
def test_a_round_through_the_layouts_changes_no_bit(way: tuple[str, ...], own: Path, tmp_path: Path) -> None:
    place = own
    for number, layout in enumerate(way):
        assert export(place, tmp_path / str(number), layout) == 0
        place = tmp_path / str(number)
    before, after = (load_file(directory / "model.safetensors") for directory in (own, place))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert json.loads((own / "config.json").read_text()) == json.loads((place / "config.json").read_text())


def test_json_is_the_last_line_and_says_what_was_assumed(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export(own, tmp_path / "hf", "hf")
    (tmp_path / "hf" / "preprocessor_config.json").unlink()
    capsys.readouterr()
    assert export(tmp_path / "hf", tmp_path / "back", "own", "--json") == 0
    said = capsys.readouterr()
    result = json.loads(said.out.splitlines()[-1])
    assert (result["from_format"], result["format"], result["to"]) == ("hf", "own", str(tmp_path / "back"))
    assert "no processor files" in result["notes"][0] and "warning: " in said.err


def test_an_existing_target_is_left_alone(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "there"
    target.mkdir()
    (target / "mine").write_text("x")
    assert export(own, target, "hf") == 2
    assert "exists already" in error_of(capsys)
    assert [path.name for path in target.iterdir()] == ["mine"]


def test_a_damaged_checkpoint_leaves_nothing(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = own / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    assert export(own, tmp_path / "hf", "hf") == 2
    assert "model.safetensors" in error_of(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere/at/all", "nowhere/at/all: no such directory"),
        ("facebook/Perception-LM-1B", "give the full commit, facebook/Perception-LM-1B@<40 hexadecimal digits>"),
        ("facebook/Perception-LM-1B@main", "give the full commit"),
    ],
)
def test_a_place_that_names_no_fixed_weights_is_refused(
    source: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(source, tmp_path / "hf", "hf") == 2
    assert message in error_of(capsys)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The hub's client without network, on a cache of its own."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_hub_that_is_away_is_one_line(offline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(f"facebook/Perception-LM-1B@{COMMIT}", tmp_path / "hf", "hf") == 2
    line = error_of(capsys)
    assert f"facebook/Perception-LM-1B@{COMMIT}: cannot download it" in line and "local directory" in line


def test_a_commit_that_was_downloaded_before_needs_no_network(offline: Path, own: Path, tmp_path: Path) -> None:
    snapshot = offline / "models--someone--model" / "snapshots" / COMMIT
    snapshot.parent.mkdir(parents=True)
    assert export(own, snapshot, "hf") == 0
    assert export(f"someone/model@{COMMIT}", tmp_path / "meta", "meta") == 0
    assert (tmp_path / "meta" / "consolidated.pth").exists()


def test_a_llama_and_an_encoder_become_a_model(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(own, tmp_path / "llama", "meta") == 0
    file = tmp_path / "llama" / "consolidated.pth"
    state = torch.load(file, weights_only=True)
    tower = {name.replace("vision_model", "visual"): state.pop(name) for name in list(state) if "vision_model" in name}
    torch.save(tower, tmp_path / "pe.pt")
    torch.save({name: tensor for name, tensor in state.items() if not name.startswith("vision_projector")}, file)
    (tmp_path / "model.yaml").write_text(yaml.safe_dump({"architecture": asdict(SCALED)}))
    assembled = ("--tower", str(tmp_path / "pe.pt"), "--model", str(tmp_path / "model.yaml"))
    capsys.readouterr()
    assert export(tmp_path / "llama", tmp_path / "new", "own", *assembled) == 0
    assert "start afresh: vision_projector.projector.0.bias" in capsys.readouterr().err
    before, after = (load_file(directory / "model.safetensors") for directory in (own, tmp_path / "new"))
    kept = [name for name in before if not name.startswith("vision_projector")]
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in kept)
    assert export(tmp_path / "llama", tmp_path / "other", "own", *assembled[:2]) == 2
    assert "--tower and --model go together" in error_of(capsys)


@pytest.mark.parametrize("size", ["0", "-1", "nan", "inf"])
def test_a_size_that_no_file_has_is_refused_before_anything_is_written(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], size: str
) -> None:
    assert export(own, tmp_path / "hf", "hf", f"--max-shard-gb={size}") == 2
    assert "must be a positive number" in error_of(capsys) and not (tmp_path / "hf").exists()
