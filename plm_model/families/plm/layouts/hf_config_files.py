"""A PLMConfig as the JSON files of a Hugging Face `perception_lm` directory; `hf_config` reads them back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plm_model.families.plm.layouts.hf_config import GIGANTIC, LARGE, MODEL_TYPE, OURS
from plm_model.families.plm.settings import PLMConfig, VisionConfig
from plm_model.nn.config import DecoderConfig

ARCHITECTURE = "PerceptionLMForConditionalGeneration"
INPUT_TYPES = {"thumb+tile": "thumb+tile", "tile": "vanilla"}  # ours -> theirs; theirs is "vanilla" for any other word
HALF = [0.5, 0.5, 0.5]


def config_json(config: PLMConfig, token_ids: Mapping[str, int], dtype: str) -> dict[str, Any]:
    """`config.json` of a model; `token_ids` has bos, end_of_text, eot and video."""
    return {
        "architectures": [ARCHITECTURE],
        "model_type": MODEL_TYPE,
        "dtype": dtype,
        "image_token_id": config.image_token_id,
        "video_token_id": token_ids["video"],
        "projector_pooling_ratio": config.pooling_ratio,
        "tie_word_embeddings": config.decoder.tied,
        "vision_use_cls_token": config.vision.use_cls_token,
        "text_config": text_config(config.decoder, token_ids, dtype),
        "vision_config": vision_config(config.vision, dtype),
        OURS: {
            "drop_path": config.vision.drop_path,
            "processor": {
                "conversation_format": config.processor.conversation_format,
                "system_prompt": config.processor.system_prompt,
                "max_video_frames": config.processor.max_video_frames,
                "jpeg_dct_scaling": config.processor.jpeg_dct_scaling,
                "max_num_tiles": config.processor.max_num_tiles,
                "vision_input_type": config.processor.vision_input_type,
            },
        },
    }


def text_config(decoder: DecoderConfig, token_ids: Mapping[str, int], dtype: str) -> dict[str, Any]:
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": decoder.rope_theta}
    if decoder.rope_scaling is not None:
        rope |= {
            "rope_type": "llama3",
            "factor": decoder.rope_scaling.factor,
            "low_freq_factor": decoder.rope_scaling.low_freq_factor,
            "high_freq_factor": decoder.rope_scaling.high_freq_factor,
            "original_max_position_embeddings": decoder.rope_scaling.original_max_position,
        }
    return {
        "model_type": "llama",
        "dtype": dtype,
        "vocab_size": decoder.vocab_size,
        "hidden_size": decoder.dim,
        "intermediate_size": decoder.hidden_dim,
        "num_hidden_layers": decoder.layers,
        "num_attention_heads": decoder.heads,
        "num_key_value_heads": decoder.kv_heads,
        "head_dim": decoder.head_dim,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "rms_norm_eps": decoder.norm_eps,
        "rope_parameters": rope,
        "max_position_embeddings": decoder.max_seq_len,
        "tie_word_embeddings": decoder.tied,
        "bos_token_id": token_ids["bos"],
        "eos_token_id": [token_ids["end_of_text"], token_ids["eot"]],
    }


def vision_config(vision: VisionConfig, dtype: str) -> dict[str, Any]:
    return {
        "model_type": "timm_wrapper",
        "architecture": LARGE if vision.use_cls_token else GIGANTIC,
        "dtype": dtype,
        "do_pooling": True,
        "num_classes": 0,
        "global_pool": "",
        "model_args": {
            "embed_dim": vision.width,
            "depth": vision.layers,
            "num_heads": vision.heads,
            "mlp_ratio": vision.mlp_ratio,
            "patch_size": vision.patch_size,
            "img_size": [vision.image_size, vision.image_size],
            "ref_feat_shape": [vision.grid, vision.grid],
            "global_pool": "",
            "use_post_transformer_norm": False,
            "init_values": vision.layer_scale_init,
        },
    }


def processor_files(config: PLMConfig) -> dict[str, dict[str, Any]]:
    """The processor's JSON files, by name."""
    side = config.vision.image_size
    pixels = {
        "size": {"height": side, "width": side},
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "do_convert_rgb": True,
        "image_mean": HALF,
        "image_std": HALF,
        "resample": 3,
        "processor_class": "PerceptionLMProcessor",
    }
    return {
        "processor_config.json": {
            "processor_class": "PerceptionLMProcessor",
            "patch_size": config.vision.patch_size,
            "pooling_ratio": config.pooling_ratio,
        },
        "preprocessor_config.json": {
            **pixels,
            "image_processor_type": "PerceptionLMImageProcessor",
            "vision_input_type": INPUT_TYPES[config.processor.vision_input_type],
            "tile_size": side,
            "max_num_tiles": config.processor.max_num_tiles,
        },
        "video_preprocessor_config.json": {
            **pixels,
            "video_processor_type": "PerceptionLMVideoProcessor",
            # Otherwise every frame of a video goes into the prompt.
            "do_sample_frames": True,
            "num_frames": config.processor.max_video_frames,
        },
    }
