"""How rows become conversations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from components.settings import Fraction, Seed, Settings


class ConvertConfig(Settings):
    """How rows become conversations."""

    answer_column: str = "label"
    question_column: str | None = Field(None, description="column that holds the question; default: use `questions`")
    questions: tuple[str, ...] = Field(("What is in this image?",), min_length=1)
    answer: str = Field("{answer}", description="template of the answer; {column} names any column of the row")
    test_fraction: Fraction = 0.2
    split_seed: Seed = 0
    accept_gpt_role: bool = Field(False, description="read LLaVA's role `gpt` as `assistant`")
    repeated: Literal["keep", "drop"] = Field(
        "keep", description="rows that equal an earlier one: keep each, or drop them; both are counted"
    )
    max_bad_fraction: Fraction = 0.01


@dataclass(frozen=True)
class ConvertSettings:
    """What the step reads: its own section, and which column ingest took the images from."""

    convert: ConvertConfig
    image_column: str
