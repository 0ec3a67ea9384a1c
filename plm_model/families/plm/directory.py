"""Model directories of a PLM: the one that training starts from, what stands beside the tensors, and the three layouts.

`random`                  weights of a seed, for an architecture and a tokenizer
a directory, a hub id     Meta's, Hugging Face's or our own layout, which brings architecture, processor and tokenizer; what
                          leaves every tensor as it is may be changed
a Llama directory + tower a Llama release and a Perception Encoder's `.pt`, put together as the architecture says
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from plm_model.families.plm.layouts.assembly import assemble, continued, fresh
from plm_model.families.plm.layouts.detect import LAYOUTS, read_directory, write_directory
from plm_model.families.plm.layouts.release_params import write_original_params
from plm_model.families.plm.settings import PLMConfig
from plm_model.families.plm.tokenizer import Tokenizer
from plm_model.families.plm.weights import require_tokenizer_fits, save_companions
from plm_model.family import RANDOM, Start, StartError
from plm_model.model_directory.hub import local_directory
from plm_model.model_directory.opened import ModelDirectory

__all__ = ["LAYOUTS", "assembled", "card", "open_base", "read_directory", "write_companions", "write_directory"]

LICENCE = """\
The released PLM checkpoints and the NXTP
checkpoints are for non-commercial research only, and so is every model that is trained from them.
"""
# What a model directory's owner may set anew: none of it is in a tensor's name or shape.
FREE = re.compile(r"processor\..+|pooling_ratio|vision\.drop_path|decoder\.max_seq_len")
LAYER_SCALE = "vision.layer_scale_init"


def open_base(start: Start) -> ModelDirectory:
    """The model to start from, headers only. ValueError, in one line, for whatever cannot be started from."""
    opened = _opened(start)
    require_tokenizer_fits(opened.tokenizer, opened.config)
    return opened


def assembled(init: str, tower: Path, architecture: Mapping[str, Any]) -> ModelDirectory:
    """A model of a Llama release and a Perception Encoder's `.pt`."""
    return assemble(PLMConfig.from_dict(architecture), local_directory(init), tower)


def write_companions(opened: ModelDirectory, directory: Path) -> None:
    """Write what stands beside the tensors in our own layout."""
    save_companions(opened.config, opened.tokenizer, directory)
    write_original_params(opened, directory)


def card(config: PLMConfig) -> dict[str, str]:
    """Rows of the model card's table."""
    vision, decoder = config.vision, config.decoder
    return {
        "Vision tower": f"{vision.layers} layers of width {vision.width}, tiles of {vision.image_size} pixels",
        "Decoder": f"{decoder.layers} layers of width {decoder.dim}, {decoder.vocab_size:,} tokens",
        "Tiles per image": f"at most {config.processor.max_num_tiles}, {config.tokens_per_tile} tokens each",
    }


def _opened(start: Start) -> ModelDirectory:
    named = Tokenizer.from_file(start.tokenizer) if start.tokenizer else None
    if start.init == RANDOM:
        if named is None:
            raise StartError("model.tokenizer is not set: give a tokenizer.json, or a model directory as model.init")
        return fresh(PLMConfig.from_dict(start.architecture), named, start.seed)
    if start.tower:
        config = PLMConfig.from_dict(start.architecture)
        opened = assemble(config, local_directory(start.init), Path(start.tower), start.seed)
    else:
        found = read_directory(local_directory(start.init))
        opened = continued(found, overridden(found.config, start.architecture, start.init), start.seed)
    return opened if named is None else with_tokenizer(opened, named)


def overridden(found: PLMConfig, wanted: Mapping[str, Any], source: str) -> PLMConfig:
    """A model's config with other settings laid over it. StartError naming a key that its weights do not have."""
    values = found.to_dict()
    for key, value in _leaves(wanted):
        *sections, last = key.split(".")
        section = values
        for name in sections:
            section = section.get(name) or {}
        has = section.get(last)
        gains_layer_scale = key == LAYER_SCALE and has is None
        if value != has and not FREE.fullmatch(key) and not gains_layer_scale:
            raise StartError(
                f"model.architecture.{key} is {value!r}, but the weights of {source} have {has!r}; "
                "leave the key out, model.init brings its own"
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


def with_tokenizer(opened: ModelDirectory, named: Tokenizer) -> ModelDirectory:
    """The model with another file of its tokenizer. StartError when one of the ordinary entries has another id."""
    if ordinary(named) != ordinary(opened.tokenizer):
        raise StartError(f"model.tokenizer {named.path} is not the tokenizer of the model {opened.directory}")
    return replace(opened, tokenizer=named)


def ordinary(tokenizer: Tokenizer) -> dict[str, int]:
    """Every entry below the special tokens, which layouts name differently, and its id."""
    entries = tokenizer.inner.get_vocab(with_added_tokens=True)
    return {entry: number for entry, number in entries.items() if number < tokenizer.bos_id}
