"""Media of a converted data set: what is read is what the ingest recorded."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from components.artifacts.artifact import Artifact, StepKey
from components.artifacts.manifest import Damage
from components.artifacts.store import ArtifactStore
from components.artifacts.sums import DamagedFile
from components.media_files.root import MediaRoot, MissingMedia

pytestmark = pytest.mark.case("R2")
RAW = StepKey("ingest")


@pytest.fixture
def dataset(store: ArtifactStore) -> Artifact:
    """A data set whose media are two files of an ingest."""
    with store.create(RAW) as out:
        for name in ("images/a.png", "images/b.png"):
            with out.open(name) as file:
                file.write(f"bytes of {name}".encode())
    raw = store.find(RAW)
    assert raw is not None
    with store.create(StepKey("convert"), {"raw": raw}) as out:
        out.links["media"] = raw.uri
    found = store.find(StepKey("convert"))
    assert found is not None
    return found


@pytest.fixture
def media(dataset: Artifact) -> MediaRoot:
    return pickle.loads(pickle.dumps(MediaRoot.of(dataset)))  # as a worker gets it


def damage(store: ArtifactStore, media: MediaRoot, name: str) -> None:
    """A byte of a stored file changes; its size and time do not."""
    fs, folder = media.location
    path = f"{folder}/{name}"
    times = os.stat(path) if "://" not in store.root else None
    data = fs.cat_file(path)
    fs.pipe_file(path, bytes([data[0] ^ 1]) + data[1:])
    if times:
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_sound_files_are_read(media: MediaRoot, tmp_path: Path) -> None:
    assert media.read("images/a.png") == b"bytes of images/a.png"
    with media.file("images/a.png") as file:
        assert file.read_bytes() == b"bytes of images/a.png"
    assert media.local(["images/b.png"], tmp_path)["images/b.png"].read_bytes() == b"bytes of images/b.png"


def test_a_changed_byte_is_refused_by_name_and_known_to_the_next_run(
    store: ArtifactStore, media: MediaRoot, tmp_path: Path
) -> None:
    damage(store, media, "images/a.png")
    with pytest.raises(DamagedFile, match=r"images/a\.png holds other bytes than were recorded; run `plm ingest`"):
        media.read("images/a.png")
    with pytest.raises(DamagedFile, match=r"images/a\.png"), media.file("images/a.png"):
        pass
    with pytest.raises(DamagedFile, match=r"images/a\.png"):
        media.local(["images/a.png"], tmp_path)
    assert media.read("images/b.png") == b"bytes of images/b.png"
    assert store.look("ingest", RAW.digest) == Damage("images/a.png", "holds other bytes than were recorded")


def test_a_file_that_is_gone_is_damage_one_that_never_was_is_missing(media: MediaRoot) -> None:
    fs, folder = media.location
    fs.rm_file(f"{folder}/images/a.png")
    fs.pipe_file(f"{folder}/images/planted.png", b"planted")
    with pytest.raises(DamagedFile, match=r"images/a\.png is gone"):
        media.read("images/a.png")
    for name in ("images/never.png", "images/planted.png"):
        with pytest.raises(MissingMedia, match="no such file"):
            media.read(name)


@pytest.mark.parametrize("store", ["s3"], indirect=True)
def test_a_damaged_copy_in_the_cache_is_fetched_again(media: MediaRoot, tmp_path: Path) -> None:
    place = media.local(["images/a.png"], tmp_path)["images/a.png"]
    place.write_bytes(b"bytes of images/A.png")
    assert media.local(["images/a.png"], tmp_path)["images/a.png"].read_bytes() == b"bytes of images/a.png"


def test_an_ingest_that_is_not_the_data_sets_is_refused(store: ArtifactStore, media: MediaRoot) -> None:
    with store.create(RAW) as out:
        out.write_json("other.json", 1)
    with pytest.raises(DamagedFile, match="is not the ingest that the data set was made from"):
        media.read("images/a.png")
