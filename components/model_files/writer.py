"""The files of a checkpoint directory as an artifact: tensors streamed in, with config, tokenizer, model card and notice."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.artifacts.artifact import ArtifactWriter

if TYPE_CHECKING:
    from torch import Tensor

    from plm_model.config import PLMConfig
    from plm_model.tokenizer import Tokenizer

WEIGHTS = "model.safetensors"
PIECE_BYTES = 16 << 20
NOTICE = """\
The weights in this directory are not covered by the licence of the software that wrote them.

Weights that were trained from a random start belong to whoever trained them, within the terms of the training data.
Weights that were started from a published model keep that model's licence. The released PLM checkpoints and the NXTP
checkpoints are for non-commercial research only, and so is every model that is trained from them.
"""
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
    out: ArtifactWriter, config: PLMConfig, tokenizer: Tokenizer, name: str, summary: str, facts: Mapping[str, Any]
) -> None:
    """Write all of a checkpoint directory but the tensors: configs, tokenizer, model card and licence notice."""
    from plm_model.weights import save_companions

    with tempfile.TemporaryDirectory() as folder:
        save_companions(config, tokenizer, folder)
        Path(folder, "README.md").write_text(model_card(config, name, summary, facts), encoding="utf-8")
        Path(folder, "LICENSE-NOTICE").write_text(NOTICE, encoding="utf-8")
        out.add_tree(folder)


def model_card(config: PLMConfig, name: str, summary: str, facts: Mapping[str, Any]) -> str:
    """What the model is, in Markdown; `facts` are further rows of its table."""
    vision, decoder = config.vision, config.decoder
    rows = {
        "Vision tower": f"{vision.layers} layers of width {vision.width}, tiles of {vision.image_size} pixels",
        "Decoder": f"{decoder.layers} layers of width {decoder.dim}, {decoder.vocab_size:,} tokens",
        "Tiles per image": f"at most {config.processor.max_num_tiles}, {config.tokens_per_tile} tokens each",
        **facts,
    }
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    return CARD.format(name=name, summary=summary, rows=table)


def write_tensors(out: ArtifactWriter, entries: Mapping[str, Any], data: Iterable[Iterable[Any]]) -> None:
    """Stream `model.safetensors`: `entries` gives (dtype, shape) by name, `data` the bytes of each in the same order."""
    from plm_model.safetensors_writer import header

    with out.open(WEIGHTS) as file:
        file.write(header(entries))
        for tensor in data:
            for piece in tensor:
                file.write(piece)


def raw_bytes(tensor: Tensor) -> memoryview:
    """The numbers of a CPU tensor in row-major order, as they lie in memory."""
    import torch

    return tensor.contiguous().flatten().view(torch.uint8).numpy().data


def pieces(data: memoryview) -> Iterator[memoryview]:
    """The same bytes, at most PIECE_BYTES at a time."""
    for start in range(0, len(data), PIECE_BYTES):
        yield data[start : start + PIECE_BYTES]
