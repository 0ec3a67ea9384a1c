"""Suites: the shipped ones hold PLM's 45 columns in the order of its tables, and a wrong one is refused by file and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.errors import ConfigError
from components.evaluate.suites.suite import read_suite

IMAGE = (
    "DocVQA ChartQA TextVQA InfoQA AI2D OCRBench COCO NoCaps Flickr MMMU VQAv2 OKVQA VizWiz MME SEED BLINK CVBench "
    "RealWorldQA VSR POPE"
)
VIDEO = (
    "VATEX DREAM-1K How2QA MVBench NExTQA PerceptionTest STAR TVQA VideoMME TVBench ActivityNetQA EgoSchema TemporalBench "
    "TOMATO MotionBench TempCompass CGBench Charades-STA VideoHallucer EventHallusion"
)
PUBLISHED_8B = {
    "plm_image": "94.6 85.5 86.5 80.9 92.7 870 146.7 129.9 105.6 46.1 85.6 69.6 67.0 1989 79.3 56.0 81.3 75.0 82.8 89.9",
    "plm_video": "99.7 35.9 90.7 77.1 84.1 82.7 84.9 59.3 58.3 63.5 67.3 68.8 28.3 33.2 61.4 72.7 46.4 58.6 57.7 77.3",
    "plm_videobench": "67.7 46.2 52.8 46.6 59.1",
}
MINIMAL = "title: t\ncolumns:\n  - {title: A, tasks: [a], split: test, setting: accuracy, metric: acc"


@pytest.mark.parametrize(
    ("name", "titles"),
    [("plm_image", IMAGE), ("plm_video", VIDEO), ("plm_videobench", "FGQA SGQA RDCap RCap RTLoc")],
)
def test_a_shipped_suite_has_the_columns_of_the_published_table_in_its_order(name: str, titles: str) -> None:
    columns = read_suite(name).columns
    assert [column.title for column in columns] == titles.split()
    published = [column.published.plm_8b for column in columns if column.published]
    assert published == [float(figure) for figure in PUBLISHED_8B[name].split()]


def test_every_size_of_an_image_or_video_column_is_published() -> None:
    columns = [*read_suite("plm_image").columns, *read_suite("plm_video").columns]
    assert all(
        column.published and None not in (column.published.plm_1b, column.published.plm_3b, column.published.plm_8b)
        for column in columns
    )


def test_another_split_is_not_compared() -> None:
    columns = {column.title: column for column in read_suite("plm_image").columns}
    assert not columns["DocVQA"].comparable  # validation here, the server's test there
    assert columns["ChartQA"].comparable


def test_a_suite_s_tasks_are_each_named_once() -> None:
    assert len(read_suite("plm_image").tasks) == 33  # BLINK is 14 of them
    assert len(read_suite("plm_video").tasks) == 48  # MVBench 20, TVBench 10


def refused(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        read_suite(str(path))
    return str(error.value).replace(str(path), "mine.yaml")


def test_a_suite_is_named_by_a_path_too(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(MINIMAL + "}", encoding="utf-8")
    assert read_suite(str(tmp_path / "mine.yaml")).tasks == ("a",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL + ", scael: 100}", "mine.yaml: columns.0.scael (A): unknown key; did you mean scale?"),
        (
            MINIMAL + ", published: {split: test, setting: a, plm_8: 1}}",
            "mine.yaml: columns.0.published.plm_8 (A): unknown key; did you mean plm_8b?",
        ),
        (MINIMAL.replace(", metric: acc", "}"), "mine.yaml: columns.0.metric (A): field required"),
        (MINIMAL + ", needs: [jvaa]}", "mine.yaml: columns.0.needs.0 (A): input should be 'java', 'judge'"),
        (MINIMAL + "}\n  - {" + MINIMAL.partition("{")[2] + "}", "mine.yaml: (top level): two columns are called A"),
        (MINIMAL + ", per_question: {key: a, how: equal}}", "mine.yaml: columns.0.per_question (A): `truth` belongs"),
        ("- a", "mine.yaml: a suite is a mapping with `title` and `columns`, not a list"),
        ("a: [", "mine.yaml: is no valid YAML"),
    ],
)
def test_what_is_wrong_is_named_by_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    assert refused(tmp_path, text).startswith(message)


def test_a_wrong_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"plm_vidoe: there is no such suite in configs/eval; did you mean plm_video\?"
    ):
        read_suite("plm_vidoe")
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: there is no such file"):
        read_suite("nowhere.yaml")
