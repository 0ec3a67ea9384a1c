"""Registered data sets: brought in side by side, each row's media below its own root, and turned into records."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.artifacts.artifact import Artifact, StepKey
from components.artifacts.store import ArtifactStore
from components.convert.step import run as convert
from components.errors import UserError
from components.ingest.step import run as ingest
from components.pipeline.config import PipelineConfig
from components.pipeline.steps import STEPS

Chain = Callable[..., tuple[Artifact, Artifact]]


def talk(**keys: Any) -> dict[str, Any]:
    return {"conversations": [{"from": "human", "value": "?"}, {"from": "assistant", "value": "!"}], **keys}


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two sets with equal file names, one of them in two files, and one of text; their catalogue."""
    for name in ("first", "second"):
        (tmp_path / name / "media").mkdir(parents=True)
        (tmp_path / name / "media/a.png").write_bytes(name.encode())
    (tmp_path / "first/rows.jsonl").write_text(lines([talk(image="a.png", id=7), talk(image="a.png", note=1)]))
    (tmp_path / "second/media/v.mp4").write_bytes(b"video")
    (tmp_path / "second/rows.chunk.0.jsonl").write_text(lines([talk(image=["a.png", "a.png"], id=7)]))
    (tmp_path / "second/rows.chunk.1.jsonl").write_text(lines([talk(video="v.mp4"), talk(video="v.mp4", end_time=3)]))
    (tmp_path / "text.jsonl").write_text(lines([talk()]))
    register(
        tmp_path,
        first={"annotation": "first/rows.jsonl", "root_dir": "first/media"},
        second={"annotation": "second", "root_dir": "second/media"},
        words={"annotation": "text.jsonl"},
    )
    return tmp_path


def register(folder: Path, **sets: Mapping[str, Any]) -> None:
    (folder / "datasets.yaml").write_text(yaml.safe_dump(sets))


@pytest.fixture
def chain(folder: Path, step_context: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Chain:
    """Ingests and converts the named sets; `previous` is an earlier ingest."""
    monkeypatch.chdir(folder)
    store = ArtifactStore(str(folder / "runs"), folder / "cache")
    calls = 0

    def go(datasets: Any, previous: Artifact | None = None, **settings: Any) -> tuple[Artifact, Artifact]:
        nonlocal calls
        calls += 1
        config = PipelineConfig.model_validate({"ingest": source(datasets), "convert": {"test_fraction": 0} | settings})
        keys = [StepKey(step, config={"call": calls}) for step in ("ingest", "convert")]
        with store.create(keys[0]) as out:
            ingest(config.ingest, {}, out, step_context(previous=previous))
        raw = store.find(keys[0])
        with store.create(keys[1]) as out:
            convert(STEPS["convert"].settings(config), {"raw": raw}, out, step_context())
        return raw, store.find(keys[1])

    return go


def source(datasets: Any) -> dict[str, Any]:
    return {"source": {"kind": "catalogue", "catalogue": "datasets.yaml", "datasets": datasets}}


def records(dataset: Artifact) -> list[dict[str, Any]]:
    return [json.loads(line) for line in dataset.open("train.jsonl").read().splitlines()]


def test_every_row_names_its_set_and_the_media_of_its_own_root(chain: Chain) -> None:
    raw, dataset = chain(["first", "second", "words"])
    rows = records(dataset)
    assert [row["source"] for row in rows] == ["first"] * 2 + ["second"] * 3 + ["words"]
    assert rows[0]["image"] == "media/first/a.png" and rows[2]["image"] == ["media/second/a.png"] * 2
    assert raw.open("media/first/a.png").read() == b"first" and raw.open("media/second/a.png").read() == b"second"
    assert raw.open(rows[3]["video"]).read() == b"video" and rows[4]["end_time"] == 3
    assert dataset.links["media"] == raw.uri


def test_the_sets_of_the_datamix_come_in_where_none_are_named() -> None:
    values = {"ingest": {"source": {"kind": "catalogue"}}, "train": {"datamix": "b:1, a:2.5"}}
    config = PipelineConfig.model_validate(values)
    assert config.ingest.source.datasets == ("b", "a")
    assert PipelineConfig.model_validate(values | {"ingest": source(["a"])}).ingest.source.datasets == ("a",)
    with pytest.raises(ValueError, match="datasets"):
        PipelineConfig.model_validate({"ingest": {"source": {"kind": "catalogue"}}})


def test_a_question_with_its_answer_passes_as_it_is(chain: Chain, folder: Path) -> None:
    """Whether such a row is a record is for the record's own rules."""
    row = {"text": "A cat.", "label": "x", "image": "a.png"}
    (folder / "first/rows.jsonl").write_text(lines([row]))
    (record,) = records(chain(["first"])[1])
    assert record["text"] == "A cat." and "conversations" not in record


def test_ids_are_unique_across_sets(chain: Chain) -> None:
    ids = [row["id"] for row in records(chain(["first", "second", "words"])[1])]
    assert len(set(ids)) == len(ids) and ids[0] == "first/7" and ids[2] == "second/7"


def test_no_row_need_be_held_out(chain: Chain) -> None:
    _, dataset = chain(["first"])
    assert (dataset.counts["train"], dataset.counts["test"]) == (2, 0)


def test_only_what_is_named_comes_in(chain: Chain) -> None:
    raw, _ = chain(["first"])
    assert not [name for name in raw.files if "second" in name]


def test_only_the_changed_file_is_fetched_again(chain: Chain, folder: Path) -> None:
    first, _ = chain(["first", "second"])
    (folder / "second/media/a.png").write_bytes(b"SECOND")
    again, _ = chain(["first", "second"], previous=first)
    assert (again.counts["fetched"], again.counts["reused"]) == (1, 5)


def test_a_set_that_moved_is_fetched_from_its_new_place(chain: Chain, folder: Path) -> None:
    first, _ = chain(["first"])
    register(folder, first={"annotation": "first/rows.jsonl", "root_dir": "second/media"})
    again, _ = chain(["first"], previous=first)
    assert again.open("media/first/a.png").read() == b"second"


def test_the_fingerprint_follows_annotations_and_media(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    settings = PipelineConfig.model_validate({"ingest": source(["first"])}).ingest.source
    seen = {settings.fingerprint()}
    for name in ("first/rows.jsonl", "first/media/a.png"):
        (folder / name).write_bytes((folder / name).read_bytes() + b"\n")
        seen.add(settings.fingerprint())
    (folder / "second/media/a.png").write_bytes(b"")
    assert len(seen) == 3 and settings.fingerprint() in seen


def test_a_bad_row_is_rejected_with_its_file_and_line(chain: Chain, folder: Path) -> None:
    (folder / "text.jsonl").write_text(lines([talk()]) + '{"conversations": []}\n')
    _, dataset = chain(["first", "words"], max_bad_fraction=0.5)
    (reject,) = [json.loads(line) for line in dataset.open("rejected.jsonl").read().splitlines()]
    assert (reject["file"], reject["line"]) == ("annotations/words/text.jsonl", 2)


def test_a_set_of_which_nothing_is_left_is_an_error(chain: Chain, folder: Path) -> None:
    (folder / "text.jsonl").write_text('{"conversations": []}\n')
    with pytest.raises(UserError, match=r"annotations/words/text\.jsonl: all 1 rows rejected: .*non-empty list"):
        chain(["first", "words"], max_bad_fraction=1)


def test_a_path_out_of_a_sets_root_is_refused(chain: Chain, folder: Path) -> None:
    (folder / "first/rows.jsonl").write_text(lines([talk(image="../rows.jsonl")]))
    with pytest.raises(UserError, match=r"rows\.jsonl:1: .*leads out of the data root"):
        chain(["first"])


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ({}, r"datasets\.yaml: no data set 'first'; it has none"),
        ({"frist": {"annotation": "x"}}, "no data set 'first'; did you mean frist"),
        ({"first": "x"}, r"datasets\.yaml: first: must be \{annotation: FILE_OR_FOLDER"),
        ({"first": {"annotation": "x", "rootdir": "y"}}, "must be"),
        ({"first": {"annotation": "none.jsonl"}}, r"annotation none\.jsonl: no such file"),
        ({"first": {"annotation": "first"}}, r"annotation first: no \*chunk\*\.jsonl in it"),
        ({"first": {"annotation": "text.jsonl", "root_dir": "none"}}, "root_dir none: no such folder"),
    ],
)
def test_a_wrong_registry_is_one_readable_line(chain: Chain, folder: Path, sets: dict[str, Any], message: str) -> None:
    register(folder, **sets)
    with pytest.raises(UserError, match=message) as caught:
        chain(["first"])
    assert "\n" not in str(caught.value)
