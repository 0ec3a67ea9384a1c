"""The login of the Prefect servers over a state folder: random, in a file that only its user can read.

It goes to servers, clients and workers by environment; never into arguments, which every process of the machine can read,
nor into logs.
"""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from filelock import FileLock

NAME = "prefect-login"
USER = "plm"


def login_file(state_dir: Path) -> Path:
    """Where the login of a state folder is kept."""
    return state_dir / NAME


def local_login(state_dir: Path) -> str:
    """`user:password` of a state folder; made at its first start. Starts at the same time agree on one.

    A file that others could read is no secret any more: it is made anew, and so is one without a login in it.
    """
    state_dir.mkdir(parents=True, exist_ok=True)
    path = login_file(state_dir)
    with FileLock(path.with_suffix(".lock"), mode=0o600):
        return _read(path) or _make(path)


def _read(path: Path) -> str | None:
    try:
        with open(path, encoding="ascii") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                return None
            text = file.read().strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    return text if re.fullmatch(rf"{USER}:[\w-]{{32,}}", text) else None


def _make(path: Path) -> str:
    login = f"{USER}:{secrets.token_urlsafe(32)}"
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    with open(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(f"{login}\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    return login
