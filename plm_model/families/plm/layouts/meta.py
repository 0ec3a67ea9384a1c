"""Meta's release layout: `consolidated.pth` or its parts, `params.json`, `tokenizer.model`. Tensors have our names there.

The pickle is read with `weights_only` and mapped from disk, never loaded whole. A tied model's output is written as the release
has it: `output.tied_module.weight`, a second name for the embedding's one copy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from plm_model.families.plm.layouts.meta_params import params_json, read_params
from plm_model.families.plm.layouts.meta_tokenizer import RanksError, rank_file, tokenizer_json
from plm_model.families.plm.settings import untied
from plm_model.families.plm.tokenizer import FILE_NAME, Tokenizer
from plm_model.families.plm.weights import require_tokenizer_fits, shapes_of
from plm_model.model_directory.json_files import read_json
from plm_model.model_directory.opened import ModelDirectory, StoredTensor, exactly, same_numbers, write_json
from plm_model.model_directory.safetensors_writer import WeightsError

PARAMS = "params.json"
RANKS = "tokenizer.model"
WHOLE, PARTS = "consolidated.pth", "consolidated.[0-9][0-9].pth"
EMBEDDING, OUTPUT, TIED = "tok_embeddings.weight", "output.weight", "output.tied_module.weight"
IGNORED = ("rope.freqs", "rope_embeddings.freqs_cis")


def read_meta(directory: Path) -> ModelDirectory:
    """Open a release directory; WeightsError naming file, key or tensor when it is not whole."""
    stored = {name: tensor for name, tensor in stored_tensors(directory).items() if name not in IGNORED}
    embedding = stored.get(EMBEDDING)
    if embedding is None or len(embedding.shape) != 2:
        raise WeightsError(f"{directory}: tensor {EMBEDDING} is missing, or no matrix")
    params = read_json(directory / PARAMS)
    tokenizer = read_tokenizer(directory, embedding.shape[0])
    try:
        config, unknown = read_params(params, embedding.shape[0], tokenizer.image_id)
    except (TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise WeightsError(f"{directory / PARAMS}: {error}") from error
    require_tokenizer_fits(tokenizer, config)
    notes = [f"{directory / PARAMS}: fields kept but not used: {', '.join(unknown)}"] if unknown else []
    if config.decoder.tied and (head := stored.pop(TIED, None)) and not same_numbers(head, embedding):
        config, stored = untied(config), stored | {OUTPUT: head}
        notes.append(f"{directory / PARAMS}: {TIED} is not the embedding, though weight_tying is true: read as untied")
    return ModelDirectory(
        directory=directory,
        layout="meta",
        config=config,
        tokenizer=tokenizer,
        tensors=exactly(shapes_of(config), stored, directory),
        notes=tuple(notes),
        original_params=params,
    )


def stored_tensors(directory: Path) -> dict[str, StoredTensor]:
    """The tensors of `consolidated.pth`, or of its parts, of which each holds whole tensors."""
    whole = directory / WHOLE
    files = [whole] if whole.exists() else sorted(directory.glob(PARTS))
    if not files:
        raise WeightsError(f"{directory}: neither {WHOLE} nor parts consolidated.00.pth, ... are there")
    found: dict[str, StoredTensor] = {}
    for file in files:
        for name, tensor in mapped(file).items():
            if name in found:
                raise WeightsError(
                    f"{file}: tensor {name} is in {found[name].file.name} too; sliced tensors are not supported"
                )
            found[name] = StoredTensor(file, name, tensor.dtype, tuple(tensor.shape), partial(as_it_is, tensor))
    return found


def as_it_is(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def mapped(file: Path, wrappers: Sequence[str] = ("model",)) -> dict[str, torch.Tensor]:
    """The tensors of a `.pth`, plain or wrapped under one of those names, mapped from disk."""
    try:
        state = torch.load(file, mmap=True, weights_only=True, map_location="cpu")
    except Exception as error:  # pickle, zip and torch have errors of their own
        raise WeightsError(f"{file}: cannot read the tensors: {str(error).splitlines()[0]}") from error
    inner = [state[name] for name in wrappers if isinstance(state, Mapping) and isinstance(state.get(name), Mapping)]
    state = inner[0] if inner else state
    if not isinstance(state, Mapping):
        raise WeightsError(f"{file}: holds no tensors by name")
    for name, tensor in state.items():
        if not isinstance(tensor, torch.Tensor) or not isinstance(name, str):
            raise WeightsError(f"{file}: {name} is not a tensor under a name")
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
            raise WeightsError(f"{file}: tensor {name} is not plain numbers")
    return dict(state)


def read_tokenizer(directory: Path, vocab_size: int) -> Tokenizer:
    """The tokenizer of `tokenizer.model`, or of a `tokenizer.json` where no rank file could express it."""
    path = directory / RANKS
    if not path.exists() and (directory / FILE_NAME).exists():
        return Tokenizer.from_file(directory)
    try:
        return Tokenizer(tokenizer_json(path.read_bytes(), vocab_size), path)
    except OSError as error:
        raise WeightsError(f"{path}: cannot read the tokenizer: {error.strerror}") from error
    except RanksError as error:
        raise WeightsError(f"{path}: {error}") from error


def write_meta(opened: ModelDirectory, directory: Path) -> list[str]:
    """Write a model in this layout, in the tensors' own dtypes; returns notes on what could not be kept.

    What is mapped from disk is copied from there; only queries and keys coming from Hugging Face are held in memory.
    """
    directory.mkdir(parents=True, exist_ok=True)
    notes, tokenizer_file = write_tokenizer(opened.tokenizer, directory)
    params: dict[str, Any] = params_json(opened.config, opened.dtype, tokenizer_file, opened.original_params)
    write_json(directory / PARAMS, params)
    state = {name: tensor.contiguous() for name, tensor in opened.stream()}
    if opened.config.decoder.tied:
        state[TIED] = state[EMBEDDING]
    torch.save(state, directory / WHOLE)
    return notes


def write_tokenizer(tokenizer: Tokenizer, directory: Path) -> tuple[list[str], str]:
    """Write `tokenizer.model`, or `tokenizer.json` with a note when a rank file cannot express the tokenizer."""
    try:
        (directory / RANKS).write_bytes(rank_file(tokenizer.source))
        return [], RANKS
    except RanksError as error:
        tokenizer.save(directory)
        return [
            f"{directory}: {FILE_NAME} in place of {RANKS}, which cannot express this tokenizer: {error}"
        ], FILE_NAME
