"""What is brought in, and from where: a kind of source is one file in `sources`, and one name here."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from components.ingest.sources.catalogue import CatalogueSource
from components.ingest.sources.digits import DigitsSource
from components.ingest.sources.folder import FolderSource
from components.ingest.sources.parquet import ParquetSource
from components.ingest.sources.s3 import S3Source
from components.settings import Settings

AnySource = Annotated[
    DigitsSource | FolderSource | S3Source | CatalogueSource | ParquetSource, Field(discriminator="kind")
]


class IngestConfig(Settings):
    """What is brought in."""

    source: AnySource = DigitsSource()
    image_column: str = Field(
        "image", description="column that names the images; as `image` it stands for the usual keys, such as `images`"
    )
