"""Where a model lies as a local directory: a path as it is, `owner/name@commit` downloaded once from the Hugging Face hub.

A hub id needs its full commit, so that the same command means the same weights tomorrow.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

HUB_ID = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w.-]+)(@(?P<revision>[\w./-]*))?")
COMMIT = re.compile(r"[0-9a-f]{40}")
COMPANIONS = ["*.json", "*.jinja", "tokenizer*"]
WEIGHTS = ["*.safetensors"]
ORIGINAL = "original/*"


class HubError(ValueError):
    """A place that is neither a directory nor a repository that can be had; the message says what to do."""


def local_directory(place: str | Path) -> Path:
    """The directory that a path or a hub id names; HubError when it is not there, not pinned or cannot be downloaded."""
    if Path(place).exists():
        return Path(place)
    return download(*pinned(place))


def dataset_directory(place: str | Path, wanted: str) -> Path:
    """The same of a data set, of which only the files are downloaded whose path matches `wanted`."""
    if Path(place).exists():
        return Path(place)
    repo, revision = pinned(place, "datasets/")
    with one_line(repo, revision):
        return fetch(repo, revision, [wanted], [], "dataset")


def pinned(place: str | Path, kind: str = "") -> tuple[str, str]:
    """Repository and commit of a hub id; HubError when it is none, or lacks the commit."""
    match = HUB_ID.fullmatch(str(place))
    if match is None:
        raise HubError(f"{place}: no such directory")
    repo, revision = match["repo"], match["revision"]
    if revision is None or not COMMIT.fullmatch(revision):
        raise HubError(
            f"{place}: no such directory; for the Hugging Face hub give the full commit, {repo}@<40 hexadecimal digits>, "
            f"which https://huggingface.co/{kind}{repo}/commits/main lists"
        )
    return repo, revision


def download(repo: str, revision: str) -> Path:
    """One commit of a repository, without the half that is not needed: the Hugging Face layout, or else `original/`."""
    with one_line(repo, revision):
        path = fetch(repo, revision, COMPANIONS + WEIGHTS, [ORIGINAL])
        if not any(path.glob("*.safetensors")):
            path = fetch(repo, revision, [ORIGINAL], [])
        return path


@contextlib.contextmanager
def one_line(repo: str, revision: str) -> Iterator[None]:
    """Whatever goes wrong inside becomes a HubError that says what to do."""
    try:
        yield
    except Exception as error:  # errors of the hub, of HTTP and of the disk; each has a first line that says it
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise HubError(
            f"{repo}@{revision}: cannot download it ({reason}); check the network and access to the repository, "
            f"or give a local directory"
        ) from error


def fetch(repo: str, revision: str, wanted: list[str], unwanted: list[str], kind: str = "model") -> Path:
    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(repo, revision=revision, allow_patterns=wanted, ignore_patterns=unwanted, repo_type=kind)
    )
