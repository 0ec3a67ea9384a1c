"""What is brought in, and from where."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from components.settings import LocalPath, PositiveInt, Settings, Uri


class DigitsSource(Settings):
    """The 1,797 handwritten digits (UCI, 8x8) that ship inside scikit-learn, written as image files."""

    kind: Literal["digits"] = "digits"
    limit: PositiveInt | None = Field(None, description="take only the first so many images")
    image_size: Annotated[PositiveInt, Field(le=4096)] = Field(
        56, description="side in pixels that the 8x8 images are written at"
    )


Check = Literal["times", "contents"]
CHECK = Field(
    "times",
    description="how a changed file is known: by size and modification `times`, or by its `contents`, all of which are read "
    "at each start",
)


class FolderSource(Settings):
    """A folder of images with a CSV or JSONL that names and labels them."""

    kind: Literal["folder"] = "folder"
    path: LocalPath
    annotations: str = Field("labels.csv", description="CSV or JSONL file below path")
    check: Check = CHECK


class S3Source(Settings):
    """A bucket prefix with images and a CSV or JSONL that names and labels them."""

    WITHOUT_EFFECT: ClassVar[frozenset[str]] = frozenset({"parallel", "part_bytes"})

    kind: Literal["s3"] = "s3"
    uri: Uri
    annotations: str = Field("labels.csv", description="CSV or JSONL key below the prefix")
    parallel: PositiveInt = 8
    part_bytes: PositiveInt = Field(8 << 20, description="objects above this size are fetched in ranges of it")


class PlmSource(Settings):
    """Data sets in PLM's format, by their names in a registry."""

    WITHOUT_EFFECT: ClassVar[frozenset[str]] = frozenset({"registry"})  # the data sets that it names count

    kind: Literal["plm"] = "plm"
    registry: LocalPath = Field("configs/datasets.yaml", description="YAML of name: {annotation, root_dir}")
    datasets: tuple[str, ...] = Field(min_length=1, description="names; default: those of train.datamix")
    check: Check = CHECK


class ParquetSource(Settings):
    """Parquet files with images in them, of a folder or of a data set on the Hugging Face hub."""

    kind: Literal["parquet"] = "parquet"
    path: LocalPath = Field(description="a folder, or owner/name@commit")
    files: str | None = Field(
        None,
        description="which files below it, such as data/train-*.parquet; default: all but a test or validation split",
    )
    check: Check = CHECK


Source = Annotated[DigitsSource | FolderSource | S3Source | PlmSource | ParquetSource, Field(discriminator="kind")]


class IngestConfig(Settings):
    """What is brought in."""

    source: Source = DigitsSource()
    image_column: str = Field(
        "image", description="column that names the images; as `image` it stands for the usual keys, such as `images`"
    )
