"""With the same weights, our logits are those of `transformers`' Perception LM."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from plm_model.codec import Example
from plm_model.config import PLMConfig
from plm_model.pack import collate
from plm_model.weights import build

pytest.importorskip("timm")
from transformers import PerceptionLMConfig, PerceptionLMForConditionalGeneration

KEYS = [
    (r"tok_embeddings", "model.language_model.embed_tokens"),
    (r"^layers\.(\d+)\.attention\.w([qkvo])", r"model.language_model.layers.\1.self_attn.\2_proj"),
    (r"feed_forward\.w1", "mlp.gate_proj"),
    (r"feed_forward\.w3", "mlp.up_proj"),
    (r"feed_forward\.w2", "mlp.down_proj"),
    (r"^layers", "model.language_model.layers"),
    (r"attention_norm", "input_layernorm"),
    (r"ffn_norm", "post_attention_layernorm"),
    (r"^norm", "model.language_model.norm"),
    (r"^output", "lm_head"),
    (r"vision_projector\.projector\.0", "model.multi_modal_projector.linear_1"),
    (r"vision_projector\.projector\.2", "model.multi_modal_projector.linear_2"),
    (r"vision_model\.", "model.vision_tower.timm_model."),
    (r"class_embedding", "cls_token"),
    (r"positional_embedding", "pos_embed"),
    (r"conv1", "patch_embed.proj"),
    (r"ln_pre", "norm_pre"),
    (r"transformer\.resblocks", "blocks"),
    (r"attn\.in_proj_", "attn.qkv."),
    (r"attn\.out_proj", "attn.proj"),
    (r"ln_(\d)", r"norm\1"),
    (r"ls_(\d)\.gamma", r"gamma_\1"),
    (r"mlp\.c_fc", "mlp.fc1"),
    (r"mlp\.c_proj", "mlp.fc2"),
]


def reference_config(config: PLMConfig) -> PerceptionLMConfig:
    vision, decoder = config.vision, config.decoder
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": decoder.rope_theta}
    if decoder.rope_scaling:
        rope |= {
            "rope_type": "llama3",
            "factor": decoder.rope_scaling.factor,
            "low_freq_factor": decoder.rope_scaling.low_freq_factor,
            "high_freq_factor": decoder.rope_scaling.high_freq_factor,
            "original_max_position_embeddings": decoder.rope_scaling.original_max_position,
        }
    text = {
        "model_type": "llama",
        "hidden_size": decoder.dim,
        "intermediate_size": decoder.hidden_dim,
        "num_hidden_layers": decoder.layers,
        "num_attention_heads": decoder.heads,
        "num_key_value_heads": decoder.kv_heads,
        "rms_norm_eps": decoder.norm_eps,
        "rope_parameters": rope,
        "vocab_size": decoder.vocab_size,
        "max_position_embeddings": decoder.max_seq_len,
        "tie_word_embeddings": decoder.tied,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    tower = {
        "embed_dim": vision.width,
        "depth": vision.layers,
        "num_heads": vision.heads,
        "mlp_ratio": vision.mlp_ratio,
        "img_size": [vision.image_size, vision.image_size],
        "global_pool": "",
        "use_post_transformer_norm": False,
        "init_values": vision.layer_scale_init,
        "ref_feat_shape": [vision.grid, vision.grid],
    }
    family = "vit_pe_core_large_patch14_336" if vision.use_cls_token else "vit_pe_core_gigantic_patch14_448"
    return PerceptionLMConfig(
        text_config=text,
        vision_config={"model_type": "timm_wrapper", "architecture": family, "num_classes": 0, "model_args": tower},
        projector_pooling_ratio=config.pooling_ratio,
        vision_use_cls_token=vision.use_cls_token,
        image_token_id=config.image_token_id,
        video_token_id=config.image_token_id + 1,
        tie_word_embeddings=decoder.tied,
    )


def translated(name: str) -> str:
    for ours, theirs in KEYS:
        name = re.sub(ours, theirs, name)
    return name


def randomise(reference: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in reference.named_parameters():
            centre = 1.0 if re.search(r"norm(\d|_pre)?\.weight", name) else 0.0
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1 + centre)


def our_weights(config: PLMConfig, reference: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Their state under our names; queries and keys from half-split to interleaved pairs."""
    state = {}
    for name, parameter in build(config).state_dict().items():
        tensor = reference[translated(name)]
        if re.search(r"attention\.w[qk]", name):
            halves = tensor.view(-1, 2, config.decoder.head_dim // 2, tensor.shape[1])
            tensor = halves.transpose(1, 2)
        state[name] = tensor.reshape(parameter.shape)
    return state


@pytest.mark.parametrize("variant", ["tiny", "untied"])
def test_logits_equal_the_reference(
    variant: str, request: pytest.FixtureRequest, make: Callable[..., tuple[Example, np.ndarray]]
) -> None:
    config = request.getfixturevalue(variant)
    reference = PerceptionLMForConditionalGeneration(reference_config(config)).eval()
    randomise(reference)
    model = build(config, "cpu").eval()
    model.load_state_dict(our_weights(config, reference.state_dict()))
    example, tiles = make(20, tiles=2, supervised=20)
    batch = collate([example], [tiles], config)
    pixels = ((batch.tiles.float() / 255 - 0.5) / 0.5)[None]
    with torch.no_grad():
        theirs = reference(input_ids=batch.tokens[None], pixel_values=pixels).logits[0]
        torch.testing.assert_close(model.logits(batch), theirs, atol=1e-4, rtol=0)
    assert theirs.std() > 0.1
