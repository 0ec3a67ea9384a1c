"""The numbers that define a PLM model: every size, every constant, checked when it is written down.

Frozen dataclasses without torch, so that a command line or a form can read them in milliseconds. `PLMConfig.from_dict` and
`to_dict` are the JSON form kept in a checkpoint's `config.json`; an unknown key or a wrong value is a `ConfigError` naming
the field.
"""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

from plm_model.bounds import Range, below, check, positive, up_to

SYSTEM_PROMPT = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)

MAX_GRID = 1024  # patches along one side of a tile
T = TypeVar("T")


class ConfigError(ValueError):
    """A model setting that is unknown, of the wrong type or out of range; the message names the field."""


@dataclass(frozen=True)
class RopeScaling:
    """Llama-3 frequency scaling: wavelengths above `original_max_position / low_freq_factor` are slowed by `factor`."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    factor: float = 32.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position: int = 8192

    BOUNDS: ClassVar[dict[str, Range]] = {
        **dict.fromkeys(("factor", "low_freq_factor", "high_freq_factor"), positive(1e6)),
        "original_max_position": positive(2**24),
    }

    def __post_init__(self) -> None:
        require_sane(self)
        if self.high_freq_factor <= self.low_freq_factor:
            raise ConfigError("rope_scaling.high_freq_factor must be larger than low_freq_factor")


@dataclass(frozen=True)
class VisionConfig:
    """The Perception Encoder tower; the defaults are PE-L/14-448 as in PLM-1B and PLM-3B."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    image_size: int = 448
    patch_size: int = 14
    width: int = 1024
    layers: int = 23
    heads: int = 16
    mlp_ratio: float = 4.0
    use_cls_token: bool = True
    layer_scale_init: float | None = 0.1
    drop_path: float = 0.1

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
class DecoderConfig:
    """The Llama decoder; the defaults are the sizes of Llama-3.2-1B."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    vocab_size: int = 128256
    dim: int = 2048
    layers: int = 16
    heads: int = 32
    kv_heads: int = 8
    hidden_dim: int = 8192
    norm_eps: float = 1e-5
    rope_theta: float = 5e5
    rope_scaling: RopeScaling | None = None
    tied: bool = True
    max_seq_len: int = 11520

    BOUNDS: ClassVar[dict[str, Range]] = {
        "vocab_size": positive(2**24),
        "dim": positive(2**18),
        "layers": positive(1000),
        "heads": positive(4096),
        "kv_heads": positive(4096),
        "hidden_dim": positive(2**22),
        "norm_eps": positive(1.0),
        "rope_theta": positive(1e12),
        "max_seq_len": positive(2**24),
    }

    def __post_init__(self) -> None:
        require_sane(self)
        require_multiple(self, "dim", self.heads, "heads")
        require_multiple(self, "heads", self.kv_heads, "kv_heads")
        if self.head_dim % 2:
            raise ConfigError(f"decoder.dim / heads is {self.head_dim}; RoPE needs an even number")

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads


@dataclass(frozen=True)
class ProcessorConfig:
    """How media and conversations become tokens: what a checkpoint must remember to be used as it was trained.

    `jpeg_dct_scaling` decodes a large JPEG at the smallest DCT scale not below its tiles' size: faster, not the same pixels.
    `sixteen_bit_white` is the value of 16-bit grey that is white, such as 4095 where 12 bits are stored in 16.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    vision_input_type: Literal["tile", "thumb+tile"] = "thumb+tile"
    max_num_tiles: int = 36
    max_video_frames: int = 32
    jpeg_dct_scaling: bool = False
    sixteen_bit_white: int = 65535
    conversation_format: Literal["plm_sft", "warmup"] = "plm_sft"
    system_prompt: str = SYSTEM_PROMPT

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

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    vision: VisionConfig = field(default_factory=VisionConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    pooling_ratio: int = 2
    image_token_id: int = 128002
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


def parse(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Build the dataclass `cls` from a mapping, strictly; `where` is the dotted path used in messages."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where.rstrip('.') or 'model config'} must be a mapping, not {type(values).__name__}")
    types = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {where}{near[0]}?" if near else f"; known are {', '.join(known)}"
            raise ConfigError(f"unknown key {where}{key}{hint}")
    return cls(**{key: convert(types[key], value, f"{where}{key}") for key, value in values.items()})


def convert(kind: Any, value: Any, where: str) -> Any:
    """Check one value against its annotation (dataclass, number, string, bool, Literal, or one of them or None)."""
    options = typing.get_args(kind)
    if type(None) in options:
        return None if value is None else convert(options[0], value, where)
    if dataclasses.is_dataclass(kind):
        return value if isinstance(value, kind) else parse(kind, value, where + ".")
    if typing.get_origin(kind) is Literal:
        return value
    is_int = isinstance(value, int) and not isinstance(value, bool)
    if kind is float and (is_int or isinstance(value, float)):
        return float(value)
    if (kind is int and is_int) or (kind in (str, bool) and isinstance(value, kind)):
        return value
    raise ConfigError(f"{where} must be of type {kind.__name__}, not {value!r}")


def require_sane(config: Any) -> None:
    """ConfigError naming the first field of another type or out of its range."""
    check(config, title(config), ConfigError)


def require_multiple(config: Any, name: str, divisor: int, divisor_name: str) -> None:
    if getattr(config, name) % divisor:
        raise ConfigError(
            f"{title(config)}{name} is {getattr(config, name)}; it must be a multiple of {divisor_name} ({divisor})"
        )


def title(config: Any) -> str:
    """The section's name in messages, e.g. `vision.` for a VisionConfig."""
    names = {"VisionConfig": "vision.", "DecoderConfig": "decoder.", "ProcessorConfig": "processor."}
    return {"RopeScaling": "decoder.rope_scaling.", **names}.get(type(config).__name__, "")
