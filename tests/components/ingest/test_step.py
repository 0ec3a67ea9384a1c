"""Ingest from the digits of scikit-learn and from a folder."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from components.artifacts.artifact import Artifact, StepKey
from components.artifacts.store import ArtifactStore
from components.errors import UserError
from components.ingest.sources.digits import load_digits
from components.ingest.step import run
from components.pipeline.config import PipelineConfig


def configured(source: dict[str, Any], **ingest: Any) -> PipelineConfig:
    return PipelineConfig.model_validate({"ingest": {"source": source, **ingest}})


@pytest.fixture
def ingest(tmp_path: Path, step_context: Callable[..., Any]) -> Callable[..., Artifact]:
    """Runs the step; each call under a new key, as a changed source would have."""
    store = ArtifactStore(str(tmp_path / "runs"), tmp_path / "cache")
    calls = 0

    def go(config: PipelineConfig, **context: Any) -> Artifact:
        nonlocal calls
        calls += 1
        key = StepKey("ingest", config={"call": calls})
        with store.create(key) as out:
            run(config.ingest, {}, out, step_context(**context))
        artifact = store.find(key)
        assert artifact is not None
        return artifact

    return go


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five files that stand for images, four of them named by labels.csv."""
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    for n in range(5):
        (root / "images" / f"{n}.png").write_bytes(b"image %d" % n)
    write_labels(root, [f"images/{n}.png" for n in range(4)])
    return root


def write_labels(root: Path, names: list[str]) -> None:
    (root / "labels.csv").write_text("image,label\n" + "".join(f"{name},{n}\n" for n, name in enumerate(names)))


def from_folder(root: Path) -> PipelineConfig:
    return configured({"kind": "folder", "path": str(root)})


def test_digits_become_image_files_and_labels(ingest: Callable[..., Artifact]) -> None:
    raw = ingest(configured({"kind": "digits", "limit": 12, "image_size": 28}))
    labels = raw.open("labels.csv", "r").read().splitlines()
    assert labels[:3] == ["image,label", "images/digit-0000.png,0", "images/digit-0001.png,1"]
    assert len(labels) == 13
    image = Image.open(io.BytesIO(raw.open("images/digit-0003.png").read()))
    assert (image.size, image.mode) == ((28, 28), "L")
    assert image.getextrema()[0] < 30 and image.getextrema()[1] > 220
    assert raw.counts["fetched"] == 13


@pytest.mark.e2e  # importing sklearn.datasets takes longer than all other tests here
def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn import datasets

    images, digits = load_digits()
    assert (images == datasets.load_digits().images).all()
    assert (digits == datasets.load_digits().target).all()


def test_digits_are_the_same_bytes_every_time(ingest: Callable[..., Artifact]) -> None:
    config = configured({"kind": "digits", "limit": 5})
    assert ingest(config).digest == ingest(config).digest


def test_folder_brings_what_its_labels_name(ingest: Callable[..., Artifact], folder: Path) -> None:
    raw = ingest(from_folder(folder))
    assert sorted(raw.files) == ["files.jsonl", *(f"images/{n}.png" for n in range(4)), "labels.csv", "source.json"]
    assert {name: raw.counts[name] for name in ("files", "fetched", "reused", "unreferenced", "missing")} == {
        "files": 5,
        "fetched": 5,
        "reused": 0,
        "unreferenced": 1,
        "missing": 0,
    }
    listed = [json.loads(line) for line in raw.open("files.jsonl").read().splitlines()]
    assert listed[0] == {"path": "images/0.png", "size": 7, "sha256": raw.files["images/0.png"]["sha256"]}


def test_only_the_changed_file_is_ingested_again(ingest: Callable[..., Artifact], folder: Path) -> None:
    first = ingest(from_folder(folder))
    (folder / "images/2.png").write_bytes(b"IMAGE 2")
    second = ingest(from_folder(folder), previous=first)
    assert (second.counts["fetched"], second.counts["reused"]) == (1, 4)
    assert second.open("images/2.png").read() == b"IMAGE 2"
    assert first.open("images/2.png").read() == b"image 2"
    assert second.digest != first.digest


def test_unchanged_files_are_not_read_from_the_source(ingest: Callable[..., Artifact], folder: Path) -> None:
    first = ingest(from_folder(folder))
    state = (folder / "images/1.png").stat()
    (folder / "images/1.png").write_bytes(b"IMAGE X")  # same size and time: only a reader would notice
    os.utime(folder / "images/1.png", ns=(state.st_atime_ns, state.st_mtime_ns))
    assert ingest(from_folder(folder), previous=first).open("images/1.png").read() == b"image 1"


@pytest.mark.case("R20")
def test_contents_that_changed_under_the_same_size_and_time_are_seen_by_option(
    ingest: Callable[..., Artifact], folder: Path
) -> None:
    config = configured({"kind": "folder", "path": str(folder), "check": "contents"})
    first, before = ingest(config), config.ingest.source.fingerprint()
    state = (folder / "images/1.png").stat()
    os.utime(folder / "images/2.png", ns=(1, 1))
    assert config.ingest.source.fingerprint() == before, "a new time alone is no change"
    (folder / "images/1.png").write_bytes(b"IMAGE X")
    os.utime(folder / "images/1.png", ns=(state.st_atime_ns, state.st_mtime_ns))
    assert config.ingest.source.fingerprint() != before
    second = ingest(config, previous=first)
    assert second.open("images/1.png").read() == b"IMAGE X"
    assert (second.counts["fetched"], second.counts["reused"]) == (1, 4)


@pytest.mark.case("R20")
@pytest.mark.parametrize("kind", ["parquet", "catalogue"])
def test_every_source_on_a_disk_can_be_told_by_its_contents(
    kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "rows.jsonl").write_text("{}")
    (folder / "datasets.yaml").write_text("a: {annotation: rows.jsonl}")
    places = {"parquet": {"path": "."}, "catalogue": {"catalogue": "datasets.yaml", "datasets": ["a"]}}
    seen = set()
    for contents in (b"1", b"2"):
        (folder / "a.parquet").write_bytes(contents)
        os.utime(folder / "a.parquet", ns=(1, 1))
        config = configured({"kind": kind, "check": "contents", **places[kind]})
        seen.add(config.ingest.source.fingerprint())
    assert len(seen) == 2


def test_touching_a_file_changes_the_fingerprint_and_not_the_digest(
    ingest: Callable[..., Artifact], folder: Path
) -> None:
    config = from_folder(folder)
    first, before = ingest(config), config.ingest.source.fingerprint()
    os.utime(folder / "images/1.png", ns=(1, 1))
    assert config.ingest.source.fingerprint() != before
    second = ingest(config, previous=first)
    assert (second.counts["fetched"], second.digest) == (1, first.digest)


def test_fresh_takes_nothing_over(ingest: Callable[..., Artifact], folder: Path) -> None:
    first = ingest(from_folder(folder))
    assert ingest(from_folder(folder), previous=first, fresh=True).counts["reused"] == 0


def test_a_damaged_previous_artifact_is_made_up_for(ingest: Callable[..., Artifact], folder: Path) -> None:
    first = ingest(from_folder(folder))
    Path(first.uri, "images/3.png").unlink()
    second = ingest(from_folder(folder), previous=first)
    assert (second.counts["fetched"], second.digest) == (1, first.digest)


@pytest.mark.case("R2")
def test_a_file_that_changed_in_the_previous_artifact_is_not_taken_over(
    ingest: Callable[..., Artifact], folder: Path
) -> None:
    first = ingest(from_folder(folder))
    place = Path(first.uri, "images/3.png")
    times = place.stat()
    place.write_bytes(b"imagf 3")
    os.utime(place, ns=(times.st_atime_ns, times.st_mtime_ns))
    second = ingest(from_folder(folder), previous=first)
    assert (second.counts["fetched"], second.digest) == (1, first.digest)
    assert second.open("images/3.png").read() == b"image 3"


def rejected(raw: Artifact) -> list[tuple[str, int, str]]:
    rows = map(json.loads, raw.open("rejected.jsonl").read().splitlines())
    return [(row["file"], row["line"], row["reason"]) for row in rows]


def test_a_row_with_a_missing_image_is_rejected_with_its_line(ingest: Callable[..., Artifact], folder: Path) -> None:
    write_labels(folder, ["images/0.png", "images/none.png"])
    raw = ingest(from_folder(folder))
    assert rejected(raw) == [("labels.csv", 3, "'images/none.png': no such file")]
    assert {name: raw.counts[name] for name in ("missing", "rows", "used", "rejected")} == {
        "missing": 1,
        "rows": 2,
        "used": 1,
        "rejected": 1,
    }


@pytest.mark.case("D13")
@pytest.mark.parametrize("name", ["/etc/hostname", "../secret.png", "images/../../secret.png"])
def test_a_row_with_a_path_out_of_the_folder_is_rejected(
    ingest: Callable[..., Artifact], folder: Path, name: str
) -> None:
    (folder.parent / "secret.png").write_bytes(b"secret")
    write_labels(folder, ["images/0.png", name])
    raw = ingest(from_folder(folder))
    ((file, line, reason),) = rejected(raw)
    assert (file, line) == ("labels.csv", 3) and "leads out of the data root" in reason
    assert [name for name in raw.files if name.endswith(".png")] == ["images/0.png"]


@pytest.mark.parametrize("link", ["link.png", "linked/secret.png"])
def test_a_row_with_a_link_out_of_the_folder_is_rejected(
    ingest: Callable[..., Artifact], folder: Path, link: str
) -> None:
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "secret.png").write_bytes(b"secret")
    (folder / "link.png").symlink_to(outside / "secret.png")
    (folder / "linked").symlink_to(outside)
    write_labels(folder, [link])
    raw = ingest(from_folder(folder))
    ((file, line, reason),) = rejected(raw)
    assert (file, line) == ("labels.csv", 2) and "is a link that leads out of the data root" in reason
    assert not [name for name in raw.files if name.endswith(".png")]


def test_annotations_that_are_a_link_out_of_the_folder_are_refused(
    ingest: Callable[..., Artifact], folder: Path
) -> None:
    (folder / "labels.csv").rename(folder.parent / "secret.csv")
    (folder / "labels.csv").symlink_to("../secret.csv")
    with pytest.raises(UserError, match=r"'labels\.csv' is a link that leads out of the data root") as caught:
        ingest(from_folder(folder))
    assert "\n" not in str(caught.value)


def test_a_link_inside_the_folder_is_followed(ingest: Callable[..., Artifact], folder: Path) -> None:
    (folder / "link.png").symlink_to("images/4.png")
    write_labels(folder, ["link.png"])
    assert ingest(from_folder(folder)).open("link.png").read() == b"image 4"


def test_json_lines_may_name_several_images_and_hold_a_broken_line(
    ingest: Callable[..., Artifact], folder: Path
) -> None:
    (folder / "rows.jsonl").write_text(
        '{"image": ["images/0.png", "images/1.png"]}\n{broken\n{"image": "images/4.png"}\n'
    )
    raw = ingest(configured({"kind": "folder", "path": str(folder), "annotations": "rows.jsonl"}))
    assert [name for name in raw.files if name.startswith("images/")] == [f"images/{n}.png" for n in (0, 1, 4)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "/no/such/folder"}, "/no/such/folder: no such folder"),
        ({"annotations": "none.csv"}, r"none\.csv: no such file; ingest\.source\.annotations"),
        ({"annotations": "images/0.png"}, "annotations must be one of"),
        ({"annotations": "../labels.csv"}, "leads out of the data root"),
    ],
)
def test_a_wrong_source_is_one_readable_line(
    ingest: Callable[..., Artifact], folder: Path, change: dict[str, str], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        ingest(configured({"kind": "folder", "path": str(folder), **change}))
    assert "\n" not in str(caught.value)


def test_a_csv_without_the_image_column_names_those_it_has(ingest: Callable[..., Artifact], folder: Path) -> None:
    (folder / "labels.csv").write_text("file,label\nimages/0.png,0\n")
    with pytest.raises(UserError, match=r"labels\.csv: no column 'image'; it has 'file', 'label'"):
        ingest(from_folder(folder))
    named = configured({"kind": "folder", "path": str(folder)}, image_column="file")
    assert ingest(named).counts["files"] == 2
