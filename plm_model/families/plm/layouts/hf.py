"""The Hugging Face `perception_lm` layout: read as a ModelDirectory, written so that `transformers` loads it and its processor.

A directory holds `config.json`, `generation_config.json`, sharded or single safetensors, `tokenizer.json` with its config, the
chat template and the three processor files. One without processor files is read with the tower's defaults and a note.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from plm_model.families.plm.layouts import hf_keys as key_maps
from plm_model.families.plm.layouts.hf_config import read_config
from plm_model.families.plm.layouts.hf_config_files import config_json, processor_files
from plm_model.families.plm.layouts.hf_tokenizer import hf_tokenizer_json, tokenizer_config, write_chat_template
from plm_model.families.plm.layouts.release_params import read_original_params, write_original_params
from plm_model.families.plm.settings import PLMConfig, untied
from plm_model.families.plm.tokenizer import Tokenizer
from plm_model.families.plm.weights import require_tokenizer_fits, shapes_of
from plm_model.model_directory.files import save_tensors
from plm_model.model_directory.json_files import read_json, section
from plm_model.model_directory.opened import ModelDirectory, StoredTensor, exactly, same_numbers, write_json
from plm_model.model_directory.safetensors_reader import stored_tensors
from plm_model.model_directory.safetensors_writer import SHARD_BYTES, Entries, WeightsError

IGNORED = "rotary_emb.inv_freq"
HEAD = "lm_head.weight"
EMBEDDING = key_maps.hf_name("tok_embeddings.weight")
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")


def read_hf(directory: Path) -> ModelDirectory:
    """Open a Hugging Face directory; WeightsError naming file, key or tensor when it is not a whole `perception_lm`."""
    stored = {key: tensor for key, tensor in stored_tensors(directory).items() if not key.endswith(IGNORED)}
    path = directory / "config.json"
    try:
        config, notes = read_config(read_json(path), image_processor(directory), HEAD in stored)
    except (TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise WeightsError(f"{directory}: {error}") from error
    head, embedding = stored.get(HEAD), stored.get(EMBEDDING)
    if config.decoder.tied and head and embedding:
        if same_numbers(head, embedding):
            del stored[HEAD]
        else:
            config = untied(config)
            notes.append(f"{HEAD} is not the embedding, though config.json says tie_word_embeddings: read as untied")
    tokenizer = Tokenizer.from_file(directory)
    require_tokenizer_fits(tokenizer, config)
    return ModelDirectory(
        directory=directory,
        layout="hf",
        config=config,
        tokenizer=tokenizer,
        tensors=in_our_form(stored, config, directory),
        notes=tuple(f"{directory}: {note}" for note in notes),
        original_params=read_original_params(directory),
    )


def image_processor(directory: Path) -> Mapping[str, Any] | None:
    """The image processor's settings: a file of their own, or a part of the processor's."""
    for path in (directory / name for name in PROCESSOR_FILES):
        found: Mapping[str, Any] = read_json(path) if path.exists() else {}
        found = section(found, "image_processor", f"{path}: ") or found
        if "tile_size" in found or "vision_input_type" in found:
            return found
    return None


def in_our_form(stored: Mapping[str, StoredTensor], config: PLMConfig, directory: Path) -> dict[str, StoredTensor]:
    """The tensors under our names, checked, each turned into our form when it is read."""
    named = {key_maps.our_name(key) or key: tensor for key, tensor in stored.items()}
    found = exactly(shapes_of(config), named, directory, key_maps.hf_name, key_maps.hf_shape)
    head_dim = config.decoder.head_dim
    return {
        name: replace(
            tensor,
            shape=key_maps.our_shape(name, tensor.shape),
            read=partial(read_one, name, tensor, head_dim),
        )
        for name, tensor in found.items()
    }


def read_one(name: str, stored: StoredTensor, head_dim: int) -> torch.Tensor:
    return key_maps.from_hf(name, stored.read(), head_dim)


def write_hf(opened: ModelDirectory, directory: Path, max_shard_bytes: int = SHARD_BYTES) -> list[str]:
    """Write a model in this layout, tensor by tensor in their own dtypes; returns notes on what could not be kept."""
    config, dtype = opened.config, str(opened.dtype).removeprefix("torch.")
    source, notes = hf_tokenizer_json(opened.tokenizer)
    tokenizer = Tokenizer(source)
    ids = token_ids(tokenizer)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tokenizer.json").write_bytes(source)
    files = {
        "config.json": config_json(config, ids, dtype),
        "generation_config.json": generation_config(ids),
        "tokenizer_config.json": tokenizer_config(tokenizer, config.decoder.max_seq_len),
        **processor_files(config),
    }
    for name, content in files.items():
        write_json(directory / name, content)
    write_chat_template(directory, config.processor.system_prompt)
    write_original_params(opened, directory)
    save_tensors(directory, hf_entries(opened), hf_stream(opened), max_shard_bytes)
    return notes


def token_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """The ids that the configs name. Videos have the place after images, whether or not a token stands there."""
    return {
        "bos": tokenizer.bos_id,
        "end_of_text": tokenizer.eos_text_id,
        "eot": tokenizer.eot_id,
        "video": tokenizer.image_id + 1,
    }


def generation_config(ids: Mapping[str, int]) -> dict[str, Any]:
    """Greedy, ending where our own generation ends."""
    return {
        "bos_token_id": ids["bos"],
        "eos_token_id": [ids["end_of_text"], ids["eot"]],
        "pad_token_id": ids["end_of_text"],
        "do_sample": False,
    }


def hf_entries(opened: ModelDirectory) -> Entries:
    return {
        key_maps.hf_name(name): (tensor.dtype, key_maps.hf_shape(name, tensor.shape))
        for name, tensor in opened.tensors.items()
    }


def hf_stream(opened: ModelDirectory) -> Iterator[tuple[str, torch.Tensor]]:
    for name, tensor in opened.stream():
        yield key_maps.hf_name(name), key_maps.to_hf(name, tensor, opened.config.decoder.head_dim)
