"""The 1,797 handwritten digits that ship inside scikit-learn, written as a download would leave them."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import io
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from components.errors import UserError
from components.ingest.parts import Part
from components.ingest.sources.origin import Head
from components.settings import PositiveInt, Settings

if TYPE_CHECKING:
    import numpy as np

    from components.artifacts.artifact import ArtifactWriter
    from components.artifacts.context import StepContext

LABELS, COLUMNS = "labels.csv", ("image", "label")
DARKEST = 16  # the data set counts black pixels of 4x4 blocks


class DigitsSource(Settings):
    """The 1,797 handwritten digits (UCI, 8x8) that ship inside scikit-learn, written as image files."""

    on_disk: ClassVar[bool] = False

    kind: Literal["digits"] = "digits"
    limit: PositiveInt | None = Field(None, description="take only the first so many images")
    image_size: Annotated[PositiveInt, Field(le=4096)] = Field(
        56, description="side in pixels that the 8x8 images are written at"
    )

    def fingerprint(self) -> str:
        """The versions of what makes them."""
        return f"digits of scikit-learn {version('scikit-learn')}, pillow {version('pillow')}"

    def bring(self, image_column: str, out: ArtifactWriter, context: StepContext) -> list[Part]:
        """Write the digits; every one of them is a row."""
        count = write_digits(self, out, context.progress)
        out.counts.update(files=count + 1, fetched=count + 1, reused=0, rows=count, used=count, repaired=0, rejected=0)
        return [Part(LABELS)]

    def problems(self) -> Iterator[str]:
        """None."""
        return iter(())

    def head(self, most: int) -> Head:
        """The columns of `labels.csv`."""
        return Head("the digits", columns=COLUMNS)


def write_digits(source: DigitsSource, out: ArtifactWriter, progress: Callable[[str], None]) -> int:
    """Write `images/digit-0000.png`... (grey, image_size square) and `labels.csv`; the number of images."""
    from PIL import Image

    images, digits = load_digits()
    count = min(source.limit or len(images), len(images))
    labels = io.StringIO()
    table = csv.writer(labels, lineterminator="\n")
    table.writerow(COLUMNS)
    for index in range(count):
        grey = (images[index] * (255 / DARKEST)).round().astype("uint8")
        image = Image.fromarray(grey).resize((source.image_size, source.image_size), Image.Resampling.BICUBIC)
        data = io.BytesIO()
        image.save(data, "PNG")
        name = f"images/digit-{index:04d}.png"
        with out.open(name) as file:
            file.write(data.getvalue())
        table.writerow([name, int(digits[index])])
        if (index + 1) % 500 == 0 or index + 1 == count:
            progress(f"{index + 1} of {count} digits")
    with out.open(LABELS, "w") as file:
        file.write(labels.getvalue())
    return count


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """(images [1797, 8, 8] of 0..16, digits [1797]): what `sklearn.datasets.load_digits` returns.

    Read from the same file, because importing sklearn.datasets takes seconds.
    """
    import numpy as np

    spec = importlib.util.find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("ingest.source: the digits ship inside scikit-learn, which is not installed")
    path = Path(next(iter(spec.submodule_search_locations)), "datasets", "data", "digits.csv.gz")
    with gzip.open(path, "rt", encoding="ascii") as file:
        table = np.loadtxt(file, delimiter=",")
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(int)
