"""The numbers of a Llama decoder, checked when they are written down; no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from plm_model.parsing.bounds import Range, positive
from plm_model.parsing.dataclass import ConfigError, require_multiple, require_sane


@dataclass(frozen=True)
class RopeScaling:
    """Llama-3 frequency scaling: wavelengths above `original_max_position / low_freq_factor` are slowed by `factor`."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}
    SECTION: ClassVar[str] = "decoder.rope_scaling."

    factor: float = 32.0
    """Long wavelengths are slowed by it."""
    low_freq_factor: float = 1.0
    """Bound of the long wavelengths."""
    high_freq_factor: float = 4.0
    """Bound of the short wavelengths, which are kept."""
    original_max_position: int = 8192
    """Length that the frequencies were made for."""

    BOUNDS: ClassVar[dict[str, Range]] = {
        **dict.fromkeys(("factor", "low_freq_factor", "high_freq_factor"), positive(1e6)),
        "original_max_position": positive(2**24),
    }

    def __post_init__(self) -> None:
        require_sane(self)
        if self.high_freq_factor <= self.low_freq_factor:
            raise ConfigError("rope_scaling.high_freq_factor must be larger than low_freq_factor")


@dataclass(frozen=True)
class DecoderConfig:
    """The Llama decoder; the defaults are the sizes of Llama-3.2-1B."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}
    SECTION: ClassVar[str] = "decoder."

    vocab_size: int = 128256
    """Tokens that are told apart."""
    dim: int = 2048
    """Channels of the decoder."""
    layers: int = 16
    """Layers of the decoder."""
    heads: int = 32
    """Attention heads of a layer."""
    kv_heads: int = 8
    """Heads of keys and values, shared by groups of queries."""
    hidden_dim: int = 8192
    """Width of the feed-forward's middle."""
    norm_eps: float = 1e-5
    """Added to the mean square in RMSNorm."""
    rope_theta: float = 5e5
    """Base of the rotary frequencies."""
    rope_scaling: RopeScaling | None = None
    """Llama 3's scaling of these frequencies; null for none."""
    tied: bool = True
    """Whether the output matrix is the embedding."""
    max_seq_len: int = 11520
    """Longest sequence in tokens."""

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
