"""The base model that training starts from, as a model directory of our own layout, whatever `model.init` names.

Weights are streamed a tensor at a time, in the dtypes that they have; memory stays at one tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from components.artifacts.artifact import Artifact, ArtifactWriter, require_sound
from components.artifacts.context import StepContext
from components.base.opened import open_base
from components.base.settings import ModelConfig
from components.model_files.writer import pieces, raw_bytes, write_companions, write_tensors
from plm_model.family import RANDOM

if TYPE_CHECKING:
    from plm_model.model_directory.opened import ModelDirectory


def run(settings: ModelConfig, inputs: Mapping[str, Artifact], out: ArtifactWriter, context: StepContext) -> None:
    """Write a model directory. Raises UserError for weights, a tokenizer or settings that do not fit each other."""
    from plm_model.model_directory.safetensors_writer import SHARD_BYTES

    context.progress(f"opening {settings.init}")
    require_sound(settings.init)
    opened = open_base(settings)
    for note in opened.notes:
        context.progress(note)
    sizes = [stored.dtype.itemsize * _numbers(stored.shape) for stored in opened.tensors.values()]
    out.counts |= {
        "parameters": sum(_numbers(stored.shape) for stored in opened.tensors.values()),
        "tensors": len(sizes),
        "bytes": sum(sizes),
    }
    write_tensors(
        out,
        {name: (stored.dtype, stored.shape) for name, stored in opened.tensors.items()},
        stream(opened, sum(sizes), context),
        SHARD_BYTES,
    )
    facts = {"Parameters": f"{out.counts['parameters']:,}"}
    write_companions(out, settings.family, opened, "Base model", summary(settings), facts)


def stream(opened: ModelDirectory, total: int, context: StepContext) -> Iterator[Iterator[memoryview]]:
    """The bytes of every tensor, in the model's order; says after each how far it is."""
    done = 0
    for _, tensor in opened.stream():
        yield pieces(raw_bytes(tensor))
        done += tensor.nbytes
        context.progress(f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB")


def summary(model: ModelConfig) -> str:
    """The model card's sentence on where the weights come from."""
    if model.init == RANDOM:
        return f"A model with random weights (seed {model.seed}): the start of a training, not of use by itself."
    place = Path(model.init).name if Path(model.init).exists() else model.init
    tower = f" and of the vision tower `{Path(model.tower).name}`" if model.tower else ""
    return f"The weights of `{place}`{tower}: the start of a training."


def _numbers(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
