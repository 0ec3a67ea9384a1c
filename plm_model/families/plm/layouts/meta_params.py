"""A PLMConfig as the `params.json` of Meta's releases, and back. Fields that are not read are listed and kept.

The width of the feed-forward is not written there but follows from two fields:
hidden = multiple_of * ceil(int(ffn_dim_multiplier * int(8 * dim / 3)) / multiple_of), e.g. 2048, 1.5 and 256 give 8192.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from plm_model.families.plm.settings import PLMConfig, ProcessorConfig, VisionConfig
from plm_model.model_directory.json_files import require_numbers, section
from plm_model.nn.config import DecoderConfig, RopeScaling

DTYPES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
INPUT_TYPES = {"thumb+tile": "thumb+tile", "tile": "vanilla"}
FFN_CHOICES = ((1.5, 256), (1.0, 256), (1.3, 1024))  # those of the three sizes
MODEL_FIELDS = {
    *("dim", "n_layers", "n_heads", "n_kv_heads", "head_dim", "ffn_dim_multiplier", "multiple_of", "norm_eps"),
    *("rope_theta", "rope_scale_factor", "low_freq_factor", "high_freq_factor", "old_context_len", "use_scaled_rope"),
    *("vocab_size", "weight_tying", "max_seqlen", "pooling_ratio", "vision_model"),
}
MODEL_SIZES = ("dim", "n_layers", "n_heads", "multiple_of", "max_seqlen", "pooling_ratio")
VISION_FIELDS = {
    *(
        "image_size",
        "patch_size",
        "width",
        "layers",
        "heads",
        "mlp_ratio",
        "use_cls_token",
        "ls_init_value",
        "drop_path",
    ),
}
DATA_FIELDS = {
    *(
        "tokenizer_name",
        "tokenizer_path",
        "vision_input_type",
        "max_num_tiles",
        "max_video_frames",
        "conversation_format",
    ),
}
OWN_FIELDS = ("system_prompt", "jpeg_dct_scaling")  # not fields of the original; written only where they differ
VISION_FIXED = {
    "use_abs_posemb": True,
    "use_ln_pre": True,
    "use_ln_post": False,
    "use_rope2d": True,
    "pool_type": "none",
}


def read_params(params: Mapping[str, Any], vocab_size: int, image_token_id: int) -> tuple[PLMConfig, list[str]]:
    """The config of a `params.json`, and the names of the fields that nothing here reads.

    `vocab_size` is the embedding's number of rows, `image_token_id` comes from the tokenizer. ValueError names a field that is
    missing or that asks for another model.
    """
    model = section(params, "model") or params
    data = section(params, "data")
    tower = section(model, "vision_model", "model.")
    if not tower:
        raise ValueError("model.vision_model is missing: this is a language model without a vision tower")
    for key, value in VISION_FIXED.items():
        if tower.get(key, value) != value:
            raise ValueError(f"model.vision_model.{key} is {tower[key]!r}; PLM's towers have {value!r}")
    require_numbers(model, "model.", MODEL_SIZES, ("ffn_dim_multiplier", "norm_eps", "rope_theta"))
    require_numbers(
        tower, "model.vision_model.", ("image_size", "patch_size", "width", "layers", "heads"), ("mlp_ratio",)
    )
    config = PLMConfig(
        vision=read_tower(tower),
        decoder=read_decoder(model, vocab_size),
        pooling_ratio=model.get("pooling_ratio", 1),
        image_token_id=image_token_id,
        processor=read_processor(data),
    )
    return config, list(unknown_fields(params))


def unknown_fields(params: Mapping[str, Any]) -> Iterator[str]:
    """Dotted names of what is in the file and not read, a whole section by its name alone."""
    sections = {"model": MODEL_FIELDS, "data": {*DATA_FIELDS, *OWN_FIELDS}, "distributed": {"model_dtype"}}
    if "model" not in params:
        sections = {"": MODEL_FIELDS}
    for name, value in params.items():
        if name in sections and isinstance(value, Mapping):
            yield from (f"{name}.{key}" for key in value if key not in sections[name])
        elif name not in sections.get("", set()):
            yield name
    tower = (section(params, "model") or params)["vision_model"]
    yield from (f"model.vision_model.{key}" for key in tower if key not in {*VISION_FIELDS, *VISION_FIXED})


def read_decoder(model: Mapping[str, Any], vocab_size: int) -> DecoderConfig:
    dim, heads = required(model, "dim"), required(model, "n_heads")
    if (model.get("head_dim") or dim // heads) != dim // heads:
        raise ValueError(f"model.head_dim is {model['head_dim']}; only dim / n_heads is supported")
    return DecoderConfig(
        vocab_size=model["vocab_size"] if (model.get("vocab_size") or 0) > 0 else vocab_size,
        dim=dim,
        layers=required(model, "n_layers"),
        heads=heads,
        kv_heads=model.get("n_kv_heads") or heads,
        hidden_dim=hidden_size(dim, model.get("ffn_dim_multiplier"), model.get("multiple_of", 256)),
        norm_eps=model.get("norm_eps", 1e-5),
        rope_theta=float(model.get("rope_theta", 10000.0)),
        rope_scaling=read_scaling(model),
        tied=model.get("weight_tying", False),
        max_seq_len=model.get("max_seqlen", 1024),
    )


def required(section: Mapping[str, Any], key: str) -> Any:
    if key not in section:
        raise ValueError(f"model.{key} is missing")
    return section[key]


def hidden_size(dim: int, multiplier: float | None, multiple_of: int) -> int:
    """Width of the feed-forward, as the formula at the top."""
    return multiple_of * math.ceil(int((multiplier or 1.0) * int(8 * dim / 3)) / multiple_of)


def read_scaling(model: Mapping[str, Any]) -> RopeScaling | None:
    """No scaling when the factor is 1 or absent, or when `use_scaled_rope` says so."""
    factor = model.get("rope_scale_factor") or 1
    if factor == 1 or not model.get("use_scaled_rope", True):
        return None
    return RopeScaling(
        factor=float(factor),
        low_freq_factor=float(model.get("low_freq_factor", 1)),
        high_freq_factor=float(model.get("high_freq_factor", 32)),
        original_max_position=int(model.get("old_context_len", 8192)),
    )


def read_tower(tower: Mapping[str, Any]) -> VisionConfig:
    return VisionConfig(
        image_size=tower.get("image_size", 448),
        patch_size=tower.get("patch_size", 14),
        width=required(tower, "width"),
        layers=required(tower, "layers"),
        heads=required(tower, "heads"),
        mlp_ratio=float(tower.get("mlp_ratio", 4.0)),
        use_cls_token=tower.get("use_cls_token", False),
        layer_scale_init=tower.get("ls_init_value"),
        drop_path=tower.get("drop_path", 0.0),
    )


def read_processor(data: Mapping[str, Any]) -> ProcessorConfig:
    defaults = ProcessorConfig()
    kind = data.get("vision_input_type", defaults.vision_input_type)
    return ProcessorConfig(
        vision_input_type="thumb+tile" if kind == "thumb+tile" else "tile",
        max_num_tiles=data.get("max_num_tiles", defaults.max_num_tiles),
        max_video_frames=data.get("max_video_frames", defaults.max_video_frames),
        conversation_format=data.get("conversation_format", defaults.conversation_format),
        **{name: data.get(name, getattr(defaults, name)) for name in OWN_FIELDS},
    )


def params_json(
    config: PLMConfig, dtype: torch.dtype, tokenizer_file: str, original: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """`params.json` of a model. An original that describes this very model is kept as it is; else ours are laid over it."""
    if original is not None and describes(original, config):
        return dict(original)
    params = copy.deepcopy(dict(original)) if original and "model" in original else {"data": {}, "distributed": {}}
    vision = {**params.get("model", {}).get("vision_model", {}), **VISION_FIXED, **tower_fields(config.vision)}
    params["model"] = {**params.get("model", {}), **model_fields(config), "vision_model": vision}
    params["data"] = {**params.get("data", {}), **data_fields(config.processor), "tokenizer_path": tokenizer_file}
    params["distributed"] = {**params.get("distributed", {}), "model_dtype": DTYPES.get(dtype, str(dtype))}
    return params


def describes(original: Mapping[str, Any], config: PLMConfig) -> bool:
    """Whether an original reads as this config, but for what cannot change its numbers."""
    try:
        read, _ = read_params(original, config.decoder.vocab_size, config.image_token_id)
    except (TypeError, ValueError):
        return False
    return replace(read, vision=replace(read.vision, mlp_ratio=config.vision.mlp_ratio)) == config and (
        read.vision.hidden_dim == config.vision.hidden_dim
    )


def model_fields(config: PLMConfig) -> dict[str, Any]:
    decoder, scaling = config.decoder, config.decoder.rope_scaling
    multiplier, multiple_of = ffn_fields(decoder.dim, decoder.hidden_dim)
    scaled = (
        {}
        if scaling is None
        else {
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "old_context_len": scaling.original_max_position,
        }
    )
    return {
        "dim": decoder.dim,
        "n_layers": decoder.layers,
        "n_heads": decoder.heads,
        "n_kv_heads": decoder.kv_heads,
        "ffn_dim_multiplier": multiplier,
        "multiple_of": multiple_of,
        "norm_eps": decoder.norm_eps,
        "rope_theta": decoder.rope_theta,
        "use_scaled_rope": scaling is not None,
        "rope_scale_factor": 1 if scaling is None else scaling.factor,
        **scaled,
        "vocab_size": decoder.vocab_size,
        "weight_tying": decoder.tied,
        "max_seqlen": decoder.max_seq_len,
        "pooling_ratio": config.pooling_ratio,
    }


def ffn_fields(dim: int, hidden: int) -> tuple[float, int]:
    """A multiplier and a multiple that give this width: a published pair when one fits, else the width as its own multiple."""
    for multiplier, multiple_of in FFN_CHOICES:
        if hidden_size(dim, multiplier, multiple_of) == hidden:
            return multiplier, multiple_of
    return min(1.0, hidden / int(8 * dim / 3)), hidden


def tower_fields(vision: VisionConfig) -> dict[str, Any]:
    return {
        "image_size": vision.image_size,
        "patch_size": vision.patch_size,
        "width": vision.width,
        "layers": vision.layers,
        "heads": vision.heads,
        "mlp_ratio": vision.mlp_ratio,
        "use_cls_token": vision.use_cls_token,
        "ls_init_value": vision.layer_scale_init,
        "drop_path": vision.drop_path,
    }


def data_fields(processor: ProcessorConfig) -> dict[str, Any]:
    own = {name: getattr(processor, name) for name in OWN_FIELDS}
    own = {name: value for name, value in own.items() if value != getattr(ProcessorConfig(), name)}
    return {
        "tokenizer_name": "plmchat",
        "vision_input_type": INPUT_TYPES[processor.vision_input_type],
        "max_num_tiles": processor.max_num_tiles,
        "max_video_frames": processor.max_video_frames,
        "conversation_format": processor.conversation_format,
        **own,
    }
