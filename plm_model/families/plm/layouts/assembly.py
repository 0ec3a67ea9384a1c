"""New models out of old weights: a Llama and a Perception Encoder become a PLM, and a PLM goes on under another config.

What has no weights yet starts at the value that a fresh model of the same seed has, and a note names it; nothing else may be
missing, and only what a PLM has no place for is passed over (the tower's last layers, its pooling and its text side).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F

from plm_model.families.plm.layouts.meta import EMBEDDING, IGNORED, OUTPUT, TIED, mapped, read_tokenizer, stored_tensors
from plm_model.families.plm.settings import PLMConfig, VisionConfig
from plm_model.families.plm.tokenizer import Tokenizer
from plm_model.families.plm.weights import initial, require_tokenizer_fits, shapes_of
from plm_model.model_directory.opened import ModelDirectory, StoredTensor, exactly, same_numbers
from plm_model.model_directory.safetensors_writer import WeightsError
from plm_model.nn.tensors import seed_of

TOWER, PROJECTOR = "vision_model.", "vision_projector."
WRAPPERS = ("state_dict", "weights", "model")
LAYER_SCALE = re.compile(r"vision_model\.transformer\.resblocks\.\d+\.ls_[12]\.gamma")
BLOCK = re.compile(r"transformer\.resblocks\.(\d+)\.")
NOT_OURS = re.compile(r"(ln_post|attn_pool|proj|rope)(\.|$)")


def assemble(config: PLMConfig, llama: Path, tower: Path, seed: int = 0) -> ModelDirectory:
    """A model of `config` with the decoder of a Llama release, the tower of a PE `.pt` and a fresh projector.

    Position embeddings are resized to the config's grid. WeightsError names a tensor that is missing, extra or misshapen.
    """
    decoder = {name: tensor for name, tensor in stored_tensors(llama).items() if name not in IGNORED}
    for name in (OUTPUT, TIED) if config.decoder.tied else ():
        head = decoder.pop(name, None)
        if head is not None and EMBEDDING in decoder and not same_numbers(head, decoder[EMBEDDING]):
            raise WeightsError(f"{head.file}: {name} is not the embedding; set architecture.decoder.tied: false")
    found = decoder | tower_tensors(tower, config.vision)
    fresh = fresh_tensors(config, seed, re.compile(f"{PROJECTOR}|{LAYER_SCALE.pattern}"), found)
    tokenizer = read_tokenizer(llama, config.decoder.vocab_size)
    require_tokenizer_fits(tokenizer, config)
    require_tower(config, found | fresh, tower)
    tensors = exactly(shapes_of(config), found | fresh, llama)
    return ModelDirectory(llama, "meta", config, tokenizer, tensors, notes=notes_on(fresh))


def fresh(config: PLMConfig, tokenizer: Tokenizer, seed: int = 0) -> ModelDirectory:
    """A model of `config` whose every tensor has the starting value of the seed, in fp32."""
    require_tokenizer_fits(tokenizer, config)
    return ModelDirectory(Path("fresh"), "own", config, tokenizer, fresh_tensors(config, seed, re.compile(""), {}))


def continued(opened: ModelDirectory, config: PLMConfig, seed: int = 0) -> ModelDirectory:
    """The same weights under another config: another pooling, processor or length, and LayerScale where there was none."""
    fresh = fresh_tensors(config, seed, LAYER_SCALE, opened.tensors)
    tensors = exactly(shapes_of(config), {**opened.tensors, **fresh}, opened.directory)
    return replace(opened, config=config, tensors=tensors, notes=(*opened.notes, *notes_on(fresh)))


def fresh_tensors(
    config: PLMConfig, seed: int, allowed: re.Pattern[str], found: Mapping[str, StoredTensor]
) -> dict[str, StoredTensor]:
    """Starting values for those of the model's tensors that are not found and that may be missing."""
    wanted = shapes_of(config)
    missing = {name: shape for name, shape in wanted.items() if name not in found and allowed.match(name)}
    return {
        name: StoredTensor(Path("fresh"), name, torch.float32, shape, partial(start, name, shape, config, seed))
        for name, shape in missing.items()
    }


def start(name: str, shape: tuple[int, ...], config: PLMConfig, seed: int) -> torch.Tensor:
    return initial(name, torch.Size(shape), config, torch.Generator().manual_seed(seed_of(seed, name)))


def notes_on(fresh: Mapping[str, StoredTensor]) -> tuple[str, ...]:
    """One line naming every tensor that starts afresh, layers' numbers as `*`."""
    names = sorted({re.sub(r"resblocks\.\d+", "resblocks.*", name) for name in fresh})
    return (f"no weights for these, they start afresh: {', '.join(names)}",) if names else ()


def tower_tensors(file: Path, vision: VisionConfig) -> dict[str, StoredTensor]:
    """The tensors of a Perception Encoder's `.pt` under our names, without what a PLM has no place for."""
    state = {re.sub(r"^module\.", "", name): tensor for name, tensor in mapped(file, WRAPPERS).items()}
    if any(name.startswith("visual.") for name in state):
        # The text side has names of its own; without the prefix the file is the tower alone.
        state = {name.removeprefix("visual."): tensor for name, tensor in state.items() if name.startswith("visual.")}
    kept = {
        name: tensor for name, tensor in state.items() if not NOT_OURS.match(name) and in_depth(name, vision.layers)
    }
    if not kept:
        raise WeightsError(f"{file}: holds no tensor of a vision tower")
    return {TOWER + name: stored(file, name, tensor, vision) for name, tensor in kept.items()}


def require_tower(config: PLMConfig, found: Mapping[str, StoredTensor], file: Path) -> None:
    """WeightsError names the first tensor that the encoder's file should have had."""
    for name in shapes_of(config):
        if name.startswith(TOWER) and name not in found:
            raise WeightsError(f"{file}: tensor {name.removeprefix(TOWER)} is missing")


def in_depth(name: str, layers: int) -> bool:
    block = BLOCK.match(name)
    return block is None or int(block.group(1)) < layers


def stored(file: Path, name: str, tensor: torch.Tensor, vision: VisionConfig) -> StoredTensor:
    resized = (
        partial(resize_positions, tensor, vision) if name == "positional_embedding" else partial(tensor.view_as, tensor)
    )
    shape = tuple(tensor.shape)
    if name == "positional_embedding" and grid_of(tensor, vision) is not None:
        shape = (vision.grid**2 + int(vision.use_cls_token), shape[1])
    return StoredTensor(file, name, tensor.dtype, shape, resized)


def grid_of(table: torch.Tensor, vision: VisionConfig) -> int | None:
    """The side of the square grid that a table of position embeddings [positions, C] was made for; None if it is none."""
    patches = table.shape[0] - int(vision.use_cls_token)
    side = int(max(patches, 0) ** 0.5 + 0.5)
    return side if side**2 == patches and side else None


def resize_positions(table: torch.Tensor, vision: VisionConfig) -> torch.Tensor:
    """A table of position embeddings [positions, C] for the config's grid, bilinear; the class token's row stays."""
    side = grid_of(table, vision)
    if side is None or side == vision.grid:
        return table
    own, patches = table.split([len(table) - side**2, side**2])
    plane = patches.float().T.reshape(1, -1, side, side)
    size = (vision.grid, vision.grid)
    plane = F.interpolate(plane, size=size, mode="bilinear", align_corners=False)
    return torch.cat((own, plane.flatten(2)[0].T.to(table.dtype)))
