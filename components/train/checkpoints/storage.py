"""Where sharded checkpoints are written, checked and read: a folder or an object store. Nothing but data is unpickled."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import warnings
import zlib
from collections.abc import Iterator
from typing import IO, Any

from torch.distributed.checkpoint._fsspec_filesystem import FileSystem, FsspecWriter
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta

from components.artifacts.files import filesystem
from components.train.checkpoints.sums import METADATA as METADATA
from components.train.checkpoints.sums import READ_BYTES, UNPUBLISHED
from components.train.checkpoints.sums import FileRecords as FileRecords


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


def read_metadata(folder: str) -> Metadata:
    """The table of a checkpoint: which tensor has which shape and lies where. Raises UnsafeCheckpoint."""
    fs, path = filesystem(folder)
    with fs.open(f"{path}/{METADATA}", "rb") as file:
        metadata: Metadata = MetadataUnpickler(file).load()
    for place in (metadata.storage_data or {}).values():
        if place.relative_path != os.path.basename(place.relative_path):
            raise UnsafeCheckpoint(f"{METADATA} of a checkpoint names the file {place.relative_path!r}, outside of it")
    metadata.storage_meta = metadata.storage_meta or StorageMeta()
    return metadata


class Reader(FileSystemReader):
    """Reads the needed parts of a checkpoint, without fetching it whole."""

    fs: Any  # of either kind, which share no class

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.folder = folder
        if "://" in folder:
            self.fs, self.path = FileSystem(), folder
            self.fs.fs = filesystem(folder)[0]

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        return read_metadata(self.folder)


class Writer(FsspecWriter):
    """Writes one file per rank, flushed to the disk, and keeps `records` of them; the metadata is left to be published."""

    fs: Any

    def __init__(self, folder: str) -> None:
        remote = "://" in folder
        # The tensors are in the CPU's memory. With an own stream to copy them, the library would wait for the training's.
        super().__init__(folder, sync_files=not remote, per_thread_copy_ahead=0)
        self.fs.fs = filesystem(folder)[0]
        self.records: FileRecords = {}
        self.fs = RecordingFileSystem(self.fs, self.records)

    def storage_meta(self) -> StorageMeta:
        return StorageMeta()  # without the place and the random id: equal trainings write equal bytes

    def _get_metadata_path(self, rank: int | None = None) -> str:  # type: ignore[override]  # what the library returns here
        return f"{self.path}/{UNPUBLISHED}"


class RecordingFileSystem(FileSystem):
    """Notes size and checksum of every file of tensors that goes through it."""

    def __init__(self, inner: FileSystem, records: FileRecords) -> None:
        self.fs = inner.fs
        self._records = records

    @contextlib.contextmanager
    def create_stream(self, path: str | os.PathLike[str], mode: str) -> Iterator[Any]:
        with super().create_stream(path, mode) as raw:
            stream = ChecksummedStream(raw)
            try:
                yield stream
            except Exception:
                if stream.error is not None:  # the serializer below reports a failed write as a wrong position
                    raise stream.error from None
                raise
        if os.fspath(path).endswith(".distcp"):
            self._records[os.path.basename(path)] = {"size": stream.size, "crc32": stream.crc32}


class ChecksummedStream:
    """A file for writing from start to end, with the size and the checksum of what went into it."""

    def __init__(self, raw: Any) -> None:
        self._raw: IO[bytes] = raw
        self.size, self.crc32 = 0, 0
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data)
        try:
            self._raw.write(view)
        except OSError as error:
            self.error = self.error or error
            raise
        self.crc32 = zlib.crc32(view, self.crc32)
        self.size += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        self._raw.flush()

    def fileno(self) -> int:
        return self._raw.fileno()

    def close(self) -> None:
        self._raw.close()


def different(folder: str, records: FileRecords) -> str | None:
    """What is wrong with a file that was just written, if anything. On a local disk every byte is read again."""
    fs, path = filesystem(folder)
    for name, record in records.items():
        size = fs.info(f"{path}/{name}")["size"]
        if size != record["size"]:
            return f"{name} has {size:,} bytes, {record['size']:,} were written"
        if "://" not in folder and checksum(f"{path}/{name}") != record["crc32"]:
            return f"{name} reads back with other contents than were written"
    return None


def checksum(path: str) -> int:
    """CRC-32 of a local file."""
    found = 0
    with open(path, "rb") as file:
        while chunk := file.read(READ_BYTES):
            found = zlib.crc32(chunk, found)
    return found


def publish(folder: str) -> None:
    """Make a checkpoint whole: its metadata gets its name, at once."""
    fs, path = filesystem(folder)
    fs.mv(f"{path}/{UNPUBLISHED}", f"{path}/{METADATA}")
    if "://" not in folder:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # the new name survives a loss of power
        finally:
            os.close(descriptor)


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
