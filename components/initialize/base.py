"""The model that training starts from, as `model.init` names it: opened, laid under the config's settings, not yet read.

`random`                  weights of a seed, for `model.architecture` and `model.tokenizer`
a directory, a hub id     a checkpoint in Meta's, Hugging Face's or our own layout, which brings architecture, processor and
                          tokenizer; the config may change what leaves every tensor as it is
a Llama directory + tower a Llama release and a Perception Encoder's `.pt`, put together as `model.architecture`
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import UserError
from components.initialize.settings import ModelConfig
from plm_model.config import PLMConfig

if TYPE_CHECKING:
    from plm_model.checkpoint import Checkpoint
    from plm_model.tokenizer import Tokenizer

RANDOM = "random"
# What a checkpoint's owner may set anew: none of it is in a tensor's name or shape.
FREE = re.compile(r"processor\..+|pooling_ratio|vision\.drop_path|decoder\.max_seq_len")
LAYER_SCALE = "vision.layer_scale_init"


def open_base(model: ModelConfig) -> Checkpoint:
    """The checkpoint to start from, headers only. UserError, in one line, for whatever cannot be started from."""
    from plm_model.codec import Codec

    try:
        checkpoint = _opened(model)
        Codec(checkpoint.tokenizer, checkpoint.config)  # refuses a tokenizer of another model
    except ValueError as error:  # every error of plm_model about its input is one
        raise UserError(f"model.init {model.init}: {error}") from None
    return checkpoint


def source_state(model: ModelConfig) -> Mapping[str, Any]:
    """What identifies the weights, without reading them: names, sizes and times of local files; a hub id names its commit."""
    places = [Path(model.init), *([Path(model.tower)] if model.tower else [])]
    files = [file for place in places for file in _files(place)]
    return {str(file): [file.stat().st_size, file.stat().st_mtime_ns] for file in files}


def _files(place: Path) -> list[Path]:
    """The file, or those of a checkpoint directory, also in the subfolder `original` that a release may have."""
    if place.is_file():
        return [place]
    found = [*place.glob("*"), *place.glob("original/*")]
    return sorted(file for file in found if file.is_file() and not file.name.startswith("."))


def _opened(model: ModelConfig) -> Checkpoint:
    from plm_model.assembly import assemble, continued, fresh
    from plm_model.hub import local_directory
    from plm_model.layouts import read_checkpoint
    from plm_model.tokenizer import Tokenizer

    named = Tokenizer.from_file(model.tokenizer) if model.tokenizer else None
    if model.init == RANDOM:
        if named is None:
            raise UserError("model.tokenizer is not set: give a tokenizer.json, or a checkpoint as model.init")
        return fresh(PLMConfig.from_dict(model.architecture), named, model.seed)
    if model.tower:
        config = PLMConfig.from_dict(model.architecture)
        checkpoint = assemble(config, local_directory(model.init), Path(model.tower), model.seed)
    else:
        found = read_checkpoint(local_directory(model.init))
        checkpoint = continued(found, overridden(found.config, model.architecture, model.init), model.seed)
    return checkpoint if named is None else with_tokenizer(checkpoint, named)


def overridden(found: PLMConfig, wanted: Mapping[str, Any], source: str) -> PLMConfig:
    """A checkpoint's config with the config's settings laid over it. UserError naming a key that its weights do not have."""
    values = found.to_dict()
    for key, value in _leaves(wanted):
        *sections, last = key.split(".")
        section = values
        for name in sections:
            section = section.get(name) or {}
        has = section.get(last)
        gains_layer_scale = key == LAYER_SCALE and has is None
        if value != has and not FREE.fullmatch(key) and not gains_layer_scale:
            raise UserError(
                f"model.architecture.{key} is {value!r}, but the weights of {source} have {has!r}; "
                "leave the key out, a checkpoint brings its own"
            )
        if value != has:
            section[last] = value
    return PLMConfig.from_dict(values)


def _leaves(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    return [
        leaf
        for key, value in values.items()
        for leaf in (
            _leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else [(f"{prefix}{key}", value)]
        )
    ]


def with_tokenizer(checkpoint: Checkpoint, named: Tokenizer) -> Checkpoint:
    """The checkpoint with another file of its tokenizer. UserError when one of the ordinary entries has another id."""
    if ordinary(named) != ordinary(checkpoint.tokenizer):
        raise UserError(f"model.tokenizer {named.path} is not the tokenizer of the checkpoint {checkpoint.directory}")
    return replace(checkpoint, tokenizer=named)


def ordinary(tokenizer: Tokenizer) -> dict[str, int]:
    """Every entry below the special tokens, which layouts name differently, and its id."""
    entries = tokenizer.inner.get_vocab(with_added_tokens=True)
    return {entry: number for entry, number in entries.items() if number < tokenizer.bos_id}
