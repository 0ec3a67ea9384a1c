"""What people's rows look like: which media they show, which texts they are trained on, and that every count closes."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from components import noted
from components.artifacts.artifact import Artifact, StepKey
from components.artifacts.store import ArtifactStore
from components.convert import step as convert_step
from components.convert.ids import Ids
from components.errors import UserError
from components.ingest import step as ingest_step
from components.media_files.root import MediaRoot
from components.pipeline.config import PipelineConfig
from components.pipeline.steps import STEPS
from components.preprocess.encode import Encoder
from components.preprocess.figures import statistics
from components.preprocess.graph import ChunkWorker, read_lines, table_schema
from components.preprocess.outcome import SPLITS, collect
from components.preprocess.scan import chunks_of
from plm_model.families.plm.codec import Codec
from plm_model.families.plm.settings import PLMConfig, ProcessorConfig, VisionConfig
from plm_model.families.plm.tokenizer import Tokenizer
from plm_model.nn.config import DecoderConfig

TOKENIZER = Tokenizer.from_file(Path(__file__).parents[3] / "configs" / "tokenizers" / "plm_tiny")
CONFIG = PLMConfig(
    vision=VisionConfig(image_size=28, width=32, layers=1, heads=2),
    decoder=DecoderConfig(
        vocab_size=TOKENIZER.vocab_size, dim=32, layers=1, heads=2, kv_heads=1, hidden_dim=64, max_seq_len=128
    ),
    image_token_id=TOKENIZER.image_id,
    processor=ProcessorConfig(max_num_tiles=1, vision_input_type="tile", system_prompt="Be kind."),
)
Rows = Sequence[Mapping[str, Any]] | str
Chain = Callable[..., SimpleNamespace]


def said(question: str, answer: Any, **keys: Any) -> list[dict[str, Any]]:
    return [{"from": "human", "value": question}, {"from": "assistant", "value": answer, **keys}]


def picture(number: int, size: tuple[int, int] = (16, 12)) -> bytes:
    data = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 255, (size[1], size[0], 3)).astype("uint8")
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


@pytest.fixture
def chain(tmp_path: Path, step_context: Callable[..., Any]) -> Chain:
    """Ingests a folder of five pictures, a.png to e.png, with these annotations, and converts what came in."""
    store = ArtifactStore(str(tmp_path / "runs"), tmp_path / "cache")
    folder = tmp_path / "data"
    folder.mkdir()
    for number, name in enumerate("abcde"):
        (folder / f"{name}.png").write_bytes(picture(number))

    def go(rows: Rows, image_column: str = "image", **settings: Any) -> SimpleNamespace:
        name = "labels.csv" if isinstance(rows, str) else "rows.jsonl"
        text = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
        (folder / name).write_text(text)
        config = PipelineConfig.model_validate(
            {
                "ingest": {
                    "source": {"kind": "folder", "path": str(folder), "annotations": name},
                    "image_column": image_column,
                },
                "convert": {"max_bad_fraction": 1.0, "test_fraction": 0.4, **settings},
            }
        )
        found = SimpleNamespace(progress=[])
        context = step_context(progress=found.progress.append)
        found.raw = made(
            store, "ingest", lambda out: ingest_step.run(config.ingest, {}, out, context), text, settings, image_column
        )
        found.dataset = made(
            store,
            "convert",
            lambda out: convert_step.run(STEPS["convert"].settings(config), {"raw": found.raw}, out, context),
            text,
            settings,
        )
        found.records = [row for side in SPLITS for row in lines(found.dataset, f"{side}.jsonl")]
        found.rejects = {row["line"]: row["reason"] for row in lines(found.dataset, "rejected.jsonl")}
        found.counts, found.noted = found.dataset.counts, found.dataset.read_json("noted.json")
        return found

    return go


def made(store: ArtifactStore, step: str, fill: Callable[[Any], None], *key: Any) -> Artifact:
    step_key = StepKey(step, config={"key": str(key)})
    with store.create(step_key) as out:
        fill(out)
    artifact = store.find(step_key)
    assert artifact is not None
    return artifact


def lines(artifact: Artifact, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in artifact.open(name).read().splitlines()]


def by_line(found: SimpleNamespace) -> dict[int, dict[str, Any]]:
    return {int(row["from_line"].rpartition(":")[2]): row for row in found.records}


def texts(record: Mapping[str, Any]) -> list[str]:
    return [turn["value"] for turn in record["conversations"]]


OTHER_KEYS: list[dict[str, Any]] = [
    {"images": ["a.png"], "conversations": said("<image>What?", "red")},
    {"images": ["a.png", "b.png"], "conversations": said("<image><image>Same?", "no")},
    {"image_path": "c.png", "conversations": said("<image>What?", "red")},
    {"img": "d.png", "question": "<image>What?", "answer": "red"},
    {"file_name": "e.png", "text": "A caption."},
    {"images": ["a.png"], "messages": [{"role": "user", "content": "<image>What?"}, {"role": "assistant", "content": "b"}]},
    {"image": "b.png", "conversations": [{"from": "user", "value": "<image>What?"}, {"from": "assistant", "value": "c"}]},
    {"image": "c.png", "video": "", "conversations": said("<image>What?", "d")},
]  # fmt: skip


@pytest.mark.case("D2")
def test_media_are_read_under_their_usual_keys(chain: Chain) -> None:
    found = chain(OTHER_KEYS)
    assert found.rejects == {} and not found.noted
    shown = [row["image"] for _, row in sorted(by_line(found).items())]
    assert shown == [["a.png"], ["a.png", "b.png"], "c.png", "d.png", "e.png", ["a.png"], "b.png", "c.png"]
    assert texts(by_line(found)[6]) == ["<image>What?", "b"] and texts(by_line(found)[7]) == ["<image>What?", "c"]
    assert {f"{name}.png" for name in "abcde"} <= found.raw.files.keys(), "ingest brings what convert shows"
    assert not {"images", "image_path", "img", "file_name", "messages"} & set().union(*found.records)


@pytest.mark.case("D2")
def test_a_file_name_of_a_video_is_one(chain: Chain, tmp_path: Path) -> None:
    (tmp_path / "data/v.mp4").write_bytes(b"any")
    found = chain([{"file_name": "v.mp4", "text": "Rain."}, {"videos": ["v.mp4"], "text": "Rain."}])
    assert [row["video"] for row in found.records] == ["v.mp4", "v.mp4"]
    assert "v.mp4" in found.raw.files


@pytest.mark.case("D2")
def test_a_row_that_speaks_of_media_without_any_that_is_read_is_rejected_with_its_keys(chain: Chain) -> None:
    found = chain(
        [
            {"conversations": said("<image>What?", "red")},
            {"image": None, "origin": "x", "conversations": said("<image>What?", "red")},
            {"image": "a.png", "conversations": said("<image><image>What?", "red")},
            {"images": [{"bytes": "AAAA"}], "conversations": said("What?", "red")},
            {"videos": ["v.mp4", "w.mp4"], "conversations": said("What?", "red")},
            {"conversations": said("Say hello.", "Hello")},
            {"scan": "a.png", "conversations": said("What?", "red")},
        ]
    )
    assert found.rejects == {
        1: "the questions hold 1 <image> tag, but the row names no image or video that is read; its keys are 'conversations'",
        2: "the questions hold 1 <image> tag, but the row names no image or video that is read; "
        "its keys are 'image', 'origin', 'conversations'",
        3: "the questions hold 2 <image> tags, but the row names 1 image or video; its keys are 'image', 'conversations'",
        4: "no image or video is read, but `images` speaks of some; images must be paths in the column 'image' "
        "(ingest.image_column)",
        5: found.rejects[5],
    }
    assert "v.mp4" in found.rejects[5]
    assert found.noted["text_only"] | {"meaning": ""} == {
        "meaning": "",
        "rows": 2,
        "first": ["rows.jsonl:6", "rows.jsonl:7"],
    }
    assert found.noted["unread_path"]["first"] == ["rows.jsonl:7"]
    assert (found.counts["noted_text_only"], found.counts["noted_unread_path"]) == (2, 1)
    assert "2 text only, without image or video, such as rows.jsonl:6" in found.progress[-1]


@pytest.mark.case("D2")
def test_a_wrong_image_column_is_a_reject_and_an_error_in_a_table(chain: Chain) -> None:
    rows = [
        {"image": "a.png", "conversations": said("What?", "red")},
        {"picture": "b.png", "conversations": said("?", "b")},
    ]
    found = chain(rows, image_column="picture")
    assert found.rejects == {
        1: "no image or video is read, but `image` speaks of some; images must be paths in the column 'picture' "
        "(ingest.image_column)"
    }
    assert [row["image"] for row in found.records] == ["b.png"]
    with pytest.raises(UserError, match="no column 'picture'; it has 'image', 'label'"):
        chain("image,label\na.png,1\n", image_column="picture")


@pytest.mark.case("D2")
def test_a_table_of_file_names_and_captions_is_read(chain: Chain) -> None:
    found = chain("file_name,text\na.png,one\nb.png,two\n")
    assert {(row["image"], row["text"]) for row in found.records} == {("a.png", "one"), ("b.png", "two")}


TITLES = [{"image": f"{name}.png", "text": f"scanned {name}", "title": f"title {name}"} for name in "abc"]


@pytest.mark.case("D3")
@pytest.mark.parametrize("table", [False, True])
def test_an_answer_that_is_set_beats_a_column_called_text(chain: Chain, table: bool) -> None:
    text = "image,text,title\n" + "".join(f"{row['image']},{row['text']},{row['title']}\n" for row in TITLES)
    found = chain(text if table else TITLES, answer="{title}", questions=["Give the title."])
    assert sorted(texts(row) for row in found.records) == [["Give the title.", f"title {name}"] for name in "abc"]
    file = "labels.csv" if table else "rows.jsonl"
    assert found.progress[-2] == (
        f"{file}: 3 rows with the answer of convert.answer='{{title}}' and the question of convert.questions (`text` not read)"
    )


@pytest.mark.case("D3")
def test_an_answer_that_is_set_beats_question_and_answer(chain: Chain) -> None:
    rows = [{"image": "a.png", "question": "q", "answer": "short", "rationale": "because"}]
    found = chain(rows, answer="{rationale}", question_column="question")
    assert texts(found.records[0]) == ["q", "because"]
    assert found.progress[-2].endswith("the question of column 'question' (`answer` not read)")


@pytest.mark.case("D3")
def test_where_nothing_is_set_the_rows_own_texts_are_taken_and_that_is_said(chain: Chain) -> None:
    rows: list[dict[str, Any]] = [
        {"image": "a.png", "text": "A cat."},
        {"image": "b.png", "question": "Q", "answer": "A"},
    ]
    found = chain(
        [*rows, {"image": "c.png", "conversations": said("?", "C"), "label": 1}, {"image": "d.png", "label": 7}]
    )
    assert found.progress[-2] == (
        "rows.jsonl: 1 rows with the answer of column 'label' and the question of convert.questions; "
        "1 rows with their `conversations`; 1 rows with their `question` and `answer`; "
        "1 rows with their `text`, without a question"
    )
    asked = chain(rows, questions=["Describe."])
    assert texts(by_line(asked)[1]) == ["Describe.", "A cat."]
    assert by_line(asked)[2]["question"] == "Q"


@pytest.mark.case("D3")
def test_a_dialogue_stays_one_where_the_template_lacks_its_columns(chain: Chain) -> None:
    rows = [
        {"image": "a.png", "conversations": said("?", "C")},
        {"image": "b.png", "title": "T", "conversations": said("?", "C")},
    ]
    found = chain(rows, answer="{title}", questions=["Title?"])
    assert [texts(by_line(found)[line]) for line in (1, 2)] == [["?", "C"], ["Title?", "T"]]


def captions(column: str) -> list[dict[str, Any]]:
    return [{"image": f"{name}.png", column: f"caption {k} of {name}"} for name in "abc" for k in range(5)]


@pytest.mark.case("D11")
@pytest.mark.parametrize("column", ["label", "text"])
def test_five_captions_of_an_image_are_five_rows(chain: Chain, column: str) -> None:
    found = chain(captions(column), questions=[f"Question {n}?" for n in range(9)])
    assert len({row["id"] for row in found.records}) == len(found.records) == found.counts["rows"] == 15
    assert len({texts(row)[0] for row in found.records}) > 3, "not one question for all captions of an image"
    sides = [{row["image"] for row in lines(found.dataset, f"{side}.jsonl")} for side in SPLITS]
    assert sides[0] and sides[1] and not sides[0] & sides[1], "an image stays on one side"
    assert not found.noted


@pytest.mark.case("D11")
def test_five_answers_to_one_question_are_five_rows(chain: Chain) -> None:
    text = "image,question,label\n" + "".join(f"{name}.png,How many?,{k}\n" for name in "abc" for k in range(5))
    found = chain(text, question_column="question")
    assert len({row["id"] for row in found.records}) == 15


EQUAL = [{"image": "a.png", "conversations": said("What?", "red")}] * 3 + [
    {"id": "x", "image": "b.png", "conversations": said("What?", "red")},
    {"id": "x", "image": "c.png", "conversations": said("What?", "green")},
    {"id": "x~2", "image": "d.png", "conversations": said("What?", "green")},
    {"id": "x", "image": "c.png", "conversations": said("What?", "green")},
]


@pytest.mark.case("D11")
def test_equal_rows_are_kept_and_counted(chain: Chain) -> None:
    found = chain(EQUAL)
    ids = [by_line(found)[line]["id"] for line in range(1, 8)]
    assert ids[1:3] == [f"{ids[0]}~~2", f"{ids[0]}~~3"]
    assert ids[3:] == ["x", "x~~2", "x~2", "x~~3"], "no id is made that stands in the data"
    assert found.noted["repeated_row"]["first"] == ["rows.jsonl:2", "rows.jsonl:3", "rows.jsonl:7"]
    assert found.noted["repeated_id"]["first"] == ["rows.jsonl:5"]


@pytest.mark.case("D11")
def test_equal_rows_are_dropped_by_config_and_counted(chain: Chain) -> None:
    found = chain(EQUAL, repeated="drop", max_bad_fraction=0.0)
    assert sorted(by_line(found)) == [1, 4, 5, 6]
    assert found.rejects == dict.fromkeys((2, 3, 7), "equal to an earlier row; convert.repeated=drop leaves it out")
    counts = found.counts
    assert (counts["rows"], counts["used"], counts["repaired"], counts["rejected"]) == (7, 4, 0, 3)
    assert " held out, 0 rejected, 3 equal rows left out" in found.progress[-1]


def test_a_number_behind_an_id_is_one_that_no_other_has() -> None:
    ids = Ids()
    for id, row in (("a", b"1"), ("b", b"2"), ("a", b"3"), ("a", b"1")):
        ids.add(id, row * 8)
    earlier, equal = ids.repeats()
    assert earlier.tolist() == [0, 0, 1, 2]
    assert equal.tolist() == [False, False, False, True]
    assert ids.another("a", 2) == "a~2"
    ids.add("a~2", b"4" * 8)
    assert ids.another("a", 2) == "a~~2"


ASKED = {"from": "human", "value": "What?"}
SAID = {"from": "assistant", "value": "red"}
REGION = {"image": "a.png", "bbox": [[2, 2, 20, 4]], "width": 16, "height": 12}
# Each kind of row that people have: how many rows convert and preprocess then use, repair and reject, and what they notice.
KINDS: dict[str, tuple[dict[str, Any], set[str]] | None] = {
    "plain": ({"image": "a.png", "conversations": said("What?", "red")}, set()),
    "other key": ({"images": ["b.png"], "conversations": said("What?", "red")}, set()),
    "text": ({"conversations": said("Say hello.", "Hello")}, {"text_only"}),
    "answer first": ({"image": "a.png", "conversations": [SAID, ASKED, SAID]}, {"answer_first"}),
    "two questions": ({"image": "a.png", "conversations": [ASKED, ASKED, SAID]}, {"question_replaced"}),
    "question last": ({"image": "a.png", "conversations": [ASKED, SAID, ASKED]}, {"question_last"}),
    "two answers": ({"image": "a.png", "conversations": [ASKED, SAID, SAID]}, {"answer_repeated"}),
    "empty answer": ({"image": "a.png", "conversations": said("What?", "")}, {"empty_answer"}),
    "later tag": (
        {"image": "a.png", "conversations": [ASKED, SAID, {"from": "human", "value": "<image>Sure?"}, SAID]},
        {"tag_in_later_turn"},
    ),
    "weight": ({"image": "a.png", "conversations": [*said("What?", "no", weight=0), ASKED, SAID]}, {"weight_0"}),
    "number": ({"image": "a.png", "conversations": said("How many?", 7)}, {"number_as_text"}),
    "box over the edge": ({**REGION, "conversations": said("<|bbox0|>?", "red")}, {"box_clamped"}),
    "too long": (
        {"image": "a.png", "conversations": [ASKED, SAID, {"from": "human", "value": "long " * 200}, SAID]},
        {"cut_to_fit"},
    ),
    "again": ({"image": "a.png", "conversations": said("What?", "red")}, {"repeated_row"}),
    "no media": None,
    "missing": None,
    "another size": None,
    "nothing trained": None,
}  # fmt: skip
BAD = {
    "no media": {"conversations": said("<image>What?", "red")},
    "missing": {"image": "none.png", "conversations": said("What?", "red")},
    "another size": {**REGION, "width": 64, "conversations": said("<|bbox0|>?", "red")},
    "nothing trained": {"image": "a.png", "conversations": said("What?", "red", weight=0)},
}
ONLY_CONVERT, ONLY_PREPROCESS = {"repeated_row"}, {"cut_to_fit"}


@pytest.mark.case("D19")
@pytest.mark.case("D17")
def test_every_count_closes_through_convert_and_preprocess(chain: Chain, tmp_path: Path) -> None:
    rows = [kind[0] if kind else BAD[name] for name, kind in KINDS.items()]
    notes = [kind[1] if kind else None for kind in KINDS.values()]
    found = chain(rows)
    assert sorted(found.rejects) == [15, 16]
    assert_closed(found.counts, rows=len(rows), rejected=2)
    expected = counted(kinds - ONLY_PREPROCESS for kinds in notes if kinds is not None)
    assert {kind: entry["rows"] for kind, entry in found.noted.items()} == expected | {"weight_0": 2}
    figures = preprocessed(found.dataset, tmp_path / "shards")
    totals = {name: sum(figures[side][name] for side in SPLITS) for name in ("rows", "used", "repaired", "rejected")}
    assert_closed(totals, rows=len(rows) - 2, rejected=2)
    seen = counted(
        [kind for side in SPLITS for kind, entry in figures[side]["noted"].items() for _ in range(entry["rows"])],
        one=True,
    )
    assert seen == counted(kinds - ONLY_CONVERT for kinds in notes if kinds is not None)


def assert_closed(counts: Mapping[str, int], rows: int, rejected: int) -> None:
    assert (counts["rows"], counts["rejected"]) == (rows, rejected)
    assert counts["rows"] == counts["used"] + counts["repaired"] + counts["rejected"]
    assert counts["repaired"] > 0


def counted(kinds: Any, one: bool = False) -> dict[str, int]:
    found: dict[str, int] = {}
    for kind in kinds if one else (kind for each in kinds for kind in each):
        found[kind] = found.get(kind, 0) + 1
    return found


def preprocessed(dataset: Artifact, out: Path) -> dict[str, dict[str, Any]]:
    """The figures of `statistics.json`, made by the encoder in this process."""
    chunks = [chunk for side in SPLITS for chunk in chunks_of(dataset.local(f"{side}.jsonl"), side, 100)]
    out.mkdir()
    worker = ChunkWorker(Encoder(Codec(TOKENIZER, CONFIG), MediaRoot.of(dataset)), chunks, str(out))
    tables = [worker(read_lines(chunk, number, dataset.uri)) for number, chunk in enumerate(chunks)]
    return statistics(collect([table.cast(table_schema()) for table in tables], chunks, lambda rows: None))


def test_every_kind_that_a_row_may_have_has_a_meaning() -> None:
    kinds = {kind for entry in KINDS.values() if entry for kind in entry[1]}
    assert kinds <= noted.REPAIRS.keys() | noted.OBSERVATIONS.keys()
    assert not noted.REPAIRS.keys() & noted.OBSERVATIONS.keys()


@pytest.mark.case("D19")
def test_an_answer_of_weight_0_is_not_trained(chain: Chain) -> None:
    found = chain([{"image": "a.png", "conversations": [*said("What?", "no", weight=0), ASKED, SAID]}])
    encoder = Encoder(Codec(TOKENIZER, CONFIG), MediaRoot.of(found.dataset))
    row = encoder.encode(json.dumps(found.records[0]).encode(), "x")
    trained = TOKENIZER.decode([target for target in row["targets"] if target >= 0])
    assert "red" in trained and "no" not in trained
    assert "from_line" not in json.loads(row["record"]) and row["place"] == "rows.jsonl:1"
    assert pa.table({"notes": [row["notes"]]}).num_rows == 1
