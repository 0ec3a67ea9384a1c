"""Model families by name: each is a package with a module for each part, found in a table or by an entry point.

    settings     what a model is, as one frozen dataclass with a default for every field; without torch
    codec        records become what shards keep, questions become prompts; without torch when imported
    collator     what shards keep becomes packs; without torch when imported
    model        the module that gives a loss for each target, and what a step of it costs
    directory    model directories: the one to start from, what stands beside its tensors, other layouts
    answer       a model directory that answers questions

Another package brings a family by an entry point of the group `plm_model.families`: its name, and the package that has the six
modules. Nothing outside a family imports its modules by name; a step says which parts it uses, and they count in its key.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, overload

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import nn

    from plm_model.answers.options import Generation, GenerationOptions, OnText
    from plm_model.model_directory.opened import ModelDirectory
    from plm_model.nn.cost import StepCost
    from plm_model.packs.batch import Batch
    from plm_model.packs.example import Example
    from plm_model.packs.stored import Item, MediaFiles, Placeholder, StoredExample, StoreOptions
    from plm_model.records.record import Record, VideoClip

FAMILIES = {"plm": "plm_model.families.plm"}
GROUP = "plm_model.families"
RANDOM = "random"  # a start without weights
Part = Literal["settings", "codec", "collator", "model", "directory", "answer"]


class UnknownFamily(ValueError):
    """No family has this name."""


class Codec(Protocol):
    """Records become what shards keep, questions become prompts. Pickles."""

    def store(self, record: Record, files: MediaFiles, options: StoreOptions) -> StoredExample:
        """What a shard keeps of a record; RecordError, ImageError or VideoError when it cannot be used."""
        ...

    def require_answerable(self, record: Record, question: str, files: Mapping[str, Path]) -> None:
        """The errors of `store` when a question about a record's media cannot be put; `files` maps their paths to files."""
        ...

    def length(self, text: str) -> int:
        """Tokens of a text."""
        ...

    def text(self, ids: Sequence[int], special: bool = True) -> str:
        """The text of ids, with or without the special tokens."""
        ...

    @property
    def placeholder(self) -> Placeholder:
        """The token in whose place features of media stand."""
        ...


class Collator(Protocol):
    """What a shard keeps becomes packs. Pickles."""

    def item(self, id: str, example: Example, media: Sequence[Mapping[str, Any]]) -> Item:
        """An example with the arrays of its stored media. ValueError when they cannot be used, WrongModel among them."""
        ...

    def blank(self, id: str) -> Item:
        """One token without target and without media, in the place of an example that cannot be read."""
        ...

    def filler(self) -> Batch:
        """A pack of one target for a rank that has none: it runs every collective."""
        ...

    def batch(self, items: Sequence[Item]) -> Batch:
        """The items as one pack."""
        ...


class Answerer(Protocol):
    """A model directory that answers; `notes` say what was assumed about it."""

    notes: Sequence[str]

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """Read the weights; what was called before needs none."""
        ...

    def prompt(self, question: str, media: Sequence[Image.Image | VideoClip]) -> tuple[Example, Any]:
        """A question about images and clips of video files; the errors of `Codec.store` when it cannot be put."""
        ...

    def answers(
        self, prompts: Sequence[tuple[Example, Any]], options: GenerationOptions, on_text: OnText | None = None
    ) -> list[Generation]:
        """The answers to prompts, as one batch, in their order; `on_text` is told of each as it grows."""
        ...

    def likelihoods(self, prompts: Sequence[tuple[Example, Any]], answers: Sequence[str]) -> list[tuple[float, bool]]:
        """Of each prompt's given answer the mean loss of its tokens, in nats, and whether it is the likeliest answer.

        ValueError when an answer has no token, or does not fit.
        """
        ...


class Start(Protocol):
    """What a training starts from: `random` or a place of weights, what is put before them, and what is said of the model."""

    @property
    def init(self) -> str: ...
    @property
    def tower(self) -> str | None: ...
    @property
    def seed(self) -> int: ...
    @property
    def tokenizer(self) -> str | None: ...
    @property
    def architecture(self) -> Mapping[str, Any]: ...


class SettingsPart(Protocol):
    """`Architecture` is the dataclass; `parameters` is about how many weights a model has."""

    Architecture: type
    MODEL_TYPES: Collection[str]  # in a `config.json` that others wrote
    NEEDS_TOKENIZER: bool  # whether random weights need a file of one
    parameters: Callable[[Any], int]


class CodecPart(Protocol):
    """`smallest` is the length of a record with one picture, by a tokenizer's file."""

    FILES: Sequence[str]  # of a model directory: what its codec depends on
    open_codec: Callable[[Path, Any, int | None], Codec]
    smallest: Callable[[Any, Path, Record], int]


class ModelPart(Protocol):
    """`build` makes a model on a device, without numbers; `cost` is that of a step of it."""

    build: Callable[[Any, torch.device | str], nn.Module]
    cost: Callable[[nn.Module], StepCost]


class CollatorPart(Protocol):
    """What makes a model's batches."""

    open_collator: Callable[[Any], Collator]


class DirectoryPart(Protocol):
    """Model directories. Errors about what users give are ValueErrors; a StartError says the whole."""

    LAYOUTS: Sequence[str]
    LICENCE: str  # a sentence on the published weights, which ends with a new line
    open_base: Callable[[Start], ModelDirectory]
    write_companions: Callable[[ModelDirectory, Path], None]
    card: Callable[[Any], Mapping[str, str]]
    assembled: Callable[[str, Path, Mapping[str, Any]], ModelDirectory]
    read_directory: Callable[[Path], ModelDirectory]
    write_directory: Callable[[ModelDirectory, Path, str, int], list[str]]


class AnswerPart(Protocol):
    """`Answerer` opens a model directory."""

    HARNESS_NAME: str  # as lmms-eval's tasks know the family, some of which have prompts for a model

    Answerer: Callable[[Path], Answerer]


class StartError(ValueError):
    """What a model is started from does not fit; the message names the key or file."""


@cache
def families() -> dict[str, str]:
    """The package of each family, by the family's name."""
    found = {entry.name: entry.value for entry in importlib.metadata.entry_points(group=GROUP)}
    return {**found, **FAMILIES}


def package(family: str) -> str:
    """The package of a family. UnknownFamily names those that there are."""
    known = FAMILIES if family in FAMILIES else families()
    if family not in known:
        raise UnknownFamily(f"no family is called {family!r}; there are {', '.join(known)}")
    return known[family]


def modules(family: str, parts: Iterable[Part]) -> list[str]:
    """The names of the modules of some parts of a family."""
    return [f"{package(family)}.{name}" for name in parts]


@overload
def part(family: str, name: Literal["settings"]) -> SettingsPart: ...
@overload
def part(family: str, name: Literal["codec"]) -> CodecPart: ...
@overload
def part(family: str, name: Literal["collator"]) -> CollatorPart: ...
@overload
def part(family: str, name: Literal["model"]) -> ModelPart: ...
@overload
def part(family: str, name: Literal["directory"]) -> DirectoryPart: ...
@overload
def part(family: str, name: Literal["answer"]) -> AnswerPart: ...
def part(family: str, name: Part) -> Any:
    """The module of a family for one of its parts. UnknownFamily when there is no such family."""
    return cast(Any, importlib.import_module(f"{package(family)}.{name}"))
