"""Evaluation: scoring and reading worked out by hand, the adapter on a tiny model, and lmms-eval itself once, for real."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.artifacts.artifact import Artifact, ArtifactWriter, StepKey
from components.artifacts.context import StepContext
from components.artifacts.store import ArtifactStore
from components.errors import UserError
from components.evaluate.harness.launch import read_result, run_process
from components.evaluate.harness.request import Request
from components.evaluate.metrics.exact_match import exact_match
from components.evaluate.step import codec_of, run
from components.evaluate.tasks.questions import (
    Question,
    answerable,
    named,
    question_of,
    read_questions,
    require_few,
    write_documents,
)
from components.media_files.root import MediaRoot
from components.pipeline.config import PipelineConfig
from plm_model.families.plm.answer import Answerer
from plm_model.families.plm.settings import ProcessorConfig
from plm_model.families.plm.tiles import video_tiles
from plm_model.records.record import VideoClip
from tests.plm_model.video_files import write_video

ROWS = 12


def png(seed: int) -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (20, 20, 3)).astype("uint8")).save(data, "PNG")
    return data.getvalue()


def row(number: int) -> dict[str, Any]:
    """Row 3 is a text without an image, row 4 goes on with a second question; row 5 begins with an answer and its question is
    too long for the model; the last row's image is cut short."""
    turns = [{"from": "human", "value": f"What is {number}?"}, {"from": "assistant", "value": f"It is {number}."}]
    if number == 5:
        turns = [turns[1], {"from": "human", "value": "What is it? " * 300}, turns[1]]
    if number == 4:
        turns += [{"from": "human", "value": "Sure?"}, {"from": "assistant", "value": "Yes."}]
    return {"id": f"row-{number}", "conversations": turns} | ({} if number == 3 else {"image": f"images/{number}.png"})


def made(store: ArtifactStore, step: str, fill: Callable[[ArtifactWriter], Any]) -> Artifact:
    key = StepKey(step)
    with store.create(key) as out:
        fill(out)
    artifact = store.find(key)
    assert artifact is not None
    return artifact


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluate")


@pytest.fixture(scope="module")
def store(place: Path) -> ArtifactStore:
    return ArtifactStore(str(place / "runs"), place / "cache")


@pytest.fixture(scope="module")
def dataset(place: Path, store: ArtifactStore) -> Artifact:
    (place / "media/images").mkdir(parents=True)
    for number in range(ROWS):
        data = png(number)
        (place / f"media/images/{number}.png").write_bytes(data[:200] if number == ROWS - 1 else data)

    def fill(out: ArtifactWriter) -> None:
        out.links["media"] = str(place / "media")
        with out.open("test.jsonl", "w") as file:
            file.write("".join(json.dumps(row(number)) + "\n" for number in range(ROWS)))

    return made(store, "convert", fill)


@pytest.fixture(scope="module")
def model(place: Path, store: ArtifactStore, tiny_model: Callable[[ArtifactStore, Path], Artifact]) -> Artifact:
    return tiny_model(store, place)


@pytest.fixture(scope="module")
def evaluated(store: ArtifactStore, model: Artifact, dataset: Artifact) -> SimpleNamespace:
    """lmms-eval run once on the held-out rows: the artifact, the metrics that were logged, and the progress that was told."""
    seen = SimpleNamespace(metrics={}, progress=[])
    tracker = SimpleNamespace(run_id=None, log_metrics=seen.metrics.update, tag=lambda key, value: None)
    context = StepContext(tracker, seen.progress.append, store.cache_dir, "")  # type: ignore[arg-type]
    config = PipelineConfig.model_validate(
        {
            "evaluate": {
                "task": "tiny",
                "metric": "exact_match",
                "batch_size": 4,
                "max_new_tokens": 3,
                "max_bad_fraction": 0.2,
            },
        }
    )
    inputs = {"model": model, "dataset": dataset}
    seen.artifact = made(store, "evaluate", lambda out: run(config.evaluate, inputs, out, context))
    seen.samples = [json.loads(line) for line in seen.artifact.open("samples/heldout.jsonl", "r")]
    return seen


def request(place: Path, **changes: Any) -> Request:
    fields = {
        "model": str(place / "nowhere"),
        "task": "tiny",
        "documents": str(place / "documents.jsonl"),
        "result": str(place / "result.json"),
        "scratch": str(place),
        "digest": "weights",
        "columns": {},
        "include": (),
        "data": None,
        "offline": True,
        "kept": str(place / "kept"),
        "workers": 1,
        "ray_address": None,
        "limit": None,
        "batch_size": 1,
        "max_new_tokens": 1,
        "device": "cpu",
        "parent": os.getpid(),
    }
    return Request(**{**fields, **changes})


@pytest.mark.parametrize(
    ("answer", "target", "same"),
    [
        ("  The  Cat. ", "the cat", True),
        ("(7)", "7", True),
        ("'Straße'!", "STRASSE", True),
        ("-3", "3", False),
        ("1.5", "15", False),
        ("?", "!", False),
        ("", "0", False),
    ],
)
def test_an_answer_is_right_whatever_its_case_space_and_outer_punctuation(answer: str, target: str, same: bool) -> None:
    assert exact_match(answer, target) == same


def test_the_first_question_of_a_conversation_is_asked(dataset: Artifact) -> None:
    question = read_questions(dataset, limit=None).questions[4]
    assert (question.text, question.target) == ("What is 4?", "It is 4.")


def test_a_limit_takes_the_first_rows(dataset: Artifact) -> None:
    held_out = read_questions(dataset, limit=2)
    assert [question.id for question in held_out.questions] == ["row-0", "row-1"]
    assert (held_out.rows, held_out.beyond_limit) == (ROWS, ROWS - 2)


def test_no_held_out_rows_is_one_readable_error(store: ArtifactStore) -> None:
    def fill(out: ArtifactWriter) -> None:
        with out.open("test.jsonl", "w") as file:
            file.write("")

    with pytest.raises(UserError, match="no held-out rows"):
        read_questions(made(store, "empty", fill), limit=None)


def asking(id: str, image: str) -> Question:
    return question_of(json.dumps({"id": id, "image": image, "question": "q", "answer": "t"}))


def test_missing_and_damaged_images_are_skipped_with_their_reason(
    dataset: Artifact, model: Artifact, place: Path
) -> None:
    asked = [
        *read_questions(dataset, None).questions,
        asking("gone", "images/gone.png"),
    ]
    local = MediaRoot.of(dataset).local((rel for question in asked for rel in question.media), place / "cache")
    kept, rejected = answerable(asked, local, codec_of(model))
    assert len(kept) == ROWS - 2
    assert [row.id for row in rejected] == ["row-5", "row-11", "gone"]
    assert "damaged image" in rejected[1].reason
    assert rejected[2].reason == "images/gone.png: no such file"


@pytest.mark.case("E6")
def test_rows_that_are_no_question_are_set_aside_with_their_reason(store: ArtifactStore) -> None:
    answer, question = {"from": "assistant", "value": "b"}, {"from": "human", "value": "a"}
    rows = [
        json.dumps({"id": "first", "conversations": [{**answer, "value": "lost"}, question, answer]}),
        json.dumps({"id": "none", "conversations": [answer], "from_line": "labels.csv:7"}),
        json.dumps({"id": "tag", "conversations": [{**question, "value": "<image>a"}, answer]}),
        "{broken",
        json.dumps({"id": "beyond", "conversations": [question, answer]}),
    ]

    def fill(out: ArtifactWriter) -> None:
        with out.open("test.jsonl", "w") as file:
            file.write("".join(f"{row}\n" for row in rows))

    held_out = read_questions(made(store, "no_questions", fill), limit=4)
    assert [(question.text, question.target) for question in held_out.questions] == [("a", "b")]
    assert [(row.id, row.reason.partition(":")[0]) for row in held_out.rejected] == [
        ("none", "no question is followed by an answer"),
        ("tag", "the questions hold 1 <image> tag, but the row names no image or video that is read"),
        ("test.jsonl line 4", "Expecting property name enclosed in double quotes"),
    ]
    assert (held_out.rows, held_out.beyond_limit) == (5, 1)
    assert named(held_out.rejected).startswith("labels.csv:7: no question is followed by an answer; tag: the questions")


@pytest.mark.case("D16")
def test_boxes_on_an_image_of_another_size_are_not_asked(dataset: Artifact, model: Artifact, place: Path) -> None:
    row = {"id": "b", "image": "images/0.png", "bbox": [[2, 2, 9, 9]], "width": 40, "height": 20, "text": "<|bbox0|>"}
    local = MediaRoot.of(dataset).local(["images/0.png"], place / "cache")
    _, rejected = answerable([question_of(json.dumps(row))], local, codec_of(model))
    assert [row.reason for row in rejected] == [
        "`bbox` counts on an image of 40x20 (`width`, `height`), but upright images/0.png has 20x20"
    ]


@pytest.mark.parametrize("name", ["images", "x" * 300 + ".png", "a\0.png", "images/" + "y" * 300 + "/z.png"])
def test_a_name_that_no_image_can_have_is_skipped_with_its_reason(
    dataset: Artifact, model: Artifact, place: Path, name: str
) -> None:
    asked = [
        asking("bad", name),
        question_of(json.dumps({"id": "v", "video": name, "text": "t"})),
    ]
    local = MediaRoot.of(dataset).local([name], place / "cache")
    kept, rejected = answerable(asked, local, codec_of(model))
    assert not kept and [row.id for row in rejected] == ["bad", "v"]
    expected = "is a folder" if name == "images" else "no file can have this name"
    assert all(expected in row.reason for row in rejected)


def test_too_many_damaged_rows_stop_the_evaluation(dataset: Artifact, model: Artifact, place: Path) -> None:
    asked = read_questions(dataset, None).questions
    local = MediaRoot.of(dataset).local((r for q in asked for r in q.media), place / "cache")
    _, rejected = answerable(asked, local, codec_of(model))
    with pytest.raises(UserError, match=r"2 of 12 .*max_bad_fraction=0 allows: row-5: the prompt has .*; row-11: "):
        require_few(rejected, len(asked), most=0.0)
    with pytest.raises(UserError, match="none of the 2 held-out rows can be evaluated: row-5: "):
        require_few(rejected, len(rejected), most=1.0)


def test_an_image_outside_the_root_is_refused() -> None:
    with pytest.raises(UserError, match="leads out of the data root"):
        MediaRoot("/data").local(["../secret.png"], Path("cache"))


def test_media_of_a_bucket_are_fetched_once(s3_bucket: str, tmp_path: Path) -> None:
    from components.artifacts.files import filesystem

    fs, path = filesystem(f"s3://{s3_bucket}/raw")
    fs.pipe_file(f"{path}/images/a.png", b"first")
    root = MediaRoot(f"s3://{s3_bucket}/raw")
    assert root.local(["images/a.png"], tmp_path)["images/a.png"].read_bytes() == b"first"
    fs.pipe_file(f"{path}/images/a.png", b"other")
    assert root.local(["images/a.png"], tmp_path)["images/a.png"].read_bytes() == b"first"


@pytest.mark.parametrize("name", ["images/" + "x" * 300 + ".png", "images/" + "y" * 2000 + ".png", "a\0.png"])
def test_a_name_of_a_bucket_that_no_disk_can_have_is_skipped_with_its_reason(
    s3_bucket: str, model: Artifact, tmp_path: Path, name: str
) -> None:
    local = MediaRoot(f"s3://{s3_bucket}/raw").local([name], tmp_path)
    (rejected,) = answerable([asking("bad", name)], local, codec_of(model))[1]
    assert "no file can have this name" in rejected.reason


def test_an_image_of_a_bucket_may_have_a_name_of_250_characters(s3_bucket: str, tmp_path: Path) -> None:
    from components.artifacts.files import filesystem

    fs, path = filesystem(f"s3://{s3_bucket}/raw")
    name = "x" * 246 + ".png"
    fs.pipe_file(f"{path}/{name}", b"data")
    assert MediaRoot(f"s3://{s3_bucket}/raw").local([name], tmp_path)[name].read_bytes() == b"data"


def test_lmms_eval_measures_every_sound_row(evaluated: SimpleNamespace) -> None:
    results = evaluated.artifact.read_json("results.json")
    right = sum(sample["score"] for sample in evaluated.samples)
    assert results["n"] == len(evaluated.samples) == ROWS - 2
    heldout = results["tasks"]["heldout"]
    assert (heldout["metric"], heldout["value"]) == ("exact_match", pytest.approx(right / (ROWS - 2)))
    assert results["lmms_eval_version"].startswith("0.7")


def test_targets_that_no_answer_can_match_are_told(evaluated: SimpleNamespace) -> None:
    long = [sample for sample in evaluated.samples if sample["target"].startswith("It is")]
    told = f"{len(long)} of {len(evaluated.samples)} targets, {long[0]['id']} for one, have more tokens than evaluate.max_new"
    assert any(line.startswith(told) for line in evaluated.progress)
    assert evaluated.artifact.manifest["counts"]["targets_too_long"] == len(long)


def test_every_answer_is_kept_beside_its_question(evaluated: SimpleNamespace) -> None:
    assert evaluated.samples[3] | {"answer": ""} == {
        "id": "row-3",
        "image": None,
        "video": None,
        "question": "What is 3?",
        "target": "It is 3.",
        "answer": "",
        "cluster": "row-3",
        "score": 0.0,
    }
    assert any(sample["answer"] for sample in evaluated.samples)


@pytest.mark.case("E6")
def test_rows_that_cannot_be_asked_are_set_aside_counted_and_named(evaluated: SimpleNamespace) -> None:
    rejected = [json.loads(line) for line in evaluated.artifact.open("rejected.jsonl", "r")]
    assert [row["id"] for row in rejected] == ["row-5", "row-11"]
    assert rejected[0]["reason"].startswith("the prompt has ") and rejected[0]["reason"].endswith("no room below 512")
    counts, results = evaluated.artifact.manifest["counts"], evaluated.artifact.read_json("results.json")
    assert counts["rows"] == ROWS == counts["questions"] + counts["rejected"] + counts["beyond_limit"]
    assert (results["rows"], results["n"], results["rejected"], results["beyond_limit"]) == (ROWS, ROWS - 2, 2, 0)
    assert results["rejected_first"] == rejected and results["not_asked"] == []
    assert f"on 10 held-out rows, 2 not asked: row-5: {rejected[0]['reason']}; row-11: " in evaluated.progress[-1]


def test_metrics_are_logged_by_task(evaluated: SimpleNamespace) -> None:
    assert list(evaluated.metrics) == ["eval/tiny/exact_match"]


def test_progress_counts_answers(evaluated: SimpleNamespace) -> None:
    assert f"evaluated {ROWS - 2}/{ROWS - 2}" in evaluated.progress


def test_nothing_but_the_log_and_caches_stays_behind(evaluated: SimpleNamespace, store: ArtifactStore) -> None:
    assert not list(store.cache_dir.glob("evaluate-*"))
    assert list((store.cache_dir / "logs").glob("evaluate-tiny-*.log"))


def adapter_of(model: Artifact, folder: Path, batch_size: int) -> Any:
    from components.evaluate.answering.kept import KeptAnswers
    from components.evaluate.answering.pool import in_this_process
    from components.evaluate.harness.adapter import FamilyAdapter

    pool = in_this_process(model.local(), "cpu", batch_size)
    return FamilyAdapter(model.digest, pool, KeptAnswers(str(folder / "kept")), batch_size)


def test_answers_equal_those_of_the_adapter_one_by_one(
    evaluated: SimpleNamespace, model: Artifact, place: Path, tmp_path: Path
) -> None:
    """Batches of four in the other process, of one here: the same texts."""
    from components.evaluate.tasks.heldout import media

    adapter = adapter_of(model, tmp_path, 1)
    documents = [
        {"images": [str(place / "media" / sample["image"])] if sample["image"] else [], "video": ""}
        for sample in evaluated.samples
    ]
    adapter.task_dict = {"tiny": {"test": documents}}
    settings = {"max_new_tokens": 3, "temperature": 0, "until": []}
    requests = [
        SimpleNamespace(args=(sample["question"], settings, media, number, "tiny", "test"))
        for number, sample in enumerate(evaluated.samples)
    ]
    assert adapter.generate_until(requests) == [sample["answer"] for sample in evaluated.samples]


def test_a_task_without_a_limit_gets_the_adapters(model: Artifact) -> None:
    from components.evaluate.harness.adapter import generation_options

    options = generation_options({"until": "ASSISTANT:", "temperature": 0, "do_sample": False, "top_p": None}, 64)
    assert (options.max_new_tokens, options.temperature, options.stop) == (64, 0.0, ("ASSISTANT:",))


def test_visuals_of_every_shape_become_one_list() -> None:
    from components.evaluate.answering.ask import shown_of

    grey, clip = Image.new("L", (2, 2)), VideoClip("clip.mp4")
    assert [len(shown_of(visuals)) for visuals in (None, [], grey, [grey, grey], [[grey, grey]])] == [0, 0, 1, 2, 2]
    assert shown_of("clip.mp4") == shown_of([Path("clip.mp4")]) == shown_of([clip]) == (clip,)
    with pytest.raises(NotImplementedError, match="shows a dict; only images and videos"):
        shown_of([{"sound": 1}])


VIDEO_ROW = {
    "id": "film",
    "video": "v.mp4",
    "start_time": 0.5,
    "bbox_map": {"3": [0, 0, 30, 30], "11": None},
    "question": "What moves?",
    "answer": "Waves",
}


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    write_video(folder / "v.mp4", 12, fps=6, options={"g": 6})
    (folder / "w.mp4").write_bytes(bytes(99))
    return folder


def test_clip_reaches_the_adapter_as_it_stands_in_the_row(films: Path, model: Artifact, tmp_path: Path) -> None:
    from components.evaluate.tasks.heldout import media

    questions = [question_of(json.dumps(VIDEO_ROW)), question_of(json.dumps({"id": "t", "text": "x"}))]
    local = {"v.mp4": films / "v.mp4"}
    write_documents(questions, local, tmp_path / "documents.jsonl")
    documents = [json.loads(line) for line in (tmp_path / "documents.jsonl").read_text().splitlines()]
    assert media(documents[0]) == [VideoClip(str(films / "v.mp4"), 0.5, None, {3: (0, 0, 30, 30)})]
    assert media(documents[1]) == []

    adapter = adapter_of(model, tmp_path, 1)
    adapter.task_dict = {"tiny": {"test": documents}}
    settings = {"max_new_tokens": 3, "temperature": 0, "until": []}
    asked = SimpleNamespace(args=("What moves?", settings, media, 0, "tiny", "test"))
    answerer = Answerer(model.local())
    example, tiles = answerer.prompt("What moves?", media(documents[0]))
    expected = video_tiles(films / "v.mp4", ProcessorConfig(), 28, 0.5, boxes={3: (0, 0, 30, 30)})
    assert (tiles == expected).all() and len(tiles) == 9
    assert (example.tokens == answerer.codec.config.image_token_id).sum() == 9
    assert len(adapter.generate_until([asked])) == 1


@pytest.mark.case("E6")
def test_a_request_that_does_not_fit_is_answered_by_nothing_and_named(model: Artifact, tmp_path: Path) -> None:
    """As a built-in task may ask it; the others of its batch are answered."""
    adapter = adapter_of(model, tmp_path, 4)
    adapter.task_dict = {"builtin": {"test": [{}, {}, {}]}}
    settings = {"max_new_tokens": 3, "temperature": 0, "until": []}
    texts = ("What?", "What? " * 600, "Who?")
    requests = [
        SimpleNamespace(args=(text, settings, lambda document: [], number, "builtin", "test"))
        for number, text in enumerate(texts)
    ]
    answers = adapter.generate_until(requests)
    alone = [adapter.generate_until([requests[number]])[0] for number in (0, 2)]
    assert answers == [alone[0], "", alone[1]]
    assert [(lost["task"], lost["document"]) for lost in adapter.not_asked] == [("builtin", 1)]
    assert adapter.not_asked[0]["reason"].startswith("the prompt has ")


def test_given_answers_have_the_loss_that_the_harness_compares(model: Artifact, tmp_path: Path) -> None:
    adapter = adapter_of(model, tmp_path, 4)
    adapter.task_dict = {"choices": {"test": [{"right": " yes"}]}}
    given: list[Any] = [" yes", "no way", lambda document: document["right"]]
    requests = [SimpleNamespace(args=("Is it?", answer, lambda document: [], 0, "choices", "test")) for answer in given]
    (yes, _), (no, _), (again, _) = adapter.loglikelihood(requests)
    assert yes == again > 0 and yes != no
    assert adapter.counts.answered == 3


def test_videos_that_cannot_be_shown_are_skipped_with_their_reason(films: Path, model: Artifact) -> None:
    rows = [VIDEO_ROW, VIDEO_ROW | {"video": "w.mp4"}, VIDEO_ROW | {"video": "x.mp4"}, VIDEO_ROW | {"start_time": 9}]
    asked = [question_of(json.dumps(row)) for row in rows]
    local = MediaRoot(str(films)).local((path for question in asked for path in question.media), films)
    kept, rejected = answerable(asked, local, codec_of(model))
    assert kept == asked[:1]
    assert [row.reason.partition(":")[0] for row in rejected] == ["w.mp4", "x.mp4", "v.mp4"]
    assert "no such file" in rejected[1].reason and "start_time 9 s" in rejected[2].reason


def test_a_process_that_left_no_reason_is_told_by_its_last_lines(place: Path) -> None:
    log = place / "child.log"
    log.write_text("first\n\nlast words\n")
    with pytest.raises(UserError, match=r"exit status 3.*first \| last words.*child\.log"):
        read_result(place / "absent.json", 3, log)


def test_a_killed_process_is_named_by_its_signal(place: Path) -> None:
    with pytest.raises(UserError, match="SIGKILL, perhaps for want of memory"):
        read_result(place / "absent.json", -signal.SIGKILL, place / "child.log")


def test_an_interrupt_leaves_no_process(place: Path) -> None:
    """The first line of progress raises, as Ctrl-C would."""
    scratch = place / "interrupted"
    scratch.mkdir()
    running = []

    def interrupt(text: str) -> None:
        running.extend(running_with(str(scratch)))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_process(request(place, scratch=str(scratch)), place / "cache", place / "interrupted.log", interrupt)
    assert len(running) == 1
    assert not running_with(str(scratch))


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
def test_the_process_dies_with_its_parent(place: Path) -> None:
    """A parent that is killed outright cannot clean up; the child ends all the same."""
    scratch = place / "orphan"
    scratch.mkdir()
    code = (
        "import os, sys; from pathlib import Path; from tests.components.evaluate.test_step import request\n"
        "from components.evaluate.harness.launch import run_process\n"
        f"place = Path({str(place)!r}); scratch = place / 'orphan'\n"
        "run_process(request(place, scratch=str(scratch)), scratch, scratch / 'log', lambda text: os.kill(os.getpid(), 9))"
    )
    parent = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=False)
    assert parent.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and running_with(str(scratch)):
        time.sleep(0.1)
    assert not running_with(str(scratch))


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def running_with(text: str) -> list[int]:
    """Processes whose command line names a text."""
    return [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and text.encode() in cmdline(int(p.name))]
