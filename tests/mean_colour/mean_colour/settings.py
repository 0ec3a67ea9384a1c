"""What a model of the family is."""

from __future__ import annotations

from dataclasses import dataclass, field

from plm_model.nn.config import DecoderConfig

COLOUR, END = 0, 1  # ids that no text has
MODEL_TYPES = ()
NEEDS_TOKENIZER = False


def tiny() -> DecoderConfig:
    return DecoderConfig(128, 16, 1, 2, 2, 32, max_seq_len=256, tied=False)


@dataclass(frozen=True)
class Architecture:
    """A decoder; its vocabulary is ASCII."""

    decoder: DecoderConfig = field(default_factory=tiny)


def parameters(architecture: Architecture) -> int:
    decoder = architecture.decoder
    return 2 * decoder.vocab_size * decoder.dim + 3 * decoder.dim * decoder.hidden_dim
