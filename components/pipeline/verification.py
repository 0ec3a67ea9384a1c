"""All that was recorded below a storage root against what is there: the sums of artifacts and of resumable checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from components.artifacts.artifact import Artifact
from components.artifacts.files import filesystem
from components.artifacts.manifest import MANIFEST, BrokenManifest
from components.artifacts.store import ArtifactStore
from components.artifacts.sums import difference
from components.pipeline.config import PipelineConfig
from components.pipeline.last_run import last_key
from components.pipeline.steps import STEPS
from components.train.checkpoints.sums import METADATA, damage, read_records
from components.train.folder import TrainingFolder


@dataclass(frozen=True)
class Damaged:
    """A file that is not what was recorded of it."""

    uri: str
    reason: str


@dataclass
class Verified:
    """What was looked at, and what is wrong with it."""

    artifacts: int = 0
    checkpoints: int = 0
    files: int = 0
    bytes: int = 0
    damaged: list[Damaged] = field(default_factory=list)


def keys_below(store: ArtifactStore) -> Iterator[tuple[str, str]]:
    """(step, key) of everything below a root, keys as their folders are named."""
    for step in STEPS:
        keys = {*_names(store.uri("artifacts", step)), *_names(store.resume_uri(step))}
        yield from ((step, key) for key in sorted(keys))


def keys_of(config: PipelineConfig, store: ArtifactStore) -> list[tuple[str, str]]:
    """The same of what the last run of one pipeline used, or left to be resumed."""
    found = [key for step in STEPS if (key := last_key(config, store, step))]
    resumed = (STEPS[key.step].resumes(key) for key in found)
    return sorted({(key.step, key.digest[:20]) for key in (*found, *resumed)})


def verify(store: ArtifactStore, keys: Iterable[tuple[str, str]], say: Callable[[Damaged], None]) -> Verified:
    """Compare all sums; damaged files are said as they are found, and noted for the next run."""
    result = Verified()
    for step, key in keys:
        found = [*_artifact(store, step, key, result), *_checkpoints(store, step, key, result)]
        result.damaged += found
        for damaged in found:
            say(damaged)
    return result


def _artifact(store: ArtifactStore, step: str, key: str, result: Verified) -> Iterator[Damaged]:
    try:
        artifact = store.recorded(step, key)
    except BrokenManifest as error:
        yield Damaged(store.uri("artifacts", step, key, MANIFEST), str(error))
        return
    if artifact is None:  # an attempt that is being made, or was never committed
        return
    result.artifacts += 1
    result.files += len(artifact.files)
    result.bytes += sum(entry["size"] for entry in artifact.files.values())
    for name, link in artifact.links.items():
        if not store.leads(link):
            yield Damaged(f"{artifact.uri}: link {name}", f"leads to {link}, which is not there any more")
    path = f"{store.fs_path}/artifacts/{step}/{key}/{artifact.uri.rpartition('/')[2]}"
    with ThreadPoolExecutor(8) as pool:
        problems = pool.map(lambda rel: difference(f"{path}/{rel}", artifact.files[rel], store.fs), artifact.files)
        for rel, problem in zip(artifact.files, problems, strict=True):
            if problem:
                yield _noted(artifact, rel, problem)


def _noted(artifact: Artifact, rel: str, problem: str) -> Damaged:
    artifact.damaged(rel, problem)
    return Damaged(f"{artifact.uri}/{rel}", problem)


def _checkpoints(store: ArtifactStore, step: str, key: str, result: Verified) -> Iterator[Damaged]:
    folder = TrainingFolder(store.resume_uri(step, key)).checkpoints
    fs, path = filesystem(folder)
    for name in _names(folder):
        uri = f"{folder}/{name}"
        if not fs.exists(f"{path}/{name}/{METADATA}"):
            continue  # being written, or left by a crash: nobody takes it for whole
        records = read_records(uri)
        result.checkpoints += 1
        result.files += len(records)
        result.bytes += sum(record["size"] for record in records.values())
        if problem := damage(uri) if records else "holds no sums that can be read":
            yield Damaged(uri, problem)


def _names(folder: str) -> list[str]:
    """The folders in a folder."""
    fs, path = filesystem(folder)
    try:
        entries: list[Any] = fs.ls(path, detail=True)
    except FileNotFoundError:
        return []
    folders = (entry["name"] for entry in entries if entry["type"] == "directory")
    return sorted(name.rstrip("/").rpartition("/")[2] for name in folders)
