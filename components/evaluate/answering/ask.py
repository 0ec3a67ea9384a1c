"""A question for a model, and what it said."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from plm_model.records.record import VideoClip

if TYPE_CHECKING:
    from PIL import Image

    from plm_model.answers.options import GenerationOptions

READ_BYTES = 1 << 20


@dataclass(frozen=True)
class ImageFile:
    """An image that is decoded where it is shown."""

    path: str


Shown = Union["Image.Image", ImageFile, VideoClip]


@dataclass(frozen=True)
class Ask:
    """A question about what is shown, and how to answer it; with a given answer, how likely that is."""

    text: str
    shown: tuple[Shown, ...]
    options: GenerationOptions
    given: str | None = None

    @property
    def key(self) -> str:
        """Hex sha256 of all of it, the contents of files included: what a kept answer is found by."""
        sha = hashlib.sha256(self.text.encode("utf-8", "surrogatepass"))
        for part in (repr(asdict(self.options)), repr(self.given), *map(_identity, self.shown)):
            sha.update(b"\0" + part.encode("utf-8", "surrogatepass"))
        return sha.hexdigest()


@dataclass(frozen=True)
class Said:
    """An answer; `problem` is why the question could not be put, in which case the text is empty.

    Of a given answer `loss` is the mean loss of its tokens, and `greedy` whether it is the likeliest.
    """

    text: str
    problem: str | None = None
    loss: float | None = None
    greedy: bool | None = None


def _identity(shown: Shown) -> str:
    if isinstance(shown, ImageFile):
        return _file_digest(shown.path)
    if isinstance(shown, VideoClip):
        return f"{_file_digest(shown.path)} {shown.start} {shown.end} {shown.boxes}"
    return f"{shown.mode} {shown.size} {hashlib.sha256(shown.tobytes()).hexdigest()}"


def _file_digest(path: str) -> str:
    """Of a file; of one that cannot be read, which is a problem of its own later, of its name."""
    sha = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(READ_BYTES):
                sha.update(block)
    except OSError as error:
        return f"{path}: {type(error).__name__}"
    return sha.hexdigest()


def shown_of(visuals: Any) -> tuple[Shown, ...]:
    """What a request of lmms-eval shows, as one flat tuple: images, and videos, which tasks name by their path.

    A list of frames of a video becomes as many images, in front of the text like the video's own frames.
    """
    from PIL import Image

    if visuals is None:
        return ()
    if isinstance(visuals, (Image.Image, ImageFile, VideoClip)):
        return (visuals,)
    if isinstance(visuals, (str, Path)):
        return (VideoClip(str(visuals)),)
    if isinstance(visuals, Sequence):
        return tuple(item for visual in visuals for item in shown_of(visual))
    raise NotImplementedError(f"this task shows a {type(visuals).__name__}; only images and videos can be evaluated")
