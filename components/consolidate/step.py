"""A sharded training checkpoint becomes a model directory, streamed: memory stays at some tens of megabytes.

The checkpoint's files are compared with their recorded sums first. Then the written file is read back and every tensor
compared with the checkpoint, bit by bit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from components.artifacts.artifact import Artifact, ArtifactWriter
from components.artifacts.context import StepContext
from components.consolidate.settings import ConsolidateSettings
from components.model_files.settings import model_of
from components.model_files.writer import copy_companions, pieces, raw_bytes, write_tensors

if TYPE_CHECKING:
    from components.consolidate.weights import TrainedWeights

PREFIXES = {"trained": "model.", "average": "ema."}
GROUP_BYTES = 64 << 20


def run(
    settings: ConsolidateSettings, inputs: Mapping[str, Artifact], out: ArtifactWriter, context: StepContext
) -> None:
    """Write the trained model as a model directory. Raises UserError when the checkpoint is not of the base model."""
    from components.consolidate.weights import TrainedWeights
    from components.train.checkpoints.streams import StoredTensors

    checkpoint, base = inputs["checkpoint"], inputs["base"]
    checkpoint.require_stored(rel for rel in checkpoint.files if rel.startswith("checkpoint/"))
    stored = StoredTensors(f"{checkpoint.uri}/checkpoint", PREFIXES[settings.consolidate.weights])
    tensors = TrainedWeights(model_of(base), settings.train, stored, base.local)
    names = tensors.names
    entries = {name: (tensors.dtype(name), tensors.shape(name)) for name in names}
    size = sum(map(tensors.size, names))
    context.progress(f"writing {size / 1e6:,.0f} MB")
    shard_bytes = int(settings.consolidate.max_shard_gb * 1e9)
    files = write_tensors(out, entries, map(tensors.stream, names), shard_bytes)
    context.progress("comparing with the checkpoint")
    for file, part in files.items():
        compare(out, file, tensors, list(part))
    state = checkpoint.read_json("train_state.json")
    facts = {"Training": f"{state['step']:,} steps, {state['tokens']:,} tokens, loss {state['loss']}"}
    summary = "A vision-language model fine-tuned by PLM Pipeline."
    copy_companions(out, base, "Fine-tuned model", summary, {**facts, "Checkpoint": f"`{checkpoint.digest[:16]}`"})
    out.counts |= {"tensors": len(names), "bytes": size}


def compare(out: ArtifactWriter, file_name: str, tensors: TrainedWeights, names: list[str]) -> None:
    """Read a written file again. Raises RuntimeError naming the first tensor that is not the checkpoint's.

    Small tensors are taken from the checkpoint by the library's own reader, not by the one that wrote the file.
    """
    with out.fs.open(f"{out.path}/{file_name}", "rb") as file:
        table = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        start = file.tell()
        for name, data in expected(tensors, names):
            begin, end = table[name]["data_offsets"]
            file.seek(start + begin)
            same = all(file.read(len(piece)) == piece for piece in data)
            if not same or file.tell() != start + end:
                raise RuntimeError(f"{out.uri}/{file_name}: tensor {name} is not what the checkpoint holds")


def expected(tensors: TrainedWeights, names: list[str]) -> Iterator[tuple[str, Iterator[memoryview]]]:
    """Each tensor's bytes as the checkpoint has them."""
    for group in groups(tensors, names):
        if tensors.size(group[0]) > GROUP_BYTES:
            yield group[0], tensors.stream(group[0])
            continue
        for name, tensor in tensors.load(group).items():
            yield name, pieces(raw_bytes(tensor))


def groups(tensors: TrainedWeights, names: list[str]) -> Iterator[list[str]]:
    """Names in runs of at most GROUP_BYTES together; a larger tensor is alone."""
    group: list[str] = []
    for name in names:
        if group and sum(map(tensors.size, [*group, name])) > GROUP_BYTES:
            yield group
            group = []
        group.append(name)
    if group:
        yield group
