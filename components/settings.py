"""What the sections of the config are made of: bounded numbers, places, names. What cannot be is refused with its key."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Union

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

LARGEST = 2**31 - 1
LONGEST_NAME = 100  # characters: names become folders, lock files and page titles
REGISTERED = re.compile(r"[^/:]*[^/:.\s][^/:]*")  # as MLflow takes it
TASK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # is in the names of metrics, files and tags


def holds_credentials(uri: str) -> bool:
    """Whether a URI names a user before its host, or a password after it."""
    rest = uri.partition("://")[2]
    return "@" in rest.split("/")[0] or "password=" in rest.partition("?")[2]


def _without_credentials(uri: str | None) -> str | None:
    if uri and holds_credentials(uri):
        raise ValueError("holds credentials; leave them to the environment, a config is logged")
    return uri


def at_home(path: str) -> str:
    """`~` and `~user` at the beginning as the folders that they mean. ValueError where there is no such user."""
    if not path.startswith("~"):
        return path
    try:
        return str(Path(path).expanduser())
    except RuntimeError:
        raise ValueError("begins with `~`, but there is no home folder of that name; write the path out") from None


def _registered(name: str | None) -> str | None:
    if name is not None and not REGISTERED.fullmatch(name):
        raise ValueError("a model's name in MLflow has no `/` and no `:`, and not only dots; write team-model")
    return name


def _task(name: str) -> str:
    if not TASK.fullmatch(name):
        raise ValueError(
            "a task's name has letters, digits, `_`, `-` and `.` only: it is in the names of metrics and files"
        )
    return name


Uri = Annotated[str, AfterValidator(_without_credentials), AfterValidator(at_home)]
LocalPath = Annotated[str, Field(min_length=1), AfterValidator(at_home)]
ModelName = Annotated[str, Field(max_length=LONGEST_NAME), AfterValidator(_registered)]
TaskName = Annotated[str, Field(max_length=LONGEST_NAME), AfterValidator(_task)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveInt = Annotated[int, Field(gt=0, le=LARGEST)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Port = Annotated[int, Field(ge=1, le=65535)]
Seed = Annotated[int, Field(ge=0, lt=2**32, description="whole number from 0 to 4294967295")]


@dataclass(frozen=True)
class KeysOf:
    """Beside the type of a mapping: the types whose keys it may have, of which another setting chooses one."""

    types: Callable[[], Sequence[Any]]

    def __call__(self) -> Any:
        """One type that stands for all of them."""
        return Union[tuple(self.types())]  # noqa: UP007


class Settings(BaseModel):
    """A section of the config: frozen, and strict about unknown keys; no number may be infinite or none at all."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
