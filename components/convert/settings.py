"""How rows become conversations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field, model_validator

from components.settings import Fraction, Seed, Settings


class HeldOutConfig(Settings):
    """Which rows are held out, where the data say it themselves; then no fraction of the others is."""

    split: str | None = Field(
        None,
        min_length=1,
        description="a split of the data by its name, such as test; other splits than train are left out",
    )
    column: str | None = Field(
        None,
        description="column that holds the name of a row's split; default: the names of the files, data/test-….parquet",
    )
    source: str | None = Field(None, min_length=1, description="a data set of the catalogue, all of it")

    @model_validator(mode="after")
    def _names_one(self) -> HeldOutConfig:
        if (self.split is None) == (self.source is None):
            raise ValueError("name a split, or a source of the catalogue: {split: test} or {source: NAME}")
        if self.column is not None and self.split is None:
            raise ValueError("`column` says where the name of `split` stands; name the split, too")
        return self


class ConvertConfig(Settings):
    """How rows become conversations."""

    answer_column: str = Field("label", description="column of the answers")
    question_column: str | None = Field(None, description="column that holds the question; default: use `questions`")
    questions: tuple[str, ...] = Field(
        ("What is in this image?",), min_length=1, description="questions, of which a row gets one by its id"
    )
    answer: str = Field("{answer}", description="template of the answer; {column} names any column of the row")
    test: HeldOutConfig | None = Field(
        None, description="what is held out, where the data say it; default: test_fraction"
    )
    test_fraction: Fraction = Field(0.2, description="share of the rows that is held out")
    group_column: str | None = Field(
        None, description="column whose equal values belong together, such as a patient's: on one side of the fraction"
    )
    split_seed: Seed = 0
    accept_gpt_role: bool = Field(False, description="read LLaVA's role `gpt` as `assistant`")
    repeated: Literal["keep", "drop"] = Field(
        "keep", description="rows that equal an earlier one: keep each, or drop them; both are counted"
    )
    max_bad_fraction: Fraction = Field(0.01, description="share of rows that may be rejected")


@dataclass(frozen=True)
class ConvertSettings:
    """What the step reads: its own section, and which column ingest took the images from."""

    convert: ConvertConfig
    image_column: str
