"""The base model that training starts from: fresh weights from a seed, or a copy of a local checkpoint directory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.artifacts import Artifact, ArtifactWriter
from components.checkpoint_directory import raw_bytes, write_companions, write_tensors
from components.config import PipelineConfig
from components.context import StepContext
from components.errors import UserError

if TYPE_CHECKING:
    from plm_model.config import PLMConfig
    from plm_model.tokenizer import Tokenizer


def run(config: PipelineConfig, inputs: Mapping[str, Artifact], out: ArtifactWriter, context: StepContext) -> None:
    """Write a checkpoint directory. Raises UserError for a tokenizer or a checkpoint that does not fit the config."""
    model = config.model
    if model.init == "random":
        tokenizer = read_tokenizer(model.tokenizer, model.architecture)
        context.progress(f"fresh weights, seed {model.seed}")
        out.counts["parameters"] = write_fresh_weights(model.architecture, model.seed, out)
        summary = f"A model with random weights (seed {model.seed}): the start of a training, not of use by itself."
    else:
        folder = checkpoint_folder(model.init)
        tokenizer = read_tokenizer(str(folder), model.architecture)
        require_same_model(config, folder, tokenizer)
        context.progress(f"copying {folder}")
        out.counts["parameters"] = copy_weights(folder, out)
        summary = f"A copy of the checkpoint `{folder.name}`: the start of a training."
    facts = {"Parameters": f"{out.counts['parameters']:,}"}
    write_companions(out, model.architecture, tokenizer, f"{config.name} (base)", summary, facts)


def read_tokenizer(path: str | None, config: PLMConfig) -> Tokenizer:
    """The tokenizer of a file or folder, checked against the model. Raises UserError."""
    from plm_model.codec import Codec
    from plm_model.tokenizer import Tokenizer

    if path is None:
        raise UserError("model.tokenizer is not set: give the path of a tokenizer.json, or a checkpoint as model.init")
    try:
        return Codec(Tokenizer.from_file(path), config).tokenizer
    except ValueError as error:
        raise UserError(f"model.tokenizer: {error}") from None


def write_fresh_weights(config: PLMConfig, seed: int, out: ArtifactWriter) -> int:
    """Write the weights of a seed, one tensor in memory at a time; returns how many numbers they are."""
    import torch

    from plm_model.weights import entries_of, initial, seed_of

    entries = entries_of(config, torch.float32)

    def data() -> Iterator[list[Any]]:
        for name, (_, shape) in entries.items():
            generator = torch.Generator().manual_seed(seed_of(seed, name))
            yield [raw_bytes(initial(name, torch.Size(shape), config, generator))]

    write_tensors(out, entries, data())
    return sum(torch.Size(shape).numel() for _, shape in entries.values())


def checkpoint_folder(init: str) -> Path:
    """The local folder that `model.init` names. Raises UserError."""
    if Path(init).is_dir():
        return Path(init)
    if init.count("/") == 1 and not init.startswith((".", "/", "~")):
        raise UserError(
            f"model.init {init}: loading a hub id is not supported yet; give a local checkpoint directory, or `random`"
        )
    raise UserError(f"model.init {init}: no such directory; give a local checkpoint directory, or `random`")


def require_same_model(config: PipelineConfig, folder: Path, tokenizer: Tokenizer) -> None:
    """UserError unless the checkpoint is whole, and is of the architecture and tokenizer that the config names."""
    from plm_model.tokenizer import Tokenizer
    from plm_model.weights import WeightsError, build, load_config, require_same, tensor_files

    try:
        found = load_config(folder)
        require_same(build(found).state_dict(), tensor_files(folder), folder)
    except WeightsError as error:
        raise UserError(f"model.init: {error}") from None
    if differing := difference(asdict(found), asdict(config.model.architecture), "model.architecture"):
        raise UserError(f"model.init {folder}: {differing}; set the config to what the checkpoint has")
    named = config.model.tokenizer
    if named is not None and Tokenizer.from_file(named).bytes_digest != tokenizer.bytes_digest:
        raise UserError(f"model.tokenizer {named} is not the tokenizer of the checkpoint {folder}")


def difference(found: Mapping[str, Any], wanted: Mapping[str, Any], where: str) -> str | None:
    """The first key whose values differ, in words."""
    for key, value in wanted.items():
        if isinstance(value, Mapping) and isinstance(found[key], Mapping):
            if inner := difference(found[key], value, f"{where}.{key}"):
                return inner
        elif value != found[key]:
            return f"{where}.{key} is {value!r}, the checkpoint's is {found[key]!r}"
    return None


def copy_weights(folder: Path, out: ArtifactWriter) -> int:
    """Copy the files of tensors, and their index if there are several; returns how many numbers they hold."""
    import torch

    from plm_model.weights import INDEX, build, load_config, tensor_files

    for file in sorted(set(tensor_files(folder).values())):
        out.add_file(folder / file, file)
    if (folder / INDEX).exists():
        out.add_file(folder / INDEX, INDEX)
    return sum(torch.Size(p.shape).numel() for p in build(load_config(folder)).state_dict().values())
