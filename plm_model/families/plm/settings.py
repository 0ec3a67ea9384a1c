"""The numbers that define a PLM model: every size, every constant, checked when it is written down.

Frozen dataclasses without torch, so that a command line or a form can read them in milliseconds. `PLMConfig.from_dict` and
`to_dict` are the JSON form kept in a model directory's `config.json`; an unknown key or a wrong value is a `ConfigError` naming
the field.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from plm_model.nn.config import DecoderConfig
from plm_model.parsing.bounds import Range, below, positive, up_to
from plm_model.parsing.dataclass import ConfigError, parse, require_multiple, require_sane

SYSTEM_PROMPT = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)

TILES = "tiles"  # the name of the media of a batch
MAX_GRID = 1024  # patches along one side of a tile


@dataclass(frozen=True)
class VisionConfig:
    """The Perception Encoder tower; the defaults are PE-L/14-448 as in PLM-1B and PLM-3B."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}
    SECTION: ClassVar[str] = "vision."

    image_size: int = 448
    """Side of a tile in pixels."""
    patch_size: int = 14
    """Side of a patch in pixels."""
    width: int = 1024
    """Channels of the tower."""
    layers: int = 23
    """Blocks of the tower that are run."""
    heads: int = 16
    """Attention heads of a block."""
    mlp_ratio: float = 4.0
    """Width of a block's MLP over its own."""
    use_cls_token: bool = True
    """Whether a class token stands before the patches."""
    layer_scale_init: float | None = 0.1
    """Starting value of LayerScale; null for none."""
    drop_path: float = 0.1
    """Share of blocks that a sample skips in training."""

    BOUNDS: ClassVar[dict[str, Range]] = {
        "image_size": positive(16_384),
        "patch_size": positive(1024),
        "width": positive(2**16),
        "layers": positive(1000),
        "heads": positive(4096),
        "mlp_ratio": positive(64),
        "layer_scale_init": up_to(1000),
        "drop_path": below(1.0),
    }

    def __post_init__(self) -> None:
        require_sane(self)
        require_multiple(self, "image_size", self.patch_size, "patch_size")
        require_multiple(self, "width", self.heads, "heads")
        if self.head_dim % 4:
            raise ConfigError(f"vision.width / heads is {self.head_dim}; 2-D RoPE needs a multiple of 4")
        if self.hidden_dim < 1:
            raise ConfigError(f"vision.mlp_ratio is {self.mlp_ratio}; it gives an MLP without width")
        if self.grid > MAX_GRID:
            raise ConfigError(f"vision.image_size / patch_size is {self.grid}; it must be at most {MAX_GRID}")

    @property
    def grid(self) -> int:
        """Patches along one side of a tile."""
        return self.image_size // self.patch_size

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    @property
    def hidden_dim(self) -> int:
        """Width of the MLP's middle, rounded down as the released towers do."""
        return int(self.width * self.mlp_ratio)


@dataclass(frozen=True)
class ProcessorConfig:
    """How media and conversations become tokens: what a model directory must remember to be used as it was trained.

    `jpeg_dct_scaling` decodes a large JPEG at the smallest DCT scale not below its tiles' size: faster, not the same pixels.
    `sixteen_bit_white` is the value of 16-bit grey that is white, such as 4095 where 12 bits are stored in 16.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}
    SECTION: ClassVar[str] = "processor."

    vision_input_type: Literal["tile", "thumb+tile"] = "thumb+tile"
    """An image becomes one tile, or a thumbnail and a grid of tiles."""
    max_num_tiles: int = 36
    """Most tiles of an image's grid."""
    max_video_frames: int = 32
    """Frames that are taken of a video."""
    jpeg_dct_scaling: bool = False
    """Decode a large JPEG at a smaller scale: faster, not the same pixels."""
    sixteen_bit_white: int = 65535
    """The value of 16-bit grey that is white."""
    conversation_format: Literal["plm_sft", "warmup"] = "plm_sft"
    """The chat template, or image and caption alone."""
    system_prompt: str = SYSTEM_PROMPT
    """What stands before the first question."""

    BOUNDS: ClassVar[dict[str, Range]] = {
        "max_num_tiles": positive(10_000),
        "max_video_frames": positive(100_000),
        "sixteen_bit_white": positive(65535),
    }

    def __post_init__(self) -> None:
        require_sane(self)


@dataclass(frozen=True)
class PLMConfig:
    """A whole model: tower, decoder, pooling between them, the id that image features replace, and its processor."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    vision: VisionConfig = field(default_factory=VisionConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    pooling_ratio: int = 2
    """Side of the square of patches that becomes one token."""
    image_token_id: int = 128002
    """Id of the token in whose place features of images stand."""
    processor: ProcessorConfig = field(default_factory=ProcessorConfig)

    BOUNDS: ClassVar[dict[str, Range]] = {"pooling_ratio": positive(MAX_GRID), "image_token_id": up_to(2**24)}

    def __post_init__(self) -> None:
        require_sane(self)
        if self.vision.grid % self.pooling_ratio:
            raise ConfigError(
                f"pooling_ratio is {self.pooling_ratio}; it must divide the {self.vision.grid} patches of a tile's side"
            )
        if not 0 <= self.image_token_id < self.decoder.vocab_size:
            raise ConfigError(
                f"image_token_id is {self.image_token_id}; it must be below decoder.vocab_size {self.decoder.vocab_size}"
            )

    @property
    def tokens_per_tile(self) -> int:
        """Positions one tile takes in the decoder, e.g. (448 / 14 / 2)^2 = 256."""
        return (self.vision.grid // self.pooling_ratio) ** 2

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PLMConfig:
        """Build from the nested mapping of `to_dict`; missing keys keep their defaults, unknown ones are a ConfigError."""
        return parse(cls, values, "")

    def to_dict(self) -> dict[str, Any]:
        """The nested JSON-able mapping that `from_dict` reads back."""
        return dataclasses.asdict(self)


def parameters(config: PLMConfig) -> int:
    """About how many weights a model has (matrices only, the tower's and the decoder's): 1.5e9 for PLM-1B."""
    vision, decoder = config.vision, config.decoder
    tower = vision.layers * (4 * vision.width**2 + 2 * vision.width * vision.hidden_dim)
    kept = decoder.dim * decoder.head_dim * decoder.kv_heads
    layer = 2 * decoder.dim**2 + 2 * kept + 3 * decoder.dim * decoder.hidden_dim
    return tower + decoder.layers * layer + decoder.vocab_size * decoder.dim * (1 if decoder.tied else 2)


def untied(config: PLMConfig) -> PLMConfig:
    """The same model with an output matrix of its own."""
    return replace(config, decoder=replace(config.decoder, tied=False))


Architecture = PLMConfig
NEEDS_TOKENIZER = True
MODEL_TYPES = ("perception_lm",)
