"""Every column of PLM's tables runs offline on a tiny data set, and gives the figure that its known answers have by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from components.evaluate.suites.suite import Column, read_suite
from tests.components.evaluate.benchmarks.evaluate_suites import LEAVING, SUITES
from tests.components.evaluate.benchmarks.given import CIDER
from tests.debian import debian_program

SECONDS = 600
VQA = 100 * (1 + 0.6 + 0) / 3  # ten people of ten, two of ten, none
# Column -> the figure of the answers in given_*.py, by hand; a text would be the reason why it cannot be measured.
FIGURES: dict[str, float | str] = {
    "DocVQA": 100 * (1 + (1 - 1 / 6) + 0) / 3,  # one letter of six is wrong
    "ChartQA": 50.0,  # 10.4 for 10 is within 5 %, 110 for 100 is not
    "TextVQA": VQA,
    "InfoQA": 50.0,
    "AI2D": 75.0,
    "OCRBench": 750.0,  # 3 of 4, where lmms-eval says 0.003
    "COCO": CIDER,
    "NoCaps": CIDER,
    "Flickr": CIDER,
    "MMMU": 200 / 3,
    "VQAv2": VQA,
    "OKVQA": VQA,
    "VizWiz": VQA,
    "MME": (200 + 50) / 2 + 200,  # a pair gives 50 for each right answer, and 100 more for both
    "SEED": 50.0,  # of the images; the question about a video is wrong, too
    "BLINK": (7 * 100 + 7 * 50) / 14,
    "CVBench": 75.0,
    "RealWorldQA": 50.0,
    "VSR": 75.0,
    "POPE": 200 / 3,  # 2 true, 1 false, 1 missed: precision and recall 2/3
    "VATEX": CIDER,
    "DREAM-1K": 100 * 2 * (1 / 4) * (3 / 4),  # recall 1/4, precision 3/4; one video is not measured
    "How2QA": 50.0,
    "MVBench": (10 * 100 + 10 * 50) / 20,
    "NExTQA": 50.0,
    "PerceptionTest": 75.0,
    "STAR": 200 / 3,
    "TVQA": 75.0,
    "VideoMME": 75.0,
    "TVBench": (5 * 100 + 5 * 50) / 10,
    "ActivityNetQA": 50.0,  # of the two that the judge could read
    "EgoSchema": 50.0,
    "TemporalBench": 50.0,  # the questions about one video of two are all right
    "TOMATO": 50.0,
    "MotionBench": 50.0,
    "TempCompass": 50.0,  # two by rule, two by the judge; one that it could not read
    "CGBench": 200 / 3,
    "Charades-STA": 100 * (0.5 + 1 + 0) / 3,
    "VideoHallucer": 90.0,
    "EventHallusion": 75.0,
    "FGQA": 50.0,
    "SGQA": 50.0,
    "RDCap": 100 * (1 + 1 / 3) / 2,  # 1; and half an event of two, in one: 2 * (1/2 * 1/4) / (3/4)
    "RCap": 100 * (0.8 + 0.3) / 2,
    "RTLoc": 100 * (1 + 0.5 + 0) / 3,  # an IoU of 0.6 is above two of four thresholds
}
QUESTIONS = {"SEED": 2, "DREAM-1K": 2, "ActivityNetQA": 2, "TempCompass": 4, "MVBench": 40}
COLUMNS = [column for name in SUITES for column in read_suite(name).columns]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> dict[str, Any]:
    """lmms-eval, in one child for all columns; it answers with what given_*.py says."""
    root = tmp_path_factory.mktemp("suites")
    command = [sys.executable, "-m", "tests.components.evaluate.benchmarks.evaluate_suites", str(root)]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    with open(root / "log", "wb") as log:
        subprocess.run(command, cwd=repository, env=environment, stderr=log, stdout=log, timeout=SECONDS, check=False)
    result = root / "result.json"
    assert result.exists(), (root / "log").read_text(errors="replace")[-3000:]
    found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return found


def test_the_table_has_a_row_for_every_column() -> None:
    assert list(FIGURES) == [column.title for column in COLUMNS]
    assert sum(isinstance(figure, float) for figure in FIGURES.values()) == 45


@pytest.mark.parametrize("column", COLUMNS, ids=[column.title for column in COLUMNS])
def test_a_column_gives_the_figure_of_its_known_answers(column: Column, evaluated: dict[str, Any]) -> None:
    if "java" in column.needs:
        debian_program("default-jre-headless", "java")
    found, expected = evaluated["columns"][column.title], FIGURES[column.title]
    if isinstance(expected, str):
        assert (found["figure"]["value"], found["figure"]["reason"]) == (None, expected)
        return
    assert found["figure"]["reason"] is None
    assert found["figure"]["value"] == pytest.approx(expected, abs=0.01)  # lmms-eval rounds some to 4 places
    assert found["figure"]["n"] == QUESTIONS.get(column.title, found["figure"]["n"]) > 0
    if column.per_question is not None and column.per_question.mean:
        assert found["mean"] * column.question_scale == pytest.approx(expected, abs=0.01)


def test_a_smoke_test_s_columns_are_those_of_the_whole_table() -> None:
    assert {column.title for column in read_suite("smoke").columns} == {"ChartQA", "OCRBench", "RealWorldQA", "POPE"}
    assert all(column in COLUMNS for column in read_suite("smoke").columns)


def test_likelihoods_are_compared(evaluated: dict[str, Any]) -> None:
    assert evaluated["likelihoods"]["egoschema_subset_mcppl"]["score,none"] == 0.5  # C is right once of two


def test_a_limit_that_parts_a_pair_of_mme_leaves_the_half_out(evaluated: dict[str, Any]) -> None:
    assert evaluated["mme_of_3"]["mme"]["mme_perception_score,none"] == 200.0  # of the first two, both right


@pytest.mark.parametrize("title", LEAVING)
def test_a_missing_video_is_an_error_that_names_it(title: str, evaluated: dict[str, Any]) -> None:
    (why,) = evaluated["without_videos"][title].values()
    assert ".mp4" in why and "does not exist" in why
