"""Small model directories in each layout, the Hugging Face one written by `transformers` itself."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from components.layers import read_file
from plm_model.families.plm.layouts.detect import read_directory, write_directory
from plm_model.families.plm.layouts.hf_config_files import config_json
from plm_model.families.plm.model import PLM, build
from plm_model.families.plm.settings import PLMConfig, VisionConfig
from plm_model.families.plm.tokenizer import Tokenizer
from plm_model.families.plm.weights import initialise, save_model
from plm_model.nn.config import DecoderConfig, RopeScaling

TOKENIZER = Path(__file__).parents[2] / "configs" / "tokenizers" / "plm_tiny" / "tokenizer.json"
State = dict[str, torch.Tensor]
IDS = {"bos": 1000, "end_of_text": 1001, "eot": 1009, "video": 1003}

SCALED = PLMConfig(
    vision=VisionConfig(image_size=56, width=64, layers=2, heads=4, drop_path=0.1),
    decoder=DecoderConfig(
        vocab_size=1010,
        dim=64,
        layers=2,
        heads=4,
        kv_heads=2,
        hidden_dim=96,
        rope_theta=1e4,
        rope_scaling=RopeScaling(factor=4.0, original_max_position=64),
        max_seq_len=1024,
    ),
    image_token_id=1002,
)
UNTIED = replace(
    SCALED,
    vision=replace(SCALED.vision, use_cls_token=False, layer_scale_init=None),
    decoder=replace(SCALED.decoder, tied=False, rope_scaling=None),
)
STAGE_1 = replace(SCALED, vision=replace(SCALED.vision, layer_scale_init=None, drop_path=0.0), pooling_ratio=1)
VARIANTS = {"class token, tied, scaled RoPE": SCALED, "no class token, untied": UNTIED}


def preset(size: str) -> PLMConfig:
    """The model of `configs/models/plm_<size>.yaml`."""
    values = read_file(str(TOKENIZER.parents[2] / "models" / f"plm_{size}.yaml")).values
    return PLMConfig.from_dict(values["architecture"])


def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(TOKENIZER)


def own_directory(directory: Path, config: PLMConfig = SCALED, dtype: torch.dtype = torch.float32) -> PLM:
    """Write a model of ours with random weights; returns it."""
    model = initialise(build(config), seed=0).to(dtype)
    save_model(model, config, tokenizer(), directory)
    return model


def reference(config: PLMConfig) -> Any:
    """The `transformers` model of a config, its weights random and large enough that every one of them matters."""
    from transformers import PerceptionLMConfig, PerceptionLMForConditionalGeneration

    model = PerceptionLMForConditionalGeneration(PerceptionLMConfig(**config_json(config, IDS, "float32"))).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 1.0 if re.search(r"norm(\d|_pre)?\.weight", name) else 0.0
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1 + centre)
    return model


def reference_directory(directory: Path, config: PLMConfig = SCALED, shard: str = "5GB") -> Any:
    """Write a `transformers` model with `save_pretrained`, and the tokenizer, without processor files; returns the model."""
    model = reference(config)
    model.save_pretrained(directory, max_shard_size=shard)
    tokenizer().save(directory)
    return model


def release(directory: Path, config: PLMConfig = SCALED, dtype: torch.dtype = torch.float32) -> State:
    """Write a release directory `meta` (and `own`, which it is made from); returns its state."""
    own_directory(directory / "own", config, dtype)
    write_directory(read_directory(directory / "own"), directory / "meta", "meta")
    return torch.load(directory / "meta" / "consolidated.pth", weights_only=True)


def random_state(config: PLMConfig, seed: int) -> State:
    return initialise(build(config), seed).state_dict()


def llama(directory: Path, config: PLMConfig) -> State:
    """Write what a Llama release has; returns its state. A tied one stores its output all the same."""
    own_directory(directory / "own", config)
    write_directory(read_directory(directory / "own"), directory / "llama", "meta")
    state = {name: tensor for name, tensor in random_state(config, 0).items() if not name.startswith("vision")}
    state.setdefault("output.weight", state["tok_embeddings.weight"])
    (directory / "llama" / "consolidated.pth").unlink()
    torch.save(state | {"rope.freqs": torch.zeros(4)}, directory / "llama" / "consolidated.00.pth")
    return state


def encoder(file: Path, config: PLMConfig, prefix: str = "module.visual.", wrapper: str | None = "state_dict") -> State:
    """Write an encoder with one more layer, its pooling and its text side; returns the state of the tower."""
    deeper = replace(config, vision=replace(config.vision, layers=config.vision.layers + 1))
    tower = {
        name.removeprefix("vision_model."): tensor
        for name, tensor in random_state(deeper, 7).items()
        if name.startswith("vision_model.")
    }
    extra = {"ln_post.weight": torch.ones(64), "attn_pool.probe": torch.ones(1, 1, 64), "proj": torch.ones(64, 64)}
    state = {prefix + name: tensor for name, tensor in (tower | extra).items()}
    if prefix:
        state |= {"module.transformer.resblocks.0.ln_1.weight": torch.ones(3), "module.logit_scale": torch.ones(())}
    torch.save({wrapper: state} if wrapper else state, file)
    return tower
