"""Annotation rows become records: templates, ids, the split, rejects and refusals."""

from __future__ import annotations

import hashlib
import json
import re
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.artifacts.artifact import Artifact, StepKey
from components.artifacts.store import ArtifactStore
from components.convert.sides import split_of_file
from components.convert.split import Split, draw
from components.convert.step import run
from components.errors import UserError
from components.ingest.parts import Part, write_parts
from components.pipeline.config import PipelineConfig
from components.pipeline.steps import STEPS

Convert = Callable[..., Artifact]


@pytest.fixture
def convert(tmp_path: Path, step_context: Callable[..., Any]) -> Convert:
    """Converts an annotation file's text; `images` are the files of the ingest, by name."""
    store = ArtifactStore(str(tmp_path / "runs"), tmp_path / "cache")

    def go(name: str, text: str, images: dict[str, bytes] | None = None, **settings: Any) -> Artifact:
        keys = [StepKey(step, config={"name": name, "text": text, **settings}) for step in ("ingest", "convert")]
        if store.find(keys[0]) is None:
            write_raw(store, keys[0], {**(images or {}), name: text.encode()}, name)
        config = PipelineConfig.model_validate({"convert": {"max_bad_fraction": 1.0, **settings}})
        with store.create(keys[1]) as out:
            run(STEPS["convert"].settings(config), {"raw": store.find(keys[0])}, out, step_context())
        return store.find(keys[1])

    return go


def write_raw(store: ArtifactStore, key: StepKey, files: dict[str, bytes], annotations: str) -> None:
    with store.create(key) as out:
        for file, data in files.items():
            with out.open(file) as target:
                target.write(data)
        write_parts([Part(annotations)], out)


def lines(artifact: Artifact, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in artifact.open(name).read().splitlines()]


def records(artifact: Artifact) -> list[dict[str, Any]]:
    """The records without the lines of the files that they come from."""
    found = lines(artifact, "train.jsonl") + lines(artifact, "test.jsonl")
    return [{key: value for key, value in row.items() if key != "from_line"} for row in found]


def table(count: int) -> tuple[str, dict[str, bytes]]:
    """Labels of so many images, no two alike."""
    images = {f"images/{n}.png": b"image %d" % n for n in range(count)}
    return "image,label\n" + "".join(f"{name},{n % 10}\n" for n, name in enumerate(images)), images


def test_a_csv_row_becomes_a_question_and_an_answer(convert: Convert) -> None:
    dataset = convert(
        "labels.csv", "image,label\nimages/7.png,7\n", questions=["Which digit?"], answer="It is {answer}."
    )
    (record,) = lines(dataset, "train.jsonl")
    assert record == {
        "id": record["id"],
        "image": "images/7.png",
        "conversations": [
            {"from": "human", "value": "Which digit?"},
            {"from": "assistant", "value": "It is 7."},
        ],
        "from_line": "labels.csv:2",
    }
    assert re.fullmatch("images/7.png#[0-9a-f]{12}", record["id"])


def test_media_stay_where_the_ingest_put_them(convert: Convert) -> None:
    dataset = convert("labels.csv", *table(3))
    assert Path(dataset.links["media"], "images/0.png").is_file()
    assert sorted(dataset.files) == ["media.json", "noted.json", "rejected.jsonl", "test.jsonl", "train.jsonl"]


def test_questions_are_all_used_and_always_the_same_for_a_row(convert: Convert) -> None:
    questions = ["One?", "Two?", "Three?"]
    both = [records(convert("labels.csv", *table(40), questions=questions, split_seed=seed)) for seed in (0, 1)]
    asked = [{row["id"]: row["conversations"][0]["value"] for row in rows} for rows in both]
    assert asked[0] == asked[1]
    assert set(asked[0].values()) == set(questions)


def test_a_question_column_gives_each_question_of_an_image_its_own_id(convert: Convert) -> None:
    text = "image,ask,label\na.png,Colour?,red\na.png,Shape?,round\na.png,Shape?,round\n"
    rows = records(convert("labels.csv", text, question_column="ask"))
    ids = [row["id"] for row in rows]
    assert [row["conversations"][0]["value"] for row in rows] == ["Colour?", "Shape?", "Shape?"]
    assert len(set(ids)) == 3 and ids[2] == f"{ids[1]}~2"


def test_ready_conversations_pass_with_their_extra_keys(convert: Convert) -> None:
    row = {
        "id": "q1",
        "image": ["a.png", "b/../c.png"],
        "conversations": [{"from": "human", "value": "<|image|>?"}, {"from": "assistant", "value": "é"}],
        "origin": {"page": 3},
    }
    assert records(convert("rows.jsonl", json.dumps(row))) == [{**row, "image": ["a.png", "c.png"]}]


def test_a_caption_in_text_is_a_record(convert: Convert) -> None:
    row = {"id": 5, "image": "a.png", "text": "A cat."}
    assert records(convert("rows.jsonl", json.dumps(row))) == [{**row, "id": "5"}]


def test_a_question_with_its_answer_is_a_record(convert: Convert) -> None:
    row = {"id": "q", "image": "a.png", "question": "What?", "answer": "A cat."}
    assert records(convert("rows.jsonl", json.dumps(row))) == [row]


def test_the_role_gpt_is_refused_with_the_option_that_accepts_it(convert: Convert) -> None:
    row = {"image": "a.png", "conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "!"}]}
    with pytest.raises(UserError, match=r"rows\.jsonl:1: .*gpt.*convert\.accept_gpt_role"):
        convert("rows.jsonl", json.dumps(row))
    accepted = records(convert("rows.jsonl", json.dumps(row), accept_gpt_role=True))
    assert accepted[0]["conversations"][1] == {"from": "assistant", "value": "!"}


def test_rejects_are_reported_with_line_reason_and_row(convert: Convert) -> None:
    text = "\n".join(
        [
            '{"image": "a.png", "label": "1"}',
            "{broken",
            '{"image": "b.png", "label": " "}',
            '{"label": "2"}',
            "[]",
            '{"image": "c.png", "label": "\\ud800"}',
            '{"image": "d.png", "conversations": []}',
            '{"image": "e.png", "label": NaN}',
        ]
    )
    dataset = convert("rows.jsonl", text)
    rejects = lines(dataset, "rejected.jsonl")
    assert [(reject["file"], reject["line"]) for reject in rejects] == [("rows.jsonl", n) for n in range(2, 9)]
    assert [reject["reason"].split(":")[0] for reject in rejects] == [
        "not JSON",
        "no text in column 'label'",
        "no image name in column 'image'",
        "not a JSON object but a JSON array; write one object a line, such as by `jq -c '.[]' FILE`",
        "not JSON",
        "`conversations` must be a non-empty list",
        "not JSON",
    ]
    assert rejects[1]["row"] == {"image": "b.png", "label": " "}
    assert (dataset.counts["rows"], dataset.counts["rejected"]) == (8, 7)


def test_too_many_rejects_fail_with_the_first_reasons(convert: Convert) -> None:
    with pytest.raises(UserError, match=r"1 of 2 rows rejected.*max_bad_fraction=0\.01.*labels\.csv:3: no text in"):
        convert("labels.csv", "image,label\na.png,1\nb.png,\n", max_bad_fraction=0.01)


@pytest.mark.parametrize(("name", "text"), [("labels.csv", ""), ("labels.csv", "image,label\n"), ("rows.jsonl", "\n")])
def test_no_rows_are_an_error(convert: Convert, name: str, text: str) -> None:
    with pytest.raises(UserError, match=f"{name} has no rows"):
        convert(name, text)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"answer_column": "digit"}, r"labels\.csv: no column 'digit'; it has 'image', 'label'"),
        ({"answer": "{answer} of {suit}"}, "no column 'suit'"),
        ({"answer": "{answer"}, r"convert\.answer"),
        ({"answer": "{answer.real}"}, "no column"),
    ],
)
def test_what_concerns_every_row_is_an_error(convert: Convert, settings: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        convert("labels.csv", "image,label\na.png,1\n", **settings)


@pytest.mark.parametrize("key", ["image", "video"])
def test_a_row_with_a_path_out_of_the_root_is_rejected(convert: Convert, key: str) -> None:
    row = {key: "../secret.png", "conversations": [{"from": "human", "value": "?"}]}
    with pytest.raises(UserError, match=r"rows\.jsonl:1: '\.\./secret\.png' leads out of the data root"):
        convert("rows.jsonl", json.dumps(row))  # none is left


def test_the_same_input_gives_the_same_bytes(convert: Convert) -> None:
    assert convert("labels.csv", *table(20)).digest == convert("labels.csv", *table(20)).digest


def test_memory_hardly_grows_with_the_rows(convert: Convert) -> None:
    peaks = []
    for count in (1000, 4000):
        text, _ = table(count)
        convert("labels.csv", text)  # makes the ingest and warms up
        tracemalloc.start()
        convert("labels.csv", text, test_fraction=0.3)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / 3000 < 200, "bytes a row"


def test_equal_images_under_two_names_stay_on_one_side(convert: Convert) -> None:
    text, images = table(60)
    twins = {name: b"image %d" % (n // 2) for n, name in enumerate(images)}
    dataset = convert("labels.csv", text, twins, test_fraction=0.5)
    sides = [{twins[row["image"]] for row in lines(dataset, f"{side}.jsonl")} for side in ("train", "test")]
    assert sides[0] and sides[1] and not sides[0] & sides[1]
    assert dataset.counts["duplicates_of_images"] == 30


def split(contents: Sequence[Sequence[str]], test_fraction: float, seed: int) -> list[bool]:
    records = Split(seed)
    for shown in contents:
        records.add(shown)
    return records.held_out(test_fraction).tolist()


def split_with_everything_in_memory(contents: Sequence[Sequence[str]], test_fraction: float, seed: int) -> list[bool]:
    """The same as sets of strings: the smallest content of a group draws its number."""
    groups: list[set[str]] = []
    for shown in contents:
        touched = [group for group in groups if group & set(shown)]
        groups = [group for group in groups if group not in touched] + [set(shown).union(*touched)]
    numbers = {min(group): draw(min(group), seed) for group in groups}
    held_out = {group for group, number in numbers.items() if number < test_fraction}
    if 0 < test_fraction < 1 and len(numbers) > 1:
        ordered = sorted(numbers, key=numbers.__getitem__)
        held_out = (held_out | {ordered[0]}) - {ordered[-1]}
    return [any(shown[0] in group and min(group) in held_out for group in groups) for shown in contents]


CONTENTS = st.integers(0, 12).map(lambda n: hashlib.sha256(b"%d" % n).hexdigest() if n % 3 else f"missing {n}.png")


@given(
    st.lists(st.lists(CONTENTS, min_size=1, max_size=3), min_size=1, max_size=20), st.floats(0, 1), st.integers(0, 3)
)
def test_what_is_kept_of_a_record_is_enough_to_split(
    contents: Sequence[Sequence[str]], fraction: float, seed: int
) -> None:
    assert split(contents, fraction, seed) == split_with_everything_in_memory(contents, fraction, seed)


@given(st.lists(st.tuples(st.lists(CONTENTS, min_size=1, max_size=3), st.booleans()), min_size=1, max_size=20))
def test_what_is_kept_of_a_record_is_enough_to_count_repeats(records: Sequence[tuple[Sequence[str], bool]]) -> None:
    kept = Split(0)
    for shown, pictured in records:
        kept.add(shown, pictured)
    pictures = [tuple(shown) for shown, pictured in records if pictured]
    assert kept.repeated() == len(pictures) - len(set(pictures))


@given(
    st.lists(st.lists(st.integers(0, 12).map(str), min_size=1, max_size=3), min_size=1, max_size=20),
    st.floats(0, 1),
    st.integers(0, 3),
)
def test_no_content_is_on_both_sides(contents: Sequence[Sequence[str]], fraction: float, seed: int) -> None:
    held_out = split(contents, fraction, seed)
    sides = [
        {c for c, test in zip(contents, held_out, strict=True) if test is side for c in c} for side in (True, False)
    ]
    assert not sides[0] & sides[1]


def test_the_split_follows_the_fraction_and_the_seed() -> None:
    contents = [[f"content {n}"] for n in range(2000)]
    first, second = split(contents, 0.25, 0), split(contents, 0.25, 1)
    assert 440 < sum(first) < 560
    assert first != second


def test_a_record_keeps_its_side_when_others_come_and_go() -> None:
    contents = [[f"content {n}"] for n in range(200)]
    assert split(contents[::-1], 0.3, 0)[::-1] == split(contents, 0.3, 0)
    assert split(contents[:100], 0.3, 0) == split(contents, 0.3, 0)[:100]


def test_two_images_are_enough_for_both_sides() -> None:
    for seed in range(20):
        assert sorted(split([["a"], ["b"]], 0.2, seed)) == [False, True]


def test_fraction_zero_and_one_put_all_on_one_side() -> None:
    contents = [["a"], ["b"], ["c"]]
    assert split(contents, 0.0, 0) == [False] * 3
    assert split(contents, 1.0, 0) == [True] * 3


def split_table() -> tuple[str, dict[str, bytes]]:
    images = {f"images/{n}.png": b"image %d" % n for n in range(9)}
    splits = ["train"] * 5 + ["test"] * 3 + ["validation"]
    rows = (f"{name},{n},{split}\n" for n, (name, split) in enumerate(zip(images, splits, strict=True)))
    return "image,label,split\n" + "".join(rows), images


def test_a_data_set_s_own_split_is_held_out_and_another_one_left_out(convert: Convert) -> None:
    text, images = split_table()
    dataset = convert("labels.csv", text, images, test={"split": "test", "column": "split"})
    assert [row["image"] for row in lines(dataset, "test.jsonl")] == ["images/5.png", "images/6.png", "images/7.png"]
    counts = dataset.counts
    assert (counts["train"], counts["test"], counts["other_splits_left_out"]) == (5, 3, 1)
    assert counts["rows"] == counts["used"] + counts["repaired"] + counts["rejected"] + counts["other_splits_left_out"]


def test_a_split_that_is_not_there_is_named_with_those_that_are(convert: Convert) -> None:
    text, images = split_table()
    with pytest.raises(
        UserError, match=r"convert\.test\.split=dev: no row is of it; there are 3 rows of split test, 1"
    ):
        convert("labels.csv", text, images, test={"split": "dev", "column": "split"})


def test_a_row_without_a_split_is_a_bad_row(convert: Convert) -> None:
    text, images = split_table()
    dataset = convert("labels.csv", text.replace("4,train", "4,"), images, test={"split": "test", "column": "split"})
    (rejected,) = lines(dataset, "rejected.jsonl")
    assert "no value in the column 'split' of convert.test.column" in rejected["reason"]


@pytest.mark.parametrize(
    ("file", "split"),
    [
        ("data/test-00000-of-00001.parquet", "test"),
        ("data/train-00000-of-00001.parquet", "train"),
        ("test/0001.parquet", "test"),
        ("data/validation-0.parquet", "validation"),
        ("latest.parquet", "train"),
        ("train/testing_the_waters.parquet", "train"),
    ],
)
def test_a_split_is_read_from_the_name_of_its_file(file: str, split: str) -> None:
    assert split_of_file(file, "test") == split


def test_rows_of_one_group_are_on_one_side(convert: Convert) -> None:
    images = {f"images/{n}.png": b"image %d" % n for n in range(60)}
    rows = (f"{name},{n},patient {n % 12}\n" for n, name in enumerate(images))
    dataset = convert("labels.csv", "image,label,who\n" + "".join(rows), images, group_column="who", test_fraction=0.4)
    sides = [
        {int(row["image"].removeprefix("images/").removesuffix(".png")) % 12 for row in lines(dataset, name)}
        for name in ("train.jsonl", "test.jsonl")
    ]
    assert sides[0] and sides[1] and not sides[0] & sides[1]


@pytest.mark.parametrize("test", [{}, {"split": "test", "source": "a"}, {"source": "a", "column": "c"}])
def test_what_is_held_out_is_named_one_way(test: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"name a split|name the split"):
        PipelineConfig.model_validate({"convert": {"test": test}})
