"""What "inside the data root" means, for every step: which path below the root a row means by what it says.

    images/7.png, ./images//7.png, images/../images/7.png      images/7.png
    /data/images/7.png, file:///data/images/7.png              images/7.png, where the root is /data
    ../7.png, /etc/passwd, https://example.com/7.png           nothing: OutsideRoot

A name like `C:/x.png`, `~/x.png` or `a\\x.png` is one as any other: nothing expands it, so it leads nowhere else.
"""

from __future__ import annotations

import base64
import binascii
import posixpath
import re
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

from plm_model.media.file_kind import file_kind

SHOWN = 80  # characters of a name in a message
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
BASE64 = re.compile(r"[A-Za-z0-9+/\s]{200,}={0,2}\s*")


class OutsideRoot(ValueError):
    """What a row names is no file below the data root; the message says what it is."""


def path_below(written: str, roots: Sequence[str] = ()) -> str:
    """The path relative to the root, in normal form. `roots` are absolute paths or URIs of the one root, as rows may spell it.

    OutsideRoot with what is wrong.
    """
    name = relative_to(written, roots)
    if name is None:
        name = _local(written) if written.lower().startswith("file://") else written
        name = relative_to(name, roots) or name
    refuse_other_kinds(written, name)
    normal = posixpath.normpath(name)
    if normal.startswith("/"):
        where = f" {roots[0]}" if roots else ""
        raise OutsideRoot(f"{shown(written)} is an absolute path that leads out of the data root{where}")
    if normal == ".." or normal.startswith("../"):
        raise OutsideRoot(f"{shown(written)} leads out of the data root; write a path relative to it")
    if normal == ".":
        raise OutsideRoot(f"{shown(written)} is the data root itself, not a file in it")
    return normal


def relative_to(name: str, roots: Sequence[str]) -> str | None:
    """The rest of an absolute path or URI behind one of the roots; None when it is below none of them."""
    for root in roots:
        start = root.rstrip("/") + "/"
        normal = posixpath.normpath(name) if name.startswith("/") else name
        if normal.startswith(start):
            return normal[len(start) :]
    return None


def refuse_other_kinds(written: str, name: str) -> None:
    """OutsideRoot for what is no path: a URL, or the picture itself as text."""
    if written[:5].lower() == "data:" or is_media_as_text(written):
        raise OutsideRoot(
            f"an image as text ({len(written):,} characters of base64), not the name of a file; write it to one and name that"
        )
    if SCHEME.match(name):
        raise OutsideRoot(f"{shown(written)} is a URL; download the file and write its path below the data root")


def is_media_as_text(written: str) -> bool:
    """Whether a text is the base64 of a picture or a video; a long name of letters and slashes may look like one."""
    if not BASE64.fullmatch(written):
        return False
    start = "".join(written[:400].split())
    try:
        kind = file_kind(base64.b64decode(start[: len(start) // 4 * 4]))
    except binascii.Error:
        return False
    return " picture" in kind or kind.startswith("a video")


def _local(uri: str) -> str:
    """The path that a file URI means."""
    parts = urlsplit(uri)
    return unquote(parts.path) if parts.netloc in ("", "localhost") else uri


def shown(name: str) -> str:
    """A name in quotes, no longer than a line takes."""
    text = name.encode("utf-8", "replace").decode()
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}…")
