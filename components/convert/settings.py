"""How rows become conversations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from components.settings import Fraction, Seed, Settings


class ConvertConfig(Settings):
    """How rows become conversations."""

    answer_column: str = Field("label", description="column of the answers")
    question_column: str | None = Field(None, description="column that holds the question; default: use `questions`")
    questions: tuple[str, ...] = Field(
        ("What is in this image?",), min_length=1, description="questions, of which a row gets one by its id"
    )
    answer: str = Field("{answer}", description="template of the answer; {column} names any column of the row")
    test_fraction: Fraction = Field(0.2, description="share of the rows that is held out")
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
