"""A byte-level BPE tokenizer whose special tokens can only be placed by us, never by the text that it encodes.

`tokenizer.json` (Hugging Face format) is read by the `tokenizers` library; the specials are found by name, so that the
same class serves the 1,010 entries of `configs/tokenizers/plm_tiny` and the 128,256 of Llama 3.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import tokenizers

FILE_NAME = "tokenizer.json"
SPECIALS = {
    "bos_id": "<|begin_of_text|>",
    "eos_text_id": "<|end_of_text|>",
    "image_id": "<|image|>",
    "start_header_id": "<|start_header_id|>",
    "end_header_id": "<|end_header_id|>",
    "eot_id": "<|eot_id|>",
}


class TokenizerError(ValueError):
    """A tokenizer.json that cannot be read, or that lacks one of the special tokens."""


class Tokenizer:
    """Text to ids and back.

    Attributes: `bos_id`, `eos_text_id`, `image_id`, `start_header_id`, `end_header_id`, `eot_id` (ids of the specials),
    `stop_ids` (those that end an answer), `vocab_size` (highest id + 1), `path` (file it was read from, or None) and
    `bytes_digest` (sha256 of that file). Pickles by value, so it may travel to another machine.
    """

    bos_id: int
    eos_text_id: int
    image_id: int
    start_header_id: int
    end_header_id: int
    eot_id: int

    def __init__(self, source: bytes, path: Path | None = None) -> None:
        self.source = source
        self.path = path
        self.bytes_digest = hashlib.sha256(source).hexdigest()
        self.inner = parse(source, path)
        for attribute, token in SPECIALS.items():
            token_id = self.inner.token_to_id(token)
            if token_id is None:
                raise TokenizerError(f"{path or FILE_NAME}: the special token {token} is missing")
            setattr(self, attribute, token_id)
        self.vocab_size = max(self.inner.get_vocab(with_added_tokens=True).values()) + 1
        self.stop_ids = (self.eos_text_id, self.eot_id)

    @classmethod
    def from_file(cls, path: str | Path) -> Tokenizer:
        """Read a `tokenizer.json`, or the one in a directory; TokenizerError when it cannot be used."""
        file = Path(path)
        file = file / FILE_NAME if file.is_dir() else file
        try:
            return cls(file.read_bytes(), file)
        except OSError as error:
            raise TokenizerError(f"{file}: cannot read the tokenizer: {error.strerror}") from error

    def encode(self, text: str) -> list[int]:
        """Ids of a text. A special token's name inside the text is encoded as the characters it is made of."""
        return self.inner.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """Text of ids; bytes that are not UTF-8 become U+FFFD."""
        return self.inner.decode(list(ids), skip_special_tokens=skip_special)

    def save(self, directory: str | Path) -> Path:
        """Write `tokenizer.json`, byte for byte as it was read, into a directory."""
        target = Path(directory) / FILE_NAME
        target.write_bytes(self.source)
        return target

    def __reduce__(self) -> tuple[type[Tokenizer], tuple[bytes, Path | None]]:
        return Tokenizer, (self.source, self.path)


def parse(source: bytes, path: Path | None) -> tokenizers.Tokenizer:
    """The library's tokenizer, set up so that text never yields a special and nothing is added, cut or padded."""
    try:
        spec = json.loads(source)
        if not isinstance(spec, dict):
            raise TypeError("it holds no object")
        # Only tokens flagged as special obey `encode_special_tokens`; some published files leave the flag off.
        spec["added_tokens"] = [{**token, "special": True} for token in spec.get("added_tokens", [])]
        spec |= {"post_processor": None, "truncation": None, "padding": None}
        inner = tokenizers.Tokenizer.from_str(json.dumps(spec))
    except RecursionError as error:
        raise TokenizerError(f"{path or FILE_NAME}: not a tokenizer file: it is nested too deeply") from error
    except BaseException as error:  # the library raises bare Exception, and BaseException where its Rust code panics
        if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
            raise
        reason = " ".join(str(error).split())[:200]
        raise TokenizerError(f"{path or FILE_NAME}: not a tokenizer file: {reason}") from error
    inner.encode_special_tokens = True
    return inner
