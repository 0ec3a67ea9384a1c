"""The JSON files of a Hugging Face `perception_lm` directory as a PLMConfig; `hf_config_files` writes them.

`transformers` leaves out of `config.json` what equals its defaults, so the defaults of Llama and of the two towers stand
here as tables. What those files have no place for (drop path, conversation format, ...) travels in `config.json` under
`plm`, which `transformers` ignores.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plm_model.families.plm.settings import PLMConfig, ProcessorConfig, VisionConfig
from plm_model.model_directory.json_files import require_numbers, section
from plm_model.model_directory.safetensors_writer import WeightsError
from plm_model.nn.config import DecoderConfig, RopeScaling

MODEL_TYPE = "perception_lm"
OURS = "plm"
LLAMA = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 2048,
}
TEXT_SIZES = tuple(name for name, value in LLAMA.items() if isinstance(value, int))
TOWER_SIZES = ("img_size", "embed_dim", "depth", "num_heads", "patch_size")
WHERE = "config.json: "
LARGE, GIGANTIC = "vit_pe_core_large_patch14_336", "vit_pe_core_gigantic_patch14_448"
TOWERS: dict[str, dict[str, Any]] = {
    LARGE: {
        "img_size": 336,
        "embed_dim": 1024,
        "depth": 24,
        "num_heads": 16,
        "mlp_ratio": 4.0,
        "ref_feat_shape": [24, 24],
    },
    GIGANTIC: {
        "img_size": 448,
        "embed_dim": 1536,
        "depth": 50,
        "num_heads": 16,
        "mlp_ratio": 8960 / 1536,
        "ref_feat_shape": [32, 32],
    },
}


def read_config(
    values: Mapping[str, Any], processor: Mapping[str, Any] | None, has_head: bool
) -> tuple[PLMConfig, list[str]]:
    """The config from `config.json` and the image processor's settings, and what had to be assumed.

    `has_head` says whether the files hold an output matrix, which settles what contradictory or absent flags leave open.
    """
    if values.get("model_type") != MODEL_TYPE:
        raise WeightsError(f"config.json: model_type is {values.get('model_type')!r}, not {MODEL_TYPE!r}")
    text = {**LLAMA, **section(values, "text_config", WHERE)}
    own = section(values, OURS, WHERE)
    require_numbers(text, f"{WHERE}text_config.", TEXT_SIZES, ("rms_norm_eps",))
    require_numbers(values, WHERE, ("projector_pooling_ratio", "image_token_id"))
    vision = read_tower(values, own)
    settings, notes = read_processor(processor, vision, section(own, "processor", f"{WHERE}{OURS}."))
    config = PLMConfig(
        vision=vision,
        decoder=read_decoder(text, is_tied(values, has_head)),
        pooling_ratio=values.get("projector_pooling_ratio", 1),
        image_token_id=values.get("image_token_id", 128002),
        processor=settings,
    )
    return config, notes


def is_tied(values: Mapping[str, Any], has_head: bool) -> bool:
    """Whether the output is the embedding; versions of `transformers` disagree on where that is written."""
    places = (values, section(values, "text_config", WHERE))
    said = {bool(place["tie_word_embeddings"]) for place in places if place.get("tie_word_embeddings") is not None}
    return said.pop() if len(said) == 1 else not has_head


def read_decoder(text: Mapping[str, Any], tied: bool) -> DecoderConfig:
    """The decoder of a `text_config`; WeightsError when it is no plain Llama."""
    heads, dim = text["num_attention_heads"], text["hidden_size"]
    unsupported = {
        "model_type": text.get("model_type", "llama") != "llama",
        "hidden_act": text.get("hidden_act", "silu") != "silu",
        "attention_bias": bool(text.get("attention_bias")),
        "mlp_bias": bool(text.get("mlp_bias")),
        "head_dim": (text.get("head_dim") or dim // heads) != dim // heads,
    }
    for key in (key for key, wrong in unsupported.items() if wrong):
        raise WeightsError(f"config.json: text_config.{key} is {text[key]!r}, which is not supported")
    rope = section(text, "rope_parameters", f"{WHERE}text_config.")
    return DecoderConfig(
        vocab_size=text["vocab_size"],
        dim=dim,
        layers=text["num_hidden_layers"],
        heads=heads,
        kv_heads=text.get("num_key_value_heads") or heads,
        hidden_dim=text["intermediate_size"],
        norm_eps=text["rms_norm_eps"],
        rope_theta=float(rope.get("rope_theta") or text.get("rope_theta") or 10000.0),
        rope_scaling=read_scaling(rope or section(text, "rope_scaling", f"{WHERE}text_config.")),
        tied=tied,
        max_seq_len=text["max_position_embeddings"],
    )


def read_scaling(rope: Mapping[str, Any]) -> RopeScaling | None:
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return None
    if kind != "llama3":
        raise WeightsError(f"config.json: text_config's rope_type is {kind!r}; supported are default and llama3")
    try:
        return RopeScaling(
            factor=float(rope["factor"]),
            low_freq_factor=float(rope["low_freq_factor"]),
            high_freq_factor=float(rope["high_freq_factor"]),
            original_max_position=int(rope["original_max_position_embeddings"]),
        )
    except KeyError as error:
        raise WeightsError(f"config.json: text_config's RoPE scaling lacks {error}") from error


def read_tower(values: Mapping[str, Any], own: Mapping[str, Any]) -> VisionConfig:
    """The tower of a `vision_config` around timm; WeightsError when it is another one, or would rescale its RoPE."""
    wrapper = section(values, "vision_config", WHERE)
    name = wrapper.get("architecture")
    if not isinstance(name, str) or name not in TOWERS:
        raise WeightsError(f"config.json: vision_config.architecture is {name!r}; supported are {', '.join(TOWERS)}")
    place = f"{WHERE}vision_config."
    arguments = {**TOWERS[name], **section(wrapper, "model_args", place)}
    size = arguments["img_size"]
    if isinstance(size, list) and len(set(map(str, size))) == 1:
        arguments["img_size"] = size[0]
    require_numbers(arguments, f"{place}model_args.", TOWER_SIZES, ("mlp_ratio",))
    vision = VisionConfig(
        image_size=arguments["img_size"],
        patch_size=arguments.get("patch_size", 14),
        width=arguments["embed_dim"],
        layers=arguments["depth"],
        heads=arguments["num_heads"],
        mlp_ratio=float(arguments["mlp_ratio"]),
        use_cls_token=values.get("vision_use_cls_token", True),
        layer_scale_init=arguments.get("init_values"),
        drop_path=own.get("drop_path", 0.0),
    )
    if arguments["ref_feat_shape"] not in ([vision.grid, vision.grid], (vision.grid, vision.grid)):
        raise WeightsError(
            f"config.json: vision_config.model_args.ref_feat_shape is {arguments['ref_feat_shape']}; "
            f"PLM's towers never rescale RoPE, so it must be [{vision.grid}, {vision.grid}]"
        )
    if arguments.get("use_post_transformer_norm", True):
        raise WeightsError("config.json: vision_config.model_args.use_post_transformer_norm must be false")
    return vision


def read_processor(
    found: Mapping[str, Any] | None, vision: VisionConfig, own: Mapping[str, Any]
) -> tuple[ProcessorConfig, list[str]]:
    """How media become tiles: from the image processor's file, else what PLM does at the tower's size, with a note."""
    notes = []
    if found is None:
        size = vision.image_size
        settings = dict(own)
        assumed = ProcessorConfig(**settings)
        notes.append(
            f"no processor files: assuming the tower's tiles of {size}x{size} pixels, {assumed.vision_input_type}, "
            f"at most {assumed.max_num_tiles} tiles"
        )
        return assumed, notes
    size = found.get("tile_size", vision.image_size)
    if size != vision.image_size:
        notes.append(f"the processor's tile_size {size} is not the tower's {vision.image_size}, which is used")
    kind = "thumb+tile" if found.get("vision_input_type", "thumb+tile") == "thumb+tile" else "tile"
    return ProcessorConfig(**{**own, "vision_input_type": kind, "max_num_tiles": found.get("max_num_tiles", 36)}), notes
