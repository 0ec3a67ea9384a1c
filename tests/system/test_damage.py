"""Damage at rest: every file of every artifact of the smoke chain, and real starts over a damaged one."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from components.artifacts.artifact import Artifact
from components.artifacts.manifest import MANIFEST, Damage
from components.artifacts.store import ArtifactStore
from components.artifacts.sums import DamagedFile
from components.pipeline.steps import STEPS
from components.pipeline.verification import keys_below, verify
from components.tracking.runs import tracking_client
from tests.system.conftest import Workplace

SEED = 0
Harm = Callable[[bytes, random.Random], bytes | None]


def flipped(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]


HARMS: dict[str, Harm] = {
    "flipped": flipped,
    "half": lambda data, draw: data[: len(data) // 2],
    "empty": lambda data, draw: b"",
    "gone": lambda data, draw: None,
}


def harm(path: Path, kind: str, keep_time: bool, draw: random.Random) -> None:
    """Damage a file; with `keep_time`, as a disk does it."""
    data, stat = path.read_bytes(), path.stat()
    changed = HARMS[kind](data, draw)
    path.unlink()
    if changed is not None:
        path.write_bytes(changed)
        if keep_time:
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def attempts(root: Path) -> list[Path]:
    """The folder of each artifact's files."""
    manifests = sorted(root.glob(f"artifacts/*/*/{MANIFEST}"))
    return [path.parent / json.loads(path.read_bytes())["attempt"] for path in manifests]


def files_of(folder: Path) -> list[Path]:
    """Its files that have a byte to be damaged; an empty one can only be gone."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)


@pytest.fixture
def copy(smoke: tuple[Workplace, str], tmp_path: Path) -> Path:
    """The smoke chain's storage root, every file one of its own."""
    shutil.copytree(smoke[0].root / "runs" / "artifacts", tmp_path / "runs" / "artifacts")
    return tmp_path / "runs"


@pytest.mark.case("R2")
@pytest.mark.parametrize("keep_time", [True, False], ids=["time-kept", "time-new"])
@pytest.mark.parametrize("kind", HARMS)
def test_every_damaged_file_of_every_artifact_is_named(copy: Path, kind: str, keep_time: bool, tmp_path: Path) -> None:
    """In one process: the store, the reader of artifacts and `plm verify` each say of every file that it is damaged."""
    store, draw = ArtifactStore(str(copy), tmp_path / "cache"), random.Random(SEED)
    sound = {folder: recorded(store, folder) for folder in attempts(copy)}
    assert {artifact.step for artifact in sound.values()} == set(STEPS)
    harmed = [path for folder in sound for path in files_of(folder)]
    for path in harmed:
        harm(path, kind, keep_time, draw)
    for folder, artifact in sound.items():
        found = store.look(artifact.step, artifact.key)
        assert isinstance(found, Artifact) if kind == "flipped" else isinstance(found, Damage), folder
    assert sorted(refused(sound)) == sorted(map(str, harmed))
    result = verify(store, keys_below(store), lambda damaged: None)
    assert sorted(damaged.uri for damaged in result.damaged) == sorted(map(str, harmed))
    for artifact in sound.values():
        found = store.look(artifact.step, artifact.key)
        assert isinstance(found, Damage) and f"{artifact.uri}/{found.file}" in map(str, harmed), (
            "noted for the next run"
        )


def recorded(store: ArtifactStore, folder: Path) -> Artifact:
    found = store.recorded(folder.parent.parent.name, folder.parent.name)
    assert found is not None and found.uri == str(folder)
    return found


def refused(sound: dict[Path, Artifact]) -> Iterator[str]:
    """The files that the reader of artifacts refuses, each named by its refusal."""
    for artifact in sound.values():
        for rel in artifact.files:
            try:
                artifact.open(rel).close()
            except DamagedFile as error:
                assert str(error).startswith(f"{artifact.uri}/{rel} "), error
                yield f"{artifact.uri}/{rel}"


@pytest.mark.case("R7")
@pytest.mark.parametrize("kind", [*HARMS, "list", "0xff"])
def test_every_damaged_manifest_counts_as_damaged(copy: Path, kind: str, tmp_path: Path) -> None:
    store, draw = ArtifactStore(str(copy), tmp_path / "cache"), random.Random(SEED)
    for folder in attempts(copy):
        artifact, path = recorded(store, folder), folder.parent / MANIFEST
        for _ in range(20 if kind == "flipped" else 1):
            whole = path.read_bytes()
            if kind in HARMS:
                harm(path, kind, True, draw)
            else:
                path.write_bytes({"list": b"[]", "0xff": b"\xff" + whole}[kind])
            found = store.look(artifact.step, artifact.key)
            assert found is None if kind == "gone" else isinstance(found, Damage) and found.file == MANIFEST
            path.write_bytes(whole)
        assert isinstance(store.look(artifact.step, artifact.key), Artifact)


READERS = {  # a step that reads what the step before the colon has made
    "ingest": "preprocess",
    "convert": "preprocess",
    "base": "evaluate-base",
    "preprocess": "train",
    "train": "consolidate",
    "consolidate": "evaluate",
    "evaluate_base": "compare",
    "evaluate": "compare",
    "compare": "register",
    "register": "register",
}


@pytest.mark.e2e  # twenty starts of the chain
@pytest.mark.timeout(3600)
@pytest.mark.case("R2", "R7")
def test_a_start_over_damage_makes_anew_or_refuses_by_name(workplace: Workplace) -> None:
    """One file of each step's artifact, drawn by seed, before a start in which it is read; never a new champion."""
    command = ["finetune", "configs/smoke.yaml", *workplace.overrides]
    assert workplace.plm(*command).returncode == 0
    digest, draw = champion(workplace), random.Random(SEED)
    for step, reader in READERS.items():
        (folder,) = (path for path in attempts(workplace.root / "runs") if path.parent.parent.name == step)
        path, kind = draw.choice([*files_of(folder), folder.parent / MANIFEST]), draw.choice(list(HARMS))
        harm(path, kind, draw.random() < 0.5, draw)
        ran = workplace.plm(*command, "--refresh", reader)
        said = f"{step}: {kind} {path}\n{ran.stdout}\n{ran.stderr}"
        assert "Traceback" not in ran.stdout + ran.stderr, said
        assert ran.returncode in (0, 2), said
        if ran.returncode == 2:
            assert path.name in ran.stderr and "made anew" in ran.stderr, said
        require_mended(workplace, command, said)
        assert champion(workplace) == digest, said


def require_mended(workplace: Workplace, command: list[str], said: str) -> None:
    """The next start makes anew what was noted; so does the one after `plm verify`, of what nobody has read."""
    for _ in range(2):
        again = workplace.plm(*command)
        assert again.returncode == 0 and "Traceback" not in again.stderr, f"{said}\n{again.stdout}\n{again.stderr}"
        if workplace.plm("verify", *command[1:]).returncode == 0:
            return
    raise AssertionError(said)


def champion(workplace: Workplace) -> tuple[str, str]:
    """Version and weights of the champion, whose files are there."""
    version = tracking_client(workplace.config.tracking).get_model_version_by_alias("smoke", "champion")
    assert Path(version.tags["plm.model_uri"]).is_dir()
    return version.version, version.tags["plm.model_digest"]
