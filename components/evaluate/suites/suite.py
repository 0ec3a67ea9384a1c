"""A suite of benchmarks as data: columns of a table in a YAML file, each with its tasks, its metric and what is published.

`read_suite("plm_image")` reads `configs/eval/plm_image.yaml`; a path reads that file. What is wrong in it becomes one line
for each problem, which names the file and the key.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from components.errors import ConfigError
from components.settings import PositiveFloat, PositiveInt, Settings, TaskName

REPOSITORY = Path(__file__).resolve().parents[3]
FOLDERS = (Path("configs/eval"), REPOSITORY / "configs/eval")  # the first that there is counts
CIDER_BEST = 10.0

Need = Literal["java", "judge", "videos", "gated", "token", "network", "server", "cv2"]
Text = Annotated[str, Field(min_length=1)]
Setting = str | int | float | bool | tuple[str, ...]


class Published(Settings):
    """What its authors report of a model's three sizes, on the column's scale, and what they measured it on."""

    split: Text = Field(description="part of the data, `not stated` where the source does not say")
    setting: Text = Field(description="score and conditions, `not stated` where the source does not say")
    plm_1b: float | None = None
    plm_3b: float | None = None
    plm_8b: float | None = None


class PerQuestion(Settings):
    """Where lmms-eval's sample of a question holds its score, and how it is read."""

    key: Text | tuple[Text, ...] = Field(description="dotted path in a sample; of several the first that is there")
    how: Literal["value", "equal", "first_letter", "yes_no", "cider"] = Field(
        "value",
        description="`value`: the score itself; `equal`, `first_letter`: 1 where it says the same as `truth`; "
        "`yes_no`: 1 for yes, 0 for no, else not measured; `cider`: of a caption {pred, answer}, over all of the task",
    )
    truth: Text | None = Field(None, description="dotted path of the right answer in a sample")
    all_of: Text | None = Field(
        None, description="key of the document; questions that share it count as right together"
    )
    scale: PositiveFloat | None = Field(
        None, description="these scores times this are on the published scale; default: the column's"
    )
    mean: bool = Field(True, description="whether the mean of these scores on that scale is the column's figure")

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.key,) if isinstance(self.key, str) else self.key

    @model_validator(mode="after")
    def _compares_with_something(self) -> PerQuestion:
        if (self.how in ("equal", "first_letter")) != (self.truth is not None):
            raise ValueError(f"`truth` belongs to `equal` and `first_letter`, not to `{self.how}` alone or without it")
        return self


class Column(Settings):
    """One benchmark of a suite: a column of its table."""

    title: TaskName = Field(description="names the column in reports, metrics and the gate")
    tasks: tuple[TaskName, ...] = Field(min_length=1, description="lmms-eval tasks; the figure is the mean over them")
    split: Text = Field(description="part of the data that the tasks ask about")
    setting: Text = Field(description="score and conditions")
    metric: Text | tuple[Text, ...] = Field(description="key in lmms-eval's results; several are added up")
    part: str | int | None = Field(None, description="key or position within a metric that is a mapping or a list")
    scale: PositiveFloat = Field(1.0, description="our value times this is on the published scale")
    divided_by: PositiveInt | None = Field(
        None, description="the metric is a sum divided by this fixed number, whatever the number of questions"
    )
    generation: Mapping[str, Setting] = Field({}, description="generation settings that replace the task's own")
    needs: tuple[Need, ...] = ()
    per_question: PerQuestion | None = Field(
        None, description="null where the metric exists only over the corpus or lmms-eval keeps no score of a question"
    )
    cluster: Text | None = Field(None, description="key of the document that says which questions share media")
    published: Published | None = None
    not_measured: Text | None = Field(None, description="why no score can be computed here")

    @property
    def metrics(self) -> tuple[str, ...]:
        return (self.metric,) if isinstance(self.metric, str) else self.metric

    @property
    def question_scale(self) -> float:
        """What the scores of questions are to be multiplied by to be on the published scale."""
        return (self.per_question.scale if self.per_question else None) or self.scale

    @property
    def best(self) -> float:
        """The highest score of a question on the published scale."""
        cider = self.per_question is not None and self.per_question.how == "cider"
        return self.question_scale * (CIDER_BEST if cider else 1.0)

    @property
    def comparable(self) -> bool:
        """Whether what is published was measured on the same split in the same setting, as far as its source says."""
        other = self.published
        return other is not None and (other.split, other.setting) == (self.split, self.setting)


class Suite(Settings):
    """A table of benchmarks, its columns in the order in which they are shown."""

    title: Text
    source: str = Field("", description="where the published figures stand")
    columns: tuple[Column, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _titles_differ(self) -> Suite:
        titles = [column.title for column in self.columns]
        if twice := sorted({title for title in titles if titles.count(title) > 1}):
            raise ValueError(f"two columns are called {twice[0]}")
        return self

    @property
    def tasks(self) -> tuple[str, ...]:
        """The lmms-eval tasks of every column that can be measured, each once."""
        measured = (column for column in self.columns if column.not_measured is None)
        return tuple(dict.fromkeys(task for column in measured for task in column.tasks))


def read_suite(name: str, folders: Sequence[Path] = FOLDERS) -> Suite:
    """The suite of a name, or of a path to a YAML file. ConfigError says what is wrong with either."""
    path = suite_path(name, folders)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is no valid YAML: {' '.join(str(error).split())}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the suite: {error.strerror}") from None
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path}: a suite is a mapping with `title` and `columns`, not a {type(values).__name__}")
    try:
        return Suite.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{path}: {explained(each, values)}" for each in error.errors())) from None


def suite_path(name: str, folders: Sequence[Path] = FOLDERS) -> Path:
    """The file of a suite. ConfigError when there is none, with the nearest name."""
    if "/" in name or name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            raise ConfigError(f"{name}: there is no such file; a suite is a name of {FOLDERS[0]} or a path to a YAML")
        return Path(name)
    known = suites(folders)
    if name not in known:
        near = difflib.get_close_matches(name, known, 1, 0.4)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known)) or 'none'}"
        raise ConfigError(f"{name}: there is no such suite in {FOLDERS[0]}; {hint}")
    return known[name]


def suites(folders: Iterable[Path] = FOLDERS) -> dict[str, Path]:
    """Name of each suite -> its file."""
    for folder in folders:
        if found := sorted(folder.glob("*.yaml")):
            return {path.stem: path for path in found}
    return {}


def explained(problem: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """A problem of pydantic's in one line: the key, the column's title, what is wrong, the nearest known key."""
    location = list(problem["loc"])
    dotted = ".".join(str(part) for part in location) or "(top level)"
    if location[:1] == ["columns"] and len(location) > 1:
        column = values["columns"][location[1]]
        if isinstance(column, Mapping) and "title" in column:
            dotted += f" ({column['title']})"
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(location[-1]), keys_at(location[:-1]), 1, 0.4)
        return f"{dotted}: unknown key" + (f"; did you mean {near[0]}?" if near else "")
    message = problem["msg"].removeprefix("Value error, ")
    return f"{dotted}: {message[:1].lower()}{message[1:]}"


def keys_at(location: Sequence[str | int]) -> list[str]:
    """The keys that a place of a suite may have."""
    names: dict[str | int, type[Settings]] = {"published": Published, "per_question": PerQuestion, "columns": Column}
    kinds = [names[part] for part in location if part in names]
    return list((kinds[-1] if kinds else Suite).model_fields)
