"""Artifacts: whole or absent, whatever happens while they are written."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from components.artifacts.artifact import StepKey
from components.artifacts.store import ArtifactStore
from components.errors import UserError

KEY = StepKey("ingest", config={"limit": 3})


def write(store: ArtifactStore, text: str = "hello", key: StepKey = KEY) -> None:
    with store.create(key) as out:
        with out.open("folder/a.txt", "w") as file:
            file.write(text)
        out.write_json("b.json", {"n": 1})
        out.counts["files"] = 2


def test_what_was_written_is_found_under_its_key(store: ArtifactStore) -> None:
    write(store)
    artifact = store.find(KEY)
    assert artifact is not None and sorted(artifact.files) == ["b.json", "folder/a.txt"]
    assert artifact.read_json("b.json") == {"n": 1} and artifact.counts["files"] == 2


def test_another_config_is_another_key(store: ArtifactStore) -> None:
    write(store)
    assert store.find(StepKey("ingest", config={"limit": 4})) is None


def test_the_digest_is_that_of_the_content(store: ArtifactStore) -> None:
    write(store)
    write(store, key=StepKey("ingest", config={"other": 1}))
    digests = {store.find(key).digest for key in (KEY, StepKey("ingest", config={"other": 1}))}  # type: ignore[union-attr]
    assert len(digests) == 1 and all(len(digest) <= 36 for digest in digests)


def test_an_exception_leaves_nothing(store: ArtifactStore) -> None:
    with pytest.raises(ValueError), store.create(KEY) as out:
        out.write_json("b.json", {})
        raise ValueError
    assert store.find(KEY) is None and not store.fs.find(f"{store.fs_path}/artifacts")


def test_what_is_to_be_done_after_the_commit_is_done_then_and_only_then(store: ArtifactStore) -> None:
    seen = []
    for fail in (True, False, False):  # the third comes out as the second did
        with contextlib.suppress(ValueError), store.create(KEY) as out:
            out.write_json("b.json", {})
            out.after_commit.append(lambda: seen.append(store.find(KEY)))
            if fail:
                raise ValueError
    assert len(seen) == 2 and None not in seen


def test_an_artifact_stands_when_what_follows_its_commit_fails(store: ArtifactStore) -> None:
    def fail() -> None:
        raise OSError

    with pytest.raises(OSError), store.create(KEY) as out:
        out.write_json("b.json", {})
        out.after_commit.append(fail)
    assert store.find(KEY) is not None


def test_a_storage_root_that_reads_as_a_pattern_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"storage\.root s3://bucket/run\[1\]: must not hold"):
        ArtifactStore("s3://bucket/run[1]", tmp_path)


@pytest.mark.parametrize("root", ["file://{}/runs", "file://{}/runs/", "local://{}/runs", "{}/runs/"])
def test_a_local_root_is_one_place_however_it_is_written(tmp_path: Path, root: str) -> None:
    assert ArtifactStore(root.format(tmp_path), tmp_path).root == f"{tmp_path}/runs"


def test_files_of_others_below_the_prefix_are_hashed(store: ArtifactStore) -> None:
    with store.create(KEY) as out:
        out.write_json("own.json", {})
        out.fs.pipe_file(f"{out.path}/shard-0.bin", b"abc")
    artifact = store.find(KEY)
    assert artifact is not None
    assert artifact.files["shard-0.bin"]["sha256"].startswith("ba7816bf")


def test_a_missing_file_makes_the_artifact_absent(store: ArtifactStore) -> None:
    write(store)
    artifact = store.find(KEY)
    assert artifact is not None
    store.fs.rm_file(f"{store.fs_path}{artifact.uri.removeprefix(store.root)}/b.json")
    assert store.find(KEY) is None


def test_a_damaged_artifact_is_replaced(store: ArtifactStore) -> None:
    write(store)
    artifact = store.find(KEY)
    assert artifact is not None
    store.fs.rm_file(f"{store.fs_path}{artifact.uri.removeprefix(store.root)}/b.json")
    write(store, "again")
    again = store.find(KEY)
    assert again is not None and again.local("folder/a.txt").read_text() == "again"


def test_the_first_of_two_writers_stands(store: ArtifactStore) -> None:
    with store.create(KEY) as late:
        late.write_json("b.json", {"who": "late"})
        write(store, "early")
    artifact = store.find(KEY)
    assert artifact is not None and artifact.local("folder/a.txt").read_text() == "early"


def test_local_brings_every_file_to_this_machine(store: ArtifactStore) -> None:
    write(store)
    artifact = store.find(KEY)
    assert artifact is not None
    folder = artifact.local()
    assert (folder / "folder/a.txt").read_text() == "hello" and json.loads((folder / "b.json").read_text()) == {"n": 1}


def test_a_path_out_of_the_prefix_is_refused(store: ArtifactStore) -> None:
    with pytest.raises(UserError, match="below its prefix"), store.create(KEY) as out:
        out.write_json("../elsewhere.json", {})


@pytest.mark.parametrize("after", ["data", "flush", "temporary"])
def test_a_kill_at_any_point_leaves_nothing_to_take_for_whole(tmp_path: Path, after: str) -> None:
    script = textwrap.dedent(
        """
        import os, signal, sys
        from components.artifacts import artifact, store as artifact_store
        def die(*args, **kwargs): os.kill(os.getpid(), signal.SIGKILL)
        after, root = sys.argv[1:]
        if after == "flush": artifact_store._flush_files = die
        if after == "temporary": os.link = die
        store = artifact_store.ArtifactStore(root, root)
        with store.create(artifact.StepKey("ingest", config={"limit": 3})) as out:
            out.write_json("b.json", {})
            if after == "data": die()
        """
    )
    ended = subprocess.run([sys.executable, "-c", script, after, str(tmp_path)])
    store = ArtifactStore(str(tmp_path), tmp_path)
    assert ended.returncode == -signal.SIGKILL and store.find(KEY) is None
    write(store)
    assert store.find(KEY) is not None
    (folder,) = (tmp_path / "artifacts" / "ingest").iterdir()
    assert sorted(p.name == "manifest.json" for p in folder.iterdir()) == [False, True], "the dead attempt is gone"


def test_a_dead_attempt_on_an_object_store_goes_with_the_next_one(tmp_path: Path, s3_bucket: str) -> None:
    store = ArtifactStore(f"s3://{s3_bucket}/runs", tmp_path / "cache")
    folder = f"{s3_bucket}/runs/artifacts/ingest/{KEY.digest[:20]}"
    dead, alive = (f"{socket.gethostname()}-{pid}-0a1b2c3d" for pid in (2**22 + 1, os.getpid()))
    for attempt in (dead, alive):
        store.fs.pipe_file(f"{folder}/{attempt}/part", b"left")
    write(store)
    assert not store.fs.exists(f"{folder}/{dead}/part") and store.fs.exists(f"{folder}/{alive}/part")


def test_a_root_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"storage.root .*cannot be written") as error:
        ArtifactStore(str(tmp_path / "file" / "runs"), tmp_path).check()
    assert "\n" not in str(error.value)


def test_an_s3_endpoint_that_is_away_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDNOBODY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    from components.storage.client import StorageClient

    StorageClient.clear_instance_cache()
    with pytest.raises(UserError, match="s3://bucket/runs: cannot be written") as error:
        ArtifactStore("s3://bucket/runs", tmp_path).check()
    assert "\n" not in str(error.value) and "hush" not in str(error.value)
    StorageClient.clear_instance_cache()


def test_writing_past_the_file_size_limit_leaves_nothing(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import resource, signal, sys
        from components.artifacts import artifact, store as artifact_store
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        store = artifact_store.ArtifactStore(sys.argv[1], sys.argv[1])
        try:
            with store.create(artifact.StepKey("ingest", config={"limit": 3})) as out, out.open("big") as file:
                file.write(bytes(5000))
        except OSError as error:
            sys.exit(error.errno)
        """
    )
    ended = subprocess.run([sys.executable, "-c", script, str(tmp_path)])
    assert ended.returncode == 27 and os.strerror(27) == "File too large"
    assert ArtifactStore(str(tmp_path), tmp_path).find(KEY) is None
