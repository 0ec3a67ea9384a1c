"""A safetensors file written tensor by tensor: the header first, from names, dtypes and shapes alone, then the data in order.

The file appears under its name when it is complete, never before.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import torch

Entries = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]

SHARD_BYTES = 5 * 10**9  # of data in a file, as `transformers` writes them
DTYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class WeightsError(ValueError):
    """Tensors that do not fit: a missing, extra, misshapen or unreadable one; the message names file and tensor."""


class SafetensorsWriter:
    """Writes the tensors of `entries` (name -> dtype and shape) in their order. Use it as a context manager.

    Leaving with an exception, or before every tensor came, leaves no file.
    """

    def __init__(self, path: str | Path, entries: Entries) -> None:
        self.path = Path(path)
        self.partial = self.path.with_name(self.path.name + ".partial")
        self.entries = dict(entries)
        self.waiting = iter(self.entries)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file = self.partial.open("wb")
        self.file.write(header(self.entries))

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Append the next tensor, converted to its announced dtype."""
        expected = next(self.waiting, None)
        if name != expected:
            raise WeightsError(
                f"{self.path}: tensor {name} came where {expected or 'the end of the file'} was announced"
            )
        dtype, shape = self.entries[name]
        if tuple(tensor.shape) != tuple(shape):
            raise WeightsError(
                f"{self.path}: tensor {name} has shape {tuple(tensor.shape)}, announced was {tuple(shape)}"
            )
        plain = tensor.detach().to(device="cpu", dtype=dtype).contiguous()
        self.file.write(plain.flatten().view(torch.uint8).numpy().data)

    def close(self) -> None:
        """Put the finished file in its place; WeightsError when tensors are still missing."""
        self.file.close()
        missing = next(self.waiting, None)
        if missing is not None:
            self.partial.unlink()
            raise WeightsError(f"{self.path}: tensor {missing} was announced and never written")
        self.partial.replace(self.path)

    def discard(self) -> None:
        """Drop what was written."""
        self.file.close()
        self.partial.unlink(missing_ok=True)

    def __enter__(self) -> SafetensorsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


def header(entries: Entries) -> bytes:
    """Length (8 bytes, little endian) and JSON of a file's header, padded so that the data starts at a multiple of 8."""
    table: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, (dtype, shape) in entries.items():
        end = start + size_in_bytes(dtype, shape)
        table[name] = {"dtype": DTYPE_NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def size_in_bytes(dtype: torch.dtype, shape: tuple[int, ...]) -> int:
    return dtype.itemsize * math.prod(shape)


def shard_files(
    entries: Entries, max_bytes: int, name: str
) -> dict[str, dict[str, tuple[torch.dtype, tuple[int, ...]]]]:
    """Which file holds which tensors: one file `name`, or `stem-00001-of-0000N.suffix` of at most `max_bytes` of data each.

    A tensor larger than that has a file of its own.
    """
    parts: list[dict[str, tuple[torch.dtype, tuple[int, ...]]]] = [{}]
    filled = 0
    for key, (dtype, shape) in entries.items():
        size = size_in_bytes(dtype, shape)
        if parts[-1] and filled + size > max_bytes:
            parts.append({})
            filled = 0
        parts[-1][key] = (dtype, shape)
        filled += size
    if len(parts) == 1:
        return {name: parts[0]}
    stem, suffix = name.rsplit(".", 1)
    return {f"{stem}-{i:05d}-of-{len(parts):05d}.{suffix}": part for i, part in enumerate(parts, start=1)}
