"""What lies between a record and a batch: an example with the media that a shard keeps of it, and with the arrays of these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from plm_model.packs.example import Example

MediaArrays = Mapping[str, np.ndarray]  # by name; the first axis counts the media of one example


class MediaMismatch(ValueError):
    """The placeholders of an example and the features of its media differ in number; the message says both."""


class WrongModel(ValueError):
    """Media that were stored for a model of other sizes; preparing them again mends it."""


class MediaFiles(Protocol):
    """Where the files lie that records name."""

    def read(self, path: str) -> bytes:
        """The bytes of a file."""
        ...

    def file(self, path: str) -> AbstractContextManager[Path]:
        """A file on this machine, for the time of the block."""
        ...


@dataclass(frozen=True)
class StoreOptions:
    """How media are kept: frames of videos exactly, or as JPEG of a quality from 1 to 100; whether a picture that is damaged,
    though it can be shown, is refused."""

    frame_jpeg_quality: int | None = None
    reject_damaged: bool = False


@dataclass(frozen=True)
class StoredExample:
    """A record as a shard keeps it: its example, its media as `{kind, data}` with encoded bytes, how many items the model's
    encoder runs on, how many frames of videos, and the kinds of what was noticed."""

    example: Example
    media: Sequence[Mapping[str, Any]] = ()
    items: int = 0
    frames: int = 0
    notes: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Placeholder:
    """The token in whose place features stand: its id, its text, what an item of media is called, and how many places one
    takes, None where they differ."""

    token: int
    text: str
    item: str
    places: int | None = None


@dataclass(frozen=True)
class Item:
    """An example read back from a shard, with the arrays of its media."""

    id: str
    example: Example
    media: MediaArrays
