"""The files of a model directory as an artifact: tensors streamed in, with config, tokenizer, model card and notice."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.artifacts.artifact import Artifact, ArtifactWriter
from components.model_files.settings import model_of

if TYPE_CHECKING:
    from torch import Tensor

    from plm_model.model_directory.opened import ModelDirectory

README, LICENCE = "README.md", "LICENSE-NOTICE"
PIECE_BYTES = 16 << 20
NOTICE = """\
The weights in this directory are not covered by the licence of the software that wrote them.

Weights that were trained from a random start belong to whoever trained them, within the terms of the training data.
Weights that were started from a published model keep that model's licence. """
CARD = """\
---
library_name: plm-pipeline
pipeline_tag: image-text-to-text
license: other
license_name: see-license-notice
license_link: LICENSE-NOTICE
---
# {name}

{summary}

| | |
|---|---|
{rows}

Answer a question about an image:

    plm generate --ckpt . --media_type image --media_path picture.png --question "What is in this image?"

`LICENSE-NOTICE` says under which terms the weights may be used.
"""


def write_companions(
    out: ArtifactWriter, family: str, opened: ModelDirectory, name: str, summary: str, facts: Mapping[str, Any]
) -> None:
    """Write all of a model directory but the tensors: what its family has, model card and licence notice."""
    from plm_model.family import part

    with tempfile.TemporaryDirectory() as folder:
        part(family, "directory").write_companions(opened, Path(folder))
        write_card(Path(folder), family, opened.config, name, summary, facts)
        out.add_tree(folder)


def copy_companions(out: ArtifactWriter, base: Artifact, name: str, summary: str, facts: Mapping[str, Any]) -> None:
    """Write what the base model has beside its tensors, with a card and a notice of its own."""
    model = model_of(base)
    with tempfile.TemporaryDirectory() as folder:
        for file in (file for file in base.files if not of_tensors(file) and file not in (README, LICENCE)):
            place = Path(folder, file)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(base.local(file), place)
        write_card(Path(folder), model.family, model.architecture, name, summary, facts)
        out.add_tree(folder)


def of_tensors(file: str) -> bool:
    """Whether a file of a model directory holds tensors, or says which does."""
    return file.endswith((".safetensors", ".safetensors.index.json"))


def write_card(folder: Path, family: str, architecture: Any, name: str, summary: str, facts: Mapping[str, Any]) -> None:
    """Write the model card, in Markdown, and the notice; `facts` are further rows of the card's table."""
    from plm_model.family import part

    family_part = part(family, "directory")
    rows = {**family_part.card(architecture), **facts}
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    card = CARD.format(name=name, summary=summary, rows=table)
    (folder / README).write_text(card, encoding="utf-8")
    (folder / LICENCE).write_text(NOTICE + family_part.LICENCE, encoding="utf-8")


def write_tensors(
    out: ArtifactWriter, entries: Mapping[str, Any], data: Iterable[Iterable[Any]], max_shard_bytes: int
) -> Mapping[str, Mapping[str, Any]]:
    """Stream `model.safetensors`, or several files and their index: `entries` gives (dtype, shape) by name, `data` the bytes of
    each in the same order. Gives the entries of each file."""
    from plm_model.model_directory.files import INDEX, WEIGHTS, index_of
    from plm_model.model_directory.safetensors_writer import header, shard_files

    files = shard_files(entries, max_shard_bytes, WEIGHTS)
    stream = iter(data)
    for name, part in files.items():
        with out.open(name) as file:
            file.write(header(part))
            for tensor in itertools.islice(stream, len(part)):
                for piece in tensor:
                    file.write(piece)
    if len(files) > 1:
        out.write_json(INDEX, index_of(files))
    return files


def raw_bytes(tensor: Tensor) -> memoryview:
    """The numbers of a CPU tensor in row-major order, as they lie in memory."""
    import torch

    return tensor.contiguous().flatten().view(torch.uint8).numpy().data


def pieces(data: memoryview) -> Iterator[memoryview]:
    """The same bytes, at most PIECE_BYTES at a time."""
    for start in range(0, len(data), PIECE_BYTES):
        yield data[start : start + PIECE_BYTES]
