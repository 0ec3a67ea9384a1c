"""Where a benchmark's images and videos lie: below HF_HOME, as for lmms-eval's own tasks. A file that is missing is named."""

from __future__ import annotations

import os
from pathlib import Path

from components.errors import UserError


def huggingface_home() -> Path:
    """HF_HOME, or where Hugging Face's libraries look without it."""
    return Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()


def media_file(folder: str, *parts: str) -> Path:
    """A file of the benchmark whose media lie in `$HF_HOME/folder`. UserError names the file when it is not there."""
    path = huggingface_home().joinpath(folder, *parts)
    require(path)
    return path


def require(path: Path | str, whose: str = "") -> None:
    """UserError unless the file exists."""
    if not Path(path).exists():
        asked = f" of {whose}" if whose else ""
        raise UserError(f"{path}{asked} does not exist; media of benchmarks lie below HF_HOME={huggingface_home()}")
