"""The comparison: its statistics on numbers worked out by hand, and a page that is safe and needs nothing else."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.artifacts.artifact import Artifact, ArtifactWriter, StepKey
from components.artifacts.context import StepContext
from components.artifacts.store import ArtifactStore
from components.compare.chart import LossCurve, draw_loss, read_loss_curve, smoothed
from components.compare.intervals import Tally, accuracy_interval, score_interval, tally
from components.compare.report import choose_examples, pictures
from components.compare.samples import Answer, Compared, read_compared
from components.compare.step import run
from components.errors import UserError
from components.media_files.root import MediaRoot
from components.pipeline.config import PipelineConfig
from components.pipeline.steps import STEPS
from plm_model.records.record import VideoClip
from tests.plm_model.video_files import number_of, write_video

PUBLISHED = {"split": "test", "setting": "CIDEr", "plm_1b": 138.6, "plm_3b": 144.9, "plm_8b": None}
SCRIPT = "<script>alert('answer')</script>"


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "runs"), tmp_path / "cache")


def made(store: ArtifactStore, step: str, fill: Callable[[ArtifactWriter], Any], **config: Any) -> Artifact:
    key = StepKey(step, config=config)
    with store.create(key) as out:
        fill(out)
    artifact = store.find(key)
    assert artifact is not None
    return artifact


def lines(out: ArtifactWriter, rel: str, rows: list[Mapping[str, Any]]) -> None:
    with out.open(rel, "w") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")


def evaluation(
    store: ArtifactStore, name: str, answers: list[str], ids: list[str] | None = None, version: str | None = None
) -> Artifact:
    """An evaluation of the questions 0..n-1 whose right answers are `yes`."""
    rows = [
        {
            "id": key,
            "image": "images/a.png",
            "question": f"Is {key} <b>bold</b>?",
            "target": "yes",
            "cluster": key,
            "answer": answer,
            "score": float(answer == "yes"),
        }
        for key, answer in zip(ids or [str(i) for i in range(len(answers))], answers, strict=True)
    ]

    def fill(out: ArtifactWriter) -> None:
        lines(out, "samples/heldout.jsonl", rows)
        task = {"metric": "exact_match", "best": 1.0, "unit": 1.0, "samples": "samples/heldout.jsonl", "held_out": True}
        model = {"version": version, "problem": None, "model_digest": name}
        task |= {"value": sum(row["score"] for row in rows) / len(rows), "not_measured": None}
        lost = {**task, "held_out": False, "samples": None, "value": 12.0, "published": PUBLISHED, "comparable": False}
        far = {**lost, "not_measured": "needs a judge", "value": None}
        results: dict[str, Any] = {"model": model, "tasks": {"heldout": task, "Caps": lost, "Judged": far}}
        results |= {"n": len(rows), "limit": None, "rejected": 4}
        results["rejected_first"] = [{"id": f"lost {n}", "reason": f"reason {n} <b>"} for n in range(3)]
        out.write_json("results.json", results)

    return made(store, "evaluate", fill, name=name)


@pytest.fixture
def compare(store: ArtifactStore, tmp_path: Path, step_context: Callable[..., StepContext]) -> Callable[..., Artifact]:
    """compare(champion): the step, where of six questions two are fixed, one broken, two stay wrong and one stays right."""
    picture = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(picture, "PNG")
    (tmp_path / "media/images").mkdir(parents=True)
    (tmp_path / "media/images/a.png").write_bytes(picture.getvalue())
    metrics = [{"step": s, "train/loss": 5.0 / s, "train/lr": 1e-3} for s in (1, 2, 3)]
    inputs = {
        "before": evaluation(store, "before", [SCRIPT, "", "yes", "no", "no", "yes"]),
        "after": evaluation(store, "after", ["yes", "yes", SCRIPT, "no", "no", "yes"]),
        "dataset": made(store, "convert", lambda out: out.links.update(media=str(tmp_path / "media"))),
        "checkpoint": made(store, "train", lambda out: lines(out, "metrics.jsonl", metrics)),
    }
    settings = STEPS["compare"].settings(PipelineConfig.model_validate({"evaluate": {"task": "heldout"}}))

    def compare(champion: Artifact) -> Artifact:
        given = {**inputs, "champion": champion}
        return made(store, "compare", lambda out: run(settings, given, out, step_context()), champion=champion.digest)

    return compare


def no_champion(store: ArtifactStore) -> Artifact:
    model = {"version": None, "problem": None, "model_digest": None}
    return made(store, "evaluate_champion", lambda out: out.write_json("results.json", {"model": model, "tasks": {}}))


@pytest.fixture
def compared(store: ArtifactStore, compare: Callable[..., Artifact]) -> Artifact:
    return compare(no_champion(store))


def row(key: str, before: float, after: float, **more: Any) -> Compared:
    return Compared(key, (), "q", "t", Answer("x", before), Answer("y", after), **more)


def test_the_four_outcomes_are_counted() -> None:
    rows = [row("a", 0, 1), row("b", 1, 0), row("c", 1, 0), row("d", 1, 1), row("e", 0.4, 0.4)]
    assert tally(rows) == Tally(fixed=1, broken=2, right=1, wrong=1)


def test_wilson_interval_of_eight_in_ten() -> None:
    interval = accuracy_interval(8, 10, 0.95)
    assert (interval.low, interval.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)


def test_wilson_interval_does_not_claim_certainty_at_zero() -> None:
    interval = accuracy_interval(0, 10, 0.95)
    assert (interval.low, interval.high) == pytest.approx((0.0, 0.2775), abs=1e-4)


def test_graded_scores_have_students_interval() -> None:
    interval = score_interval([0.2, 0.4, 0.6, 0.8], 0.95, 1.0)
    assert (interval.value, interval.low, interval.high) == pytest.approx((0.5, 0.0892, 0.9108), abs=1e-4)


def test_comparison_holds_the_numbers(compared: Artifact) -> None:
    found = compared.read_json("comparison.json")["tasks"]["heldout"]
    assert {key: found[key] for key in ("before", "after", "gain", "n", "n_fixed", "n_broken")} == pytest.approx(
        {"before": 2 / 6, "after": 3 / 6, "gain": 1 / 6, "n": 6, "n_fixed": 2, "n_broken": 1}
    )
    assert found["ci_low"] <= found["gain"] <= found["ci_high"]


def test_the_champion_is_compared_where_there_is_one(store: ArtifactStore, compare: Callable[..., Artifact]) -> None:
    champion = evaluation(store, "champion", ["yes", "yes", "yes", "yes", "no", "yes"], version="3")
    found = compare(champion).read_json("comparison.json")
    assert (found["rival"]["version"], found["tasks"]["heldout"]["champion"]) == ("3", pytest.approx(5 / 6))
    assert found["tasks"]["heldout"]["against"]["champion"]["total"] == -2


def test_a_champion_that_was_asked_other_questions_is_a_problem_that_the_gate_tells_of(
    store: ArtifactStore, compare: Callable[..., Artifact]
) -> None:
    champion = evaluation(store, "champion", ["yes"] * 6, ["0", "1", "2", "3", "4", "other"], version="3")
    found = compare(champion).read_json("comparison.json")
    assert "different questions (2 of them, such as '5')" in found["rival"]["problem"]
    assert found["tasks"]["heldout"]["champion"] is None


def test_report_escapes_what_models_and_data_say(compared: Artifact) -> None:
    html = compared.open("report.html", "r").read()
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "<b>bold" not in html


@pytest.mark.case("E6")
def test_report_names_the_questions_that_were_not_asked(compared: Artifact) -> None:
    html = " ".join(compared.open("report.html", "r").read().split())
    assert "4 held-out rows could not be asked and are in no number here: lost 0 (reason 0 &lt;b&gt;); lost 1" in html
    assert "lost 2 (reason 2 &lt;b&gt;) and more." in html
    assert (compared.counts["rejected"], compared.read_json("comparison.json")["tasks"]["heldout"]["n_rejected"]) == (
        4,
        4,
    )


def test_every_task_stands_in_the_report_with_its_figure_or_its_reason(compared: Artifact) -> None:
    html = " ".join(compared.open("report.html", "r").read().split())
    assert compared.read_json("comparison.json")["main"] == "heldout"
    assert "<td>Caps</td><td>exact_match</td> <td>12</td><td>12</td>" in html
    assert "not measured: needs a judge" in html and "so that models cannot be paired over them" in html
    tasks = compared.read_json("comparison.json")["tasks"]
    assert set(tasks) == {"heldout", "Caps", "Judged"} and tasks["Judged"]["not_measured"] == "needs a judge"


def test_report_loads_nothing(compared: Artifact) -> None:
    html = compared.open("report.html", "r").read()
    sources = re.findall(r'(?:src|href)="([^"]{0,20})', html)
    assert sources
    assert all(source.startswith("data:image/") for source in sources)
    assert "url(" not in html


def test_report_shows_fixed_then_broken_then_still_wrong(compared: Artifact) -> None:
    html = compared.open("report.html", "r").read()
    titles = [
        html.index(title) for title in ("Fixed by training", "Broken by training", "Still wrong", "Right both times")
    ]
    assert titles == sorted(titles)


def test_loss_curve_is_a_png(compared: Artifact) -> None:
    with Image.open(compared.local("loss.png")) as image:
        assert image.format == "PNG"
        assert image.width > 800


def test_loss_curve_is_drawn_the_same_every_time() -> None:
    curve = LossCurve((1, 2, 3), (4.0, 2.0, 1.0), (1e-3, 1e-3, 1e-4))
    assert draw_loss(curve) == draw_loss(curve)


def test_smoothing_does_not_lag() -> None:
    assert smoothed((8.0, 4.0, 3.0, 1.0), window=1) == pytest.approx([8, 5, 8 / 3, 1])


def test_of_a_step_logged_twice_the_later_line_counts(store: ArtifactStore) -> None:
    rows = [{"step": s, "train/loss": loss, "train/lr": 0.1} for s, loss in ((1, 9.0), (2, 8.0), (2, 7.0), (3, 6.0))]
    curve = read_loss_curve(made(store, "train", lambda out: lines(out, "metrics.jsonl", rows)))
    assert curve.losses == (9.0, 7.0, 6.0)


def test_evaluations_of_different_questions_are_refused(store: ArtifactStore) -> None:
    before = evaluation(store, "before", ["yes", "no"], ["a", "b"])
    after = evaluation(store, "after", ["yes", "no"], ["a", "c"])
    with pytest.raises(UserError, match=r"different questions .*'b'"):
        read_compared(before, after, "samples/heldout.jsonl", 1.0)


def test_examples_are_half_fixed_and_filled_up_in_order() -> None:
    pairs = [row(f"f{i}", 0, 1) for i in range(9)] + [row("b", 1, 0), row("w", 0, 0)]
    chosen = [example.outcome for example in choose_examples(pairs, 8)]
    assert chosen == ["fixed"] * 6 + ["broken", "wrong"]


def test_comparing_imports_no_torch() -> None:
    code = (
        "import sys, components.compare.step, components.compare.chart, components.register.step\n"
        "print('torch' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "False"
    )


def test_pictures_of_a_video_are_frames_of_its_clip(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", 24, fps=6, options={"g": 6})
    pair = row("a", 0, 1, video=VideoClip("v.mp4", 1.0, 2.0))
    shown = [number_of(np.asarray(Image.open(io.BytesIO(data)))) for data in pictures(pair, MediaRoot(str(tmp_path)))]
    assert shown == [6, 8, 10, 12]
