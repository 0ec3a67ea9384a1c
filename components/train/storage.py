"""Where sharded checkpoints are written and read: a local folder or an object store, and nothing but data is unpickled."""

from __future__ import annotations

import contextlib
import logging
import pickle
import warnings
from collections.abc import Iterator
from typing import Any

import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import StorageReader, StorageWriter
from torch.distributed.checkpoint._fsspec_filesystem import FileSystem, FsspecWriter

from components.artifacts import filesystem

METADATA = ".metadata"


class UnsafeCheckpoint(ValueError):
    """The metadata of a checkpoint names something else than the classes that describe tensors."""


DESCRIPTIONS = (
    "Metadata MetadataIndex TensorStorageMetadata BytesStorageMetadata TensorProperties ChunkStorageMetadata StorageMeta "
    "_MEM_FORMAT_ENCODING"
)
DTYPES = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool"
ALLOWED = {
    "torch.distributed.checkpoint.metadata": DESCRIPTIONS.split(),
    "torch.distributed.checkpoint.filesystem": ["_StorageInfo"],
    "torch.serialization": ["_get_layout"],
    "torch": ["Size", *DTYPES.split()],
    "pathlib": ["Path", "PosixPath"],
    "pathlib._local": ["Path", "PosixPath"],  # where Python 3.13 keeps them
}


class MetadataUnpickler(pickle.Unpickler):
    """Reads a checkpoint's metadata, which may only consist of the classes that the library describes tensors with."""

    def find_class(self, module: str, name: str) -> Any:
        if name not in ALLOWED.get(module, ()):
            raise UnsafeCheckpoint(
                f"{METADATA} of a checkpoint refers to {module}.{name}; it was not written by training"
            )
        return super().find_class(module, name)


def read_metadata(folder: str) -> dcp.Metadata:
    """The table of a checkpoint: which tensor has which shape and lies where. Raises UnsafeCheckpoint."""
    fs, path = filesystem(folder)
    with fs.open(f"{path}/{METADATA}", "rb") as file:
        metadata = MetadataUnpickler(file).load()
    metadata.storage_meta = metadata.storage_meta or dcp.metadata.StorageMeta()
    return metadata


class Reader(dcp.FileSystemReader):
    """Reads the needed parts of a checkpoint, without fetching it whole."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.folder = folder
        if "://" in folder:
            self.fs = FileSystem()
            self.path = self.fs.init_path(folder, use_listings_cache=False)

    def read_metadata(self, *args: Any, **kwargs: Any) -> dcp.Metadata:
        return read_metadata(self.folder)


def writer(folder: str) -> StorageWriter:
    """Writes one file per rank, flushed to the disk; the metadata is put in place last, at once."""
    if "://" in folder:
        return FsspecWriter(folder, sync_files=False, use_listings_cache=False)
    return dcp.FileSystemWriter(folder)


def reader(folder: str) -> StorageReader:
    return Reader(folder)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the library's remarks that a single process saves alone."""
    logger = logging.getLogger("torch.distributed.checkpoint")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)
