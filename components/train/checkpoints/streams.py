"""The tensors of a sharded checkpoint as streams of bytes, so that one larger than memory can pass through.

Every rank's part of a tensor is stored like a file of `torch.save`: a zip archive, uncompressed, whose record `data/0` holds
the numbers row by row. Parts that cut a tensor along its rows, as FSDP2 does, come out in order; any other cut is put
together in memory by the library.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint import state_dict_loader
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, TensorStorageMetadata

from components.artifacts.files import filesystem
from components.model_files.writer import PIECE_BYTES, pieces, raw_bytes
from components.train.checkpoints.storage import Reader, quiet, read_metadata


class StoredTensors:
    """Tensors of the checkpoint in a folder whose names start with `prefix`, by the rest of their names."""

    def __init__(self, folder: str, prefix: str) -> None:
        self.folder, self.prefix = folder, prefix
        self.fs, self.path = filesystem(folder)
        self.metadata = read_metadata(folder)
        found = self.metadata.state_dict_metadata.items()
        tensors = {name: entry for name, entry in found if isinstance(entry, TensorStorageMetadata)}
        self._entries = {n.removeprefix(prefix): e for n, e in tensors.items() if n.startswith(prefix)}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(entry.size) for name, entry in self._entries.items()}

    def dtype(self, name: str) -> torch.dtype:
        return self._entries[name].properties.dtype

    def size(self, name: str) -> int:
        """Bytes of a tensor."""
        return self._entries[name].size.numel() * self.dtype(name).itemsize

    def load(self, names: Mapping[str, Any] | list[str]) -> dict[str, Tensor]:
        """Whole tensors, read by the library: for small ones, and for what was not cut along rows."""
        tensors = {self.prefix + n: torch.empty(self._entries[n].size, dtype=self.dtype(n)) for n in names}
        with quiet():
            state_dict_loader.load(tensors, storage_reader=Reader(self.folder), no_dist=True)
        return {name.removeprefix(self.prefix): tensor for name, tensor in tensors.items()}

    def stream(self, name: str) -> Iterator[memoryview]:
        """The numbers of a tensor in row-major order, at most PIECE_BYTES at a time."""
        chunks = sorted(self._entries[name].chunks, key=lambda chunk: tuple(chunk.offsets))
        stored = [self._archive(name, chunk) for chunk in chunks]
        if not cut_along_rows(chunks, self._entries[name].size) or not all(map(is_plain, stored, chunks)):
            yield from pieces(raw_bytes(self.load([name])[name]))
            return
        for part in stored:
            with zipfile.ZipFile(part) as archive, archive.open(record_name(archive)) as record:
                while piece := record.read(PIECE_BYTES):
                    yield memoryview(piece)

    def _archive(self, name: str, chunk: ChunkStorageMetadata) -> Section:
        place = self.metadata.storage_data[MetadataIndex(self.prefix + name, chunk.offsets)]
        return Section(self.fs, f"{self.path}/{place.relative_path}", place.offset, place.length)


def cut_along_rows(chunks: list[ChunkStorageMetadata], size: torch.Size) -> bool:
    """Whether parts laid end to end are the tensor: each has every column, and starts where the one before ends."""
    row = 0
    for chunk in chunks:
        if len(size) and (any(chunk.offsets[1:]) or chunk.sizes[1:] != size[1:] or chunk.offsets[0] != row):
            return False
        row += chunk.sizes[0] if len(size) else 0
    return row == (size[0] if len(size) else 0) and bool(chunks)


def is_plain(archive: Section, chunk: ChunkStorageMetadata) -> bool:
    """Whether the stored bytes are the part's numbers in row-major order and nothing else. Reads no number."""
    tensor: Tensor = torch.load(archive, map_location="meta", weights_only=True)  # type: ignore[arg-type]  # a raw file
    archive.seek(0)
    whole_storage = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor.shape == chunk.sizes and tensor.is_contiguous() and whole_storage


def record_name(archive: zipfile.ZipFile) -> str:
    return next(name for name in archive.namelist() if name.endswith("/data/0"))


class Section(io.RawIOBase):
    """A part of a file as a file of its own, for reading."""

    def __init__(self, fs: Any, path: str, offset: int, length: int) -> None:
        self._file = fs.open(path, "rb")
        self._offset, self._length, self._at = offset, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, to: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence]
        self._at = max(base + to, 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = max(min(len(buffer), self._length - self._at), 0)
        self._file.seek(self._offset + self._at)
        data = self._file.read(count)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
