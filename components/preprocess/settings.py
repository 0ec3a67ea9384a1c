"""How conversations become shards."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from components.settings import Fraction, PositiveFloat, PositiveInt, Settings


class PreprocessConfig(Settings):
    """How conversations become shards."""

    WITHOUT_EFFECT: ClassVar[frozenset[str]] = frozenset({"parallelism"})

    max_tokens: PositiveInt = Field(2048, description="longest example, in tokens")
    max_bad_fraction: Fraction = Field(0.01, description="share of bad rows above which the step fails; 0 = strict")
    rows_per_shard: PositiveInt = Field(1024, description="rows of a file of the shards")
    parallelism: PositiveInt | None = Field(
        None, description="chunks that are encoded at the same time; default: as many as Ray has CPUs for"
    )
    damaged: Literal["keep", "reject"] = Field(
        "keep",
        description="pictures that are damaged but can be shown: `keep` counts and names them, `reject` refuses them",
    )
    row_seconds: PositiveFloat = Field(20.0, description="seconds of computing that one row may take before it is bad")
    frame_jpeg_quality: Annotated[int, Field(ge=1, le=100)] | None = Field(
        None, description="JPEG quality of stored video frames; null stores them exactly, at about twice the size"
    )
