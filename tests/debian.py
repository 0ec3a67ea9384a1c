"""Programs that tests need from Debian's packages: `.ci/debian.txt` lists them, and `.ci/run` installs what it lists."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

LIST = Path(__file__).resolve().parent.parent / ".ci" / "debian.txt"


def debian_program(package: str, program: str | None = None) -> str:
    """Path of a package's program. Without it the test is skipped by the package's name; with CI=true it fails."""
    listed = LIST.read_text(encoding="utf-8").split()
    assert package in listed, f"{package} is not in {LIST}"
    if found := shutil.which(program or package):
        return found
    missing = f"Debian's package {package} is not installed"
    if os.environ.get("CI") == "true":
        pytest.fail(f"{missing}; .ci/run installs it", pytrace=False)
    pytest.skip(missing)
