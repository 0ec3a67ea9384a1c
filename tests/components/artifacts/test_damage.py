"""Artifacts that changed at rest: noticed where they are read, named, and made anew at the same place."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.artifacts import store as artifact_store
from components.artifacts.artifact import Artifact, ArtifactWriter, StepKey, artifact_at
from components.artifacts.manifest import FORMAT, BrokenManifest, Damage, read_manifest, sealed
from components.artifacts.store import ArtifactStore
from components.artifacts.sums import DamagedFile

KEY = StepKey("ingest", config={"limit": 3})
FILES = {"folder/a.txt": b"hello", "b.json": b'{"n": 1}\n', "empty": b""}


@pytest.fixture
def local(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "runs"), tmp_path / "cache")


def make(
    store: ArtifactStore, key: StepKey = KEY, also: Callable[[ArtifactWriter], Any] = lambda out: None, **inputs: Any
) -> Artifact:
    with store.create(key, inputs) as out:
        for rel, data in FILES.items():
            with out.open(rel) as file:
                file.write(data)
        also(out)
    found = store.find(key)
    assert found is not None
    return found


def put(store: ArtifactStore, uri: str, data: bytes) -> None:
    """Write over a stored file, with the times it had where it is a local one."""
    path = f"{store.fs_path}{uri.removeprefix(store.root)}"
    times = os.stat(path) if "://" not in store.root else None
    store.fs.pipe_file(path, data)
    if times:
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def manifest_of(artifact: Artifact) -> str:
    return f"{artifact.uri.rpartition('/')[0]}/manifest.json"


@pytest.mark.case("R2")
def test_a_flipped_byte_is_refused_by_name_before_anyone_reads_it(store: ArtifactStore) -> None:
    artifact = make(store)
    put(store, f"{artifact.uri}/folder/a.txt", b"hellp")
    for read in (artifact.open, artifact.local, lambda rel: artifact.require_stored([rel])):
        with pytest.raises(DamagedFile) as raised:
            read("folder/a.txt")
        assert str(raised.value) == (
            f"{artifact.uri}/folder/a.txt holds other bytes than were recorded; "
            "run `plm ingest` with this config, or the whole chain again: it is made anew"
        )
    with pytest.raises(DamagedFile, match=r"folder/a\.txt holds other bytes"):
        artifact.local()
    assert artifact.read_json("b.json") == {"n": 1}


@pytest.mark.case("R7")
def test_what_a_reader_found_damaged_is_known_to_the_next_run_until_it_is_made_anew(store: ArtifactStore) -> None:
    artifact = make(store)
    put(store, f"{artifact.uri}/folder/a.txt", b"hellp")
    assert store.find(KEY) is not None, "sizes are as they were, and nobody has read it"
    with contextlib.suppress(DamagedFile):
        artifact.open("folder/a.txt")
    assert store.look("ingest", KEY.digest) == Damage("folder/a.txt", "holds other bytes than were recorded")
    again = make(store)
    assert again.uri == artifact.uri and again.open("folder/a.txt").read() == b"hello"


def test_a_note_of_damage_is_no_verdict(store: ArtifactStore) -> None:
    artifact = make(store)
    artifact.damaged("b.json", "was thought to be damaged")
    assert store.find(KEY) is not None


def test_a_copy_in_the_cache_is_compared_by_every_process_that_reads_it(tmp_path: Path, s3_bucket: str) -> None:
    store = ArtifactStore(f"s3://{s3_bucket}/runs", tmp_path / "cache")
    artifact = make(store)
    copy = artifact.local("folder/a.txt")
    copy.write_bytes(b"hellp")  # as long as before
    for other in (store.find(KEY), pickle.loads(pickle.dumps(artifact))):
        assert other is not None and other.open("folder/a.txt").read() == b"hello"


def test_a_file_is_hashed_once_a_process(local: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact, taken = make(local), []
    monkeypatch.setattr("components.artifacts.sums.sum_of", lambda file: taken.append(file.name) or real(file))
    for _ in range(3):
        artifact.open("folder/a.txt").close()
    assert len(taken) == 1
    pickle.loads(pickle.dumps(artifact)).open("folder/a.txt").close()
    assert len(taken) == 2


def real(file: Any) -> str:
    import hashlib

    return hashlib.sha256(file.read()).hexdigest()


EDITS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "counts": lambda m: m["counts"].update(files=9),
    "links": lambda m: m["links"].update(media="/elsewhere"),
    "config": lambda m: m["config"].update(limit=4),
    "inputs": lambda m: m["inputs"].update(raw={"uri": "x", "digest": "y", "step": "z"}),
    "files": lambda m: m["files"]["b.json"].update(sha256="0" * 64),
    "attempt": lambda m: m.update(attempt="another"),
    "one more": lambda m: m.update(note="x"),
    "one less": lambda m: m.pop("seconds"),
}


@pytest.mark.case("R2")
@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_manifest_is_damaged_whatever_was_edited(local: ArtifactStore, edit: str) -> None:
    artifact = make(local)
    manifest = json.loads(Path(manifest_of(artifact)).read_bytes())
    EDITS[edit](manifest)
    put(local, manifest_of(artifact), json.dumps(manifest).encode())
    assert local.look("ingest", KEY.digest) == Damage("manifest.json", "is not as it was written")
    assert make(local).uri == artifact.uri, "it is made anew where it was"


BROKEN = {
    "no JSON": b"",
    "half": b'{"format": 2, "ste',
    "0xff": b"\xff\xfe\x00",
    "a list": b"[]",
    "null": b"null",
    "deep": b"[" * 100_000,
    "no seal": json.dumps({"format": FORMAT}).encode(),
    "format 1": json.dumps({"format": 1, "attempt": "x", "key": KEY.digest, "files": {}}).encode(),
    "later format": json.dumps({"format": 3}).encode(),
}


@pytest.mark.case("R7")
@pytest.mark.parametrize("kind", BROKEN)
def test_a_manifest_that_cannot_be_read_counts_as_damaged_and_is_made_anew(store: ArtifactStore, kind: str) -> None:
    artifact = make(store)
    put(store, manifest_of(artifact), BROKEN[kind])
    found = store.look("ingest", KEY.digest)
    assert isinstance(found, Damage) and found.file == "manifest.json"
    assert make(store).uri == artifact.uri


def test_what_a_format_means_is_said() -> None:
    with pytest.raises(BrokenManifest, match="is of format 1; this version reads format 2"):
        read_manifest(BROKEN["format 1"])
    assert read_manifest(sealed({"counts": {1: float("nan")}}))["format"] == FORMAT


def test_files_that_were_set_aside_are_verified_but_are_not_content(local: ArtifactStore) -> None:
    """The same weights, trained twice, with other seconds."""
    made = []
    for seconds in (1, 2):

        def time_it(out: ArtifactWriter, seconds: int = seconds) -> None:
            out.write_json("times.json", seconds)
            out.aside.add("times.json")

        made.append(make(local, also=time_it))
    first, second = made
    assert (first.digest, first.uri) == (second.digest, second.uri)
    assert second.read_json("times.json") == 2
    put(local, f"{second.uri}/times.json", b"3\n")
    with pytest.raises(DamagedFile, match=r"times\.json"):
        pickle.loads(pickle.dumps(second)).local("times.json")


@pytest.mark.case("R4")
@pytest.mark.parametrize("gone", ["b.json", "../manifest.json"])
def test_what_comes_out_the_same_stays_where_it_was(store: ArtifactStore, gone: str) -> None:
    artifact = make(store)
    store.fs.rm_file(os.path.normpath(f"{store.fs_path}{artifact.uri.removeprefix(store.root)}/{gone}"))
    again = make(store)
    assert again.uri == artifact.uri and again.read_json("b.json") == {"n": 1}
    folder = f"{store.fs_path}/artifacts/ingest/{KEY.digest[:20]}"
    names = {name.removeprefix(folder).split("/")[1] for name in store.fs.find(folder)}
    assert names == {"manifest.json", artifact.uri.rpartition("/")[2]}


@pytest.mark.case("R5")
def test_a_store_that_fails_in_the_middle_loses_nothing(
    local: ArtifactStore, monkeypatch: pytest.MonkeyPatch, dead_names: None
) -> None:
    """The first look at the manifest is answered, those after it are not, and the step that refreshes fails."""
    artifact = make(local)
    cat, answers = local.fs.cat_file, [1]

    def failing(path: str, *args: Any, **kwargs: Any) -> bytes:
        if path.endswith("manifest.json") and not answers:
            raise OSError(5, "Internal Server Error")
        answers.clear()
        return cat(path, *args, **kwargs)

    with monkeypatch.context() as away:
        away.setattr(type(local.fs), "cat_file", lambda self, path, *a, **k: failing(path, *a, **k))
        assert local.find(KEY) is not None
        with pytest.raises(ValueError), local.create(KEY):
            raise ValueError("the step fails")
        with pytest.raises(OSError):
            local.find(KEY)
        with pytest.raises(OSError), local.create(KEY) as out:
            out.write_json("b.json", {})
    found = local.find(KEY)
    assert found is not None and found.uri == artifact.uri and found.read_json("b.json") == {"n": 1}


@pytest.fixture
def dead_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts are named as those of a process that is dead by the time of the next one."""
    numbers = iter(range(100))
    monkeypatch.setattr(artifact_store, "new_name", lambda: f"{os.uname().nodename}-{2**22 + 1}-{next(numbers):08x}")


@pytest.mark.case("R5")
def test_old_attempts_go_when_there_is_a_new_one(local: ArtifactStore, dead_names: None) -> None:
    first = make(local)
    second = make(local, also=lambda out: out.write_json("more.json", 1))
    assert not Path(first.uri).exists() and Path(second.uri).exists()


@pytest.mark.case("R15")
def test_a_disk_without_hard_links_commits_all_the_same(
    local: ArtifactStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    local.check()
    assert "this disk has no hard links; files are copied instead" in caplog.text
    artifact = make(local)
    assert artifact.open("folder/a.txt").read() == b"hello"
    assert not list(Path(local.root).rglob(".*")), "no temporary file is left"


@pytest.mark.case("E4")
def test_a_root_may_be_moved(local: ArtifactStore, tmp_path: Path) -> None:
    raw = make(local)
    key = StepKey("convert")
    dataset = make(local, key, lambda out: out.links.update(media=raw.uri), raw=raw)
    assert dataset.links == {"media": raw.uri}
    shutil.move(tmp_path / "runs", tmp_path / "runs_moved")
    moved = ArtifactStore(str(tmp_path / "runs_moved"), tmp_path / "cache")
    found = moved.find(key)
    assert found is not None and found.links["media"] == raw.uri.replace("/runs/", "/runs_moved/")
    assert str(tmp_path / "runs/") not in Path(manifest_of(found)).read_text()


@pytest.mark.case("E4")
def test_a_dead_link_is_damage(local: ArtifactStore) -> None:
    raw = make(local)
    key = StepKey("convert")
    make(local, key, lambda out: out.links.update(media=raw.uri))
    shutil.rmtree(Path(raw.uri).parent)
    assert local.look("convert", key.digest) == Damage("link media", f"leads to {raw.uri}, which is not there any more")


def test_a_folder_is_known_as_the_artifact_that_it_is(store: ArtifactStore, tmp_path: Path) -> None:
    artifact = make(store)
    assert artifact_at(artifact.uri, tmp_path) == artifact.__class__(artifact.uri, artifact.manifest, tmp_path)
    assert artifact_at(f"{store.root}/nothing/here", tmp_path) is None
    put(store, manifest_of(artifact), b"[]")
    with pytest.raises(DamagedFile, match=r"manifest\.json is no JSON object; run `plm ingest`"):
        artifact_at(artifact.uri, tmp_path)
