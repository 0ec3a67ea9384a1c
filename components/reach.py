"""Which files and addresses a config may draw on: those around itself, and storages; never the rest of the machine.

A config can come from somebody else, and a flow run's parameters from whoever reaches Prefect: `extends: /etc/shadow` must
not be read to them, nor `extends: http://…` be opened for them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from components.errors import ConfigError

STORAGES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"})
SHIPPED = Path(__file__).resolve().parent.parent / "configs"


@dataclass(frozen=True)
class Reach:
    """What a config may draw on.

    folders: local folders, each with what is below it.
    schemes: of the storages. That of a config's own `storage.root` is added where it is read.
    of_parameters: whether others say what is changed; then it holds for every file that they name to be read as settings.
    """

    folders: tuple[Path, ...]
    schemes: frozenset[str] = frozenset({"s3"})
    of_parameters: bool = False

    def check(self, uri: str, named_by: str) -> None:
        """Raise ConfigError, one line, for a file or an address that is out of reach. `named_by`: where it stands."""
        scheme = scheme_of(uri)
        if scheme and scheme not in self.schemes:
            raise ConfigError(
                f"{named_by}: {uri}: {scheme}:// is not read for a config; it comes from a file, from s3:// or from the "
                "storage of storage.root"
            )
        if not scheme and not self._holds(local_path(uri)):
            raise ConfigError(
                f"{named_by}: {uri}: lies outside of {' and '.join(map(str, dict.fromkeys(self.folders)))}; a config draws on "
                "files there, so copy it there or start above it"
            )

    def _holds(self, path: Path) -> bool:
        """Whether a path is below a folder, as it is written or as it is once links are followed."""
        real, written = path.resolve(), Path(os.path.normpath(path.absolute()))
        places = [real, *([written] if written.resolve() == real else [])]  # `..` behind a link leads elsewhere
        roots = [root for folder in self.folders for root in (folder, folder.resolve())]
        return any(place.is_relative_to(root) for place in places for root in roots)

    def with_storage_of(self, values: Mapping[str, Any]) -> Reach:
        """Also the kind of storage that these values keep their artifacts in."""
        storage = values.get("storage")
        root = storage.get("root") if isinstance(storage, Mapping) else None
        scheme = scheme_of(root) if isinstance(root, str) else ""
        return replace(self, schemes=self.schemes | ({scheme} & STORAGES))


def reach_of_command(uri: str) -> Reach:
    """Of a config that somebody named on the command line: the working folder, its own, the checkouts of both, and ours."""
    scheme = scheme_of(uri)
    folders = [Path.cwd(), *([] if scheme else [Path(os.path.normpath(local_path(uri).absolute())).parent])]
    checkouts = [above for folder in folders for above in (folder, *folder.parents) if (above / ".git").exists()]
    return Reach((*folders, *checkouts, SHIPPED), frozenset({"s3"}) | ({scheme} & STORAGES))


def reach_of_parameters() -> Reach:
    """Of a config that a flow run's parameters name: what is below the worker's folder."""
    return Reach((Path.cwd(),), of_parameters=True)


def scheme_of(uri: str) -> str:
    """`s3` of s3://…; nothing for a local file."""
    scheme = uri.partition("://")[0].lower() if "://" in uri else ""
    return "" if scheme == "file" else scheme


def local_path(uri: str) -> Path:
    """The path of a local file, given as such or as file://…"""
    return Path(uri.partition("://")[2] if "://" in uri else uri)
